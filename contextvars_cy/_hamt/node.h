/* The trie's node, and the keys in it. */
#ifndef CONTEXTVARS_CY_NODE_H
#define CONTEXTVARS_CY_NODE_H

#include <Python.h>
#include <stdint.h>

/* A reference to the root keeps every node below alive and as it is, so walks borrow: only nodes that nothing but one
   mutation can reach are written again. */
typedef struct {
    PyObject_VAR_HEAD
    uint32_t entries;
    uint32_t children;
    PyObject *slots[];
} hamt_node;

#define HAMT_FIRST_HASH (PY_SSIZE_T_MIN + (PY_SSIZE_T_MAX >> 7))

/* Whether there are so many references to the thing. Without the GIL a count proves nothing. */
#ifndef Py_GIL_DISABLED
#define HAMT_HAS_REFERENCES(thing, count) (Py_REFCNT(thing) == (count))
#else
#define HAMT_HAS_REFERENCES(thing, count) 0
#endif

/* Uses the processor's instruction if it has one: on x86 that shows only at run time, and a builtin alone would be a
   function call there. */
static inline int popcount(uint32_t bitmap) {
#if defined(__POPCNT__) || (defined(__aarch64__) && defined(__GNUC__))
    return __builtin_popcount(bitmap);
#elif defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("popcnt")) {
        uint32_t count;
        __asm__("popcntl %1, %0" : "=r"(count) : "r"(bitmap) : "cc");
        return (int)count;
    }
#endif
    bitmap = bitmap - ((bitmap >> 1) & 0x55555555u);
    bitmap = (bitmap & 0x33333333u) + ((bitmap >> 2) & 0x33333333u);
    return (int)((((bitmap + (bitmap >> 4)) & 0x0F0F0F0Fu) * 0x01010101u) >> 24);
}

#if defined(__GNUC__)
#define hamt_prefetch(address) __builtin_prefetch(address)
#else
#define hamt_prefetch(address) ((void)(address))
#endif

/* Whoever walks a whole tree tells the processor of the next node before it works on this one: what a node holds lies
   scattered in memory, and each miss would be waited for by itself. */
static inline void hamt_prefetch_slots(hamt_node *node) {
    for (Py_ssize_t index = 0; index < Py_SIZE(node); index++) hamt_prefetch(node->slots[index]);
}

static inline uint32_t hamt_fold(Py_hash_t key_hash) {
    /* A 32-bit hash is widened with its sign first, so that the same formula works for it. */
    uint32_t mixed = (uint32_t)((uint64_t)(int64_t)key_hash * 0x9E3779B97F4A7C15u >> 32);
    mixed = (mixed ^ mixed >> 15) * 0x735A2D97u;
    return mixed ^ mixed >> 15;
}

static inline Py_hash_t hamt_unfold(uint32_t folded) {
    uint32_t mixed = (folded ^ folded >> 15 ^ folded >> 30) * 0x97132227u;
    mixed ^= mixed >> 15 ^ mixed >> 30;
    return sizeof(Py_hash_t) > 4 ? (Py_hash_t)(((uint64_t)mixed << 32 | folded) * 0xF1DE83E19937733Du)
                                 : (Py_hash_t)folded;
}

/* Not the same object. Integers have no code of the user's to run, and types without a comparison of their own, such as
   ContextVar, are equal by identity only. */
static inline int hamt_equal_keys(PyObject *found, PyObject *key, Py_hash_t key_hash) {
    PyTypeObject *type = Py_TYPE(key);
    if (type == Py_TYPE(found)) {
        if (type == &PyLong_Type) {
            PyObject *answer = PyLong_Type.tp_richcompare(key, found, Py_EQ);
            Py_DECREF(answer);
            return answer == Py_True;
        }
        if (type->tp_richcompare == NULL || type->tp_richcompare == PyBaseObject_Type.tp_richcompare) return 0;
    }
    Py_hash_t found_hash = PyObject_Hash(found);
    if (found_hash != key_hash) return found_hash == -1 ? -1 : 0;
    return PyObject_RichCompareBool(key, found, Py_EQ);
}

#endif
