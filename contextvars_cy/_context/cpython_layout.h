/* CPython's private structs behind its contexts, the only place that reads them, and the probe that checks them. */
#ifndef CONTEXTVARS_CY_CPYTHON_LAYOUT_H
#define CONTEXTVARS_CY_CPYTHON_LAYOUT_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../_hamt/node.h"

/* The fields read here are in a public struct, which a later Python may change: there the slower code runs, which needs
   none of them. */
#ifndef CPYTHON_FIELDS_ARE_KNOWN
#define CPYTHON_FIELDS_ARE_KNOWN (PY_VERSION_HEX < 0x03100000)
#endif

#if PY_VERSION_HEX >= 0x030D0000
#define thread_here() PyThreadState_GetUnchecked()
#else
#define thread_here() _PyThreadState_UncheckedGet()
#endif

/* Unique to each thread state. */
static inline uint64_t thread_id_here(void) {
#if CPYTHON_FIELDS_ARE_KNOWN
    return thread_here()->id;
#else
    return PyThreadState_GetID(thread_here());
#endif
}

/* Where the version is, to read more than once; it moves whenever this thread enters or leaves a native Context. */
static inline const uint64_t *context_version_here(void) {
#if CPYTHON_FIELDS_ARE_KNOWN
    return &thread_here()->context_ver;
#else
    static uint64_t version = 0;
    ++version;
    return &version;
#endif
}

static inline uint64_t context_version(void) {
    return *context_version_here();
}

/* The thread's native Context, borrowed; NULL if it has none yet, or this Python does not show it. */
static inline PyObject *current_native_context(void) {
#if CPYTHON_FIELDS_ARE_KNOWN
    return thread_here()->context;
#else
    return NULL;
#endif
}

/* The same of any thread of this interpreter, and the number that `threading.get_ident` returns there. With the GIL alone:
   without it, the other thread may free the Context in between. */
#if CPYTHON_FIELDS_ARE_KNOWN && !defined(Py_GIL_DISABLED)
#define THREADS_ARE_SHOWN 1
#define NATIVE_CONTEXT_OF(thread) ((thread)->context)
#define IDENT_OF(thread) ((thread)->thread_id)
#else
#define THREADS_ARE_SHOWN 0
#define NATIVE_CONTEXT_OF(thread) ((void)(thread), (PyObject *)NULL)
#define IDENT_OF(thread) ((void)(thread), 0UL)
#endif

#if PY_VERSION_HEX < 0x030A0000
#define Py_NewRef(thing) (Py_INCREF(thing), (thing))
#endif

static inline int visit_map(PyObject *referent, void *found) {
    if (strcmp(Py_TYPE(referent)->tp_name, "hamt") != 0) return 0;
    *(PyObject **)found = referent;
    return 1;
}

/* The map of a Context's variables, borrowed. Contexts with the same map have the same values. */
static inline PyObject *map_of_context(PyObject *context) {
    PyObject *map = NULL;
    Py_TYPE(context)->tp_traverse(context, visit_map, &map);
    return map;
}

/* The structs behind a Context and its map, as far as they are read here. CPython does not promise them:
   `probe_layout` checks them. Without the GIL there is no lock to read them under. */
typedef struct {
    PyObject_HEAD
    PyObject *previous;
#ifdef CPYTHON_LAYOUT_IS_OTHER /* For a test of the probe. */
    PyObject *unknown;
#endif
    PyObject *map;
} layout_of_context;

typedef struct {
    PyObject_HEAD
    PyObject *root;
} layout_of_map;

typedef struct {
    PyObject_VAR_HEAD
    uint32_t bitmap;
    PyObject *slots[];
} layout_of_bitmap_node;

typedef struct {
    PyObject_HEAD
    PyObject *children[32];
} layout_of_array_node;

static PyObject *the_anchor;
static uint32_t anchor_hash;
static PyTypeObject *bitmap_node_type, *array_node_type;
static int layout_is_known = 0;

/* The anchor's value in the Context, borrowed. NULL if it has none, or CPython must be asked: among variables whose
   hashes are all the same. `alone` says whether no other Context shares the way to the value: a copy shares the map, a
   changed copy shares nodes of it, and all references are counted, so counts of one from the map to the value mean
   that only this Context has it. */
