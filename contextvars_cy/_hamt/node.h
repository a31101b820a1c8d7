/* The trie's node, and the keys in it. */
#ifndef CONTEXTVARS_CY_NODE_H
#define CONTEXTVARS_CY_NODE_H

#include <Python.h>
#include <stdint.h>

/* A reference to the root keeps every node below alive, since none is ever written again: walks borrow. */
typedef struct {
    PyObject_VAR_HEAD
    uint32_t entries;
    uint32_t children;
    PyObject *slots[];
} hamt_node;

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

/* Not the same object. Integers have no code of the user's to run, and types without a comparison of their own, such as
   ContextVar, are equal by identity only. */
static inline int hamt_equal_keys(PyObject *found, PyObject *key) {
    PyTypeObject *type = Py_TYPE(key);
    if (type == Py_TYPE(found)) {
        if (type == &PyLong_Type) {
            PyObject *answer = PyLong_Type.tp_richcompare(key, found, Py_EQ);
            Py_DECREF(answer);
            return answer == Py_True;
        }
        if (type->tp_richcompare == NULL || type->tp_richcompare == PyBaseObject_Type.tp_richcompare) return 0;
    }
    return PyObject_RichCompareBool(key, found, Py_EQ);
}

#endif