static inline PyObject *find_anchor(PyObject *context, int *alone) {
    PyObject *map = ((layout_of_context *)context)->map, *node = ((layout_of_map *)map)->root;
    uint32_t hash = anchor_hash;
    *alone = Py_REFCNT(map) == 1;
    while (node != NULL) {
        *alone &= Py_REFCNT(node) == 1;
        if (Py_IS_TYPE(node, bitmap_node_type)) {
            layout_of_bitmap_node *entries = (layout_of_bitmap_node *)node;
            uint32_t bit = (uint32_t)1 << (hash & 31);
            if (!(entries->bitmap & bit)) return NULL;
            PyObject **slot = entries->slots + 2 * popcount(entries->bitmap & (bit - 1));
            if (slot[0] != NULL) return slot[0] == the_anchor ? slot[1] : NULL;
            node = slot[1];
        }
        else if (Py_IS_TYPE(node, array_node_type)) {
            node = ((layout_of_array_node *)node)->children[hash & 31];
        }
        else {
            return NULL;
        }
        hash >>= 5;
    }
    return NULL;
}

/* The same for reading only; finds the anchor at once if it is the first of few variables. */
static inline PyObject *anchor_value_in(PyObject *context) {
    layout_of_bitmap_node *root = (layout_of_bitmap_node *)((layout_of_map *)((layout_of_context *)context)->map)->root;
    int alone;
    if (Py_IS_TYPE((PyObject *)root, bitmap_node_type) && root->bitmap && root->slots[0] == the_anchor) {
        return root->slots[1];
    }
    return find_anchor(context, &alone);
}

/* The anchor's value in the current Context, borrowed; NULL if there is none, or CPython must be asked. */
static inline PyObject *anchor_value_here(void) {
#if CPYTHON_FIELDS_ARE_KNOWN && !defined(Py_GIL_DISABLED)
    PyObject *context = thread_here()->context;
    if (layout_is_known && context != NULL) return anchor_value_in(context);
#endif
    return NULL;
}

#if CPYTHON_FIELDS_ARE_KNOWN && !defined(Py_GIL_DISABLED)
static inline int visit_first(PyObject *referent, void *found) {
    *(PyObject **)found = referent;
    return 1;
}

/* Whether a Context's map is as described above, according to its own functions. */
static inline int context_is_as_described(PyObject *context, PyObject *value, int shared) {
    PyObject *map = map_of_context(context), *root = NULL;
    int alone;
    if (map == NULL || ((layout_of_context *)context)->map != map) return 0;
    Py_TYPE(map)->tp_traverse(map, visit_first, &root);
    if (root == NULL || ((layout_of_map *)map)->root != root) return 0;
    PyTypeObject *type = Py_TYPE(root);
    if (strcmp(type->tp_name, "hamt_bitmap_node") == 0) {
        if (type->tp_basicsize != offsetof(layout_of_bitmap_node, slots)) return 0;
        bitmap_node_type = type;
    }
    else if (strcmp(type->tp_name, "hamt_array_node") == 0) {
        if (type->tp_basicsize < (Py_ssize_t)sizeof(layout_of_array_node)) return 0;
        array_node_type = type;
    }
    return find_anchor(context, &alone) == value && alone == !shared;
}

/* In a Context of one variable, in those of many more, and in a copy. */
static inline int try_layout(PyObject *context, PyObject *value) {
    int count, as_described = 1;
    for (count = 0; count < 40 && as_described; count++) {
        PyObject *variable = count ? PyContextVar_New("filler", NULL) : Py_NewRef(the_anchor);
        PyObject *token = variable ? PyContextVar_Set(variable, value) : NULL;
        Py_XDECREF(variable);
        if (token == NULL) return -1;
        Py_DECREF(token);
        as_described = context_is_as_described(context, value, 0);
    }
    PyObject *copy = PyContext_Copy(context);
    if (copy == NULL) return -1;
    as_described = as_described && context_is_as_described(context, value, 1);
    Py_DECREF(copy);
    return as_described && bitmap_node_type != NULL && array_node_type != NULL;
}

#endif

/* Call it once, with the variable to look for from then on. */
static inline int probe_layout(PyObject *anchor, PyObject *value) {
    the_anchor = anchor;
#if CPYTHON_FIELDS_ARE_KNOWN && !defined(Py_GIL_DISABLED)
    PyObject *context = PyContext_New();
    Py_hash_t hash = PyObject_Hash(anchor);
    int answer = -1;
    /* Folded like CPython's `hamt_hash`. */
    anchor_hash = (uint32_t)hash;
#if SIZEOF_VOID_P > 4
    anchor_hash ^= (uint32_t)((uint64_t)hash >> 32);
#endif
    if (anchor_hash == (uint32_t)-1) anchor_hash = (uint32_t)-2;
    if (context != NULL && hash != -1 && PyContext_Enter(context) == 0) {
        answer = try_layout(context, value);
        if (PyContext_Exit(context) < 0) answer = -1;
    }
    Py_XDECREF(context);
    layout_is_known = answer == 1;
    return answer < 0 ? -1 : 0;
#else
    return 0;
#endif
}

#endif
