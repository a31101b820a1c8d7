/* How nodes are made, changed in place, and freed. */
#ifndef CONTEXTVARS_CY_NODE_MEMORY_H
#define CONTEXTVARS_CY_NODE_MEMORY_H

#include <Python.h>
#include <stddef.h>
#include <string.h>

#include "node.h"

/* Freed nodes, by size, linked by their first slot: they save most of the allocator's cost. */
#define HAMT_KEPT_SIZES 72
#ifndef HAMT_KEPT_NODES
#define HAMT_KEPT_NODES 32
#endif
#ifndef Py_GIL_DISABLED
static hamt_node *hamt_kept[HAMT_KEPT_SIZES];
static int hamt_kept_count[HAMT_KEPT_SIZES];
#endif

/* No tp_clear: like a tuple, a node cannot close a cycle, and the object that did can be cleared. */
static int hamt_node_traverse(PyObject *self, visitproc visit, void *arg) {
    hamt_node *node = (hamt_node *)self;
    for (Py_ssize_t index = 0; index < Py_SIZE(node); index++) Py_VISIT(node->slots[index]);
    return 0;
}

/* For a node without references of its own. */
static void hamt_free_node(hamt_node *node) {
#ifndef Py_GIL_DISABLED
    Py_ssize_t size = Py_SIZE(node);
    if (0 < size && size < HAMT_KEPT_SIZES && hamt_kept_count[size] < HAMT_KEPT_NODES) {
        node->slots[0] = (PyObject *)hamt_kept[size];
        hamt_kept[size] = node;
        hamt_kept_count[size]++;
        return;
    }
#endif
    PyObject_GC_Del(node);
}

/* Without the trashcan: nodes are at most eight deep, and deeper structures go through a map, which has it. */
static void hamt_node_dealloc(PyObject *self) {
    hamt_node *node = (hamt_node *)self;
    PyObject_GC_UnTrack(self);
    for (Py_ssize_t index = 0; index < Py_SIZE(node); index++) Py_DECREF(node->slots[index]);
    hamt_free_node(node);
}

static PyTypeObject hamt_node_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "contextvars_cy._Node",
    .tp_basicsize = offsetof(hamt_node, slots),
    .tp_itemsize = sizeof(PyObject *),
    .tp_dealloc = hamt_node_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_traverse = hamt_node_traverse,
};

static int hamt_node_type_ready(void) {
    return PyType_Ready(&hamt_node_type);
}

static inline hamt_node *hamt_new_node(uint32_t entries, uint32_t children, Py_ssize_t size) {
    hamt_node *node;
#ifndef Py_GIL_DISABLED
    if (size < HAMT_KEPT_SIZES && hamt_kept[size] != NULL) {
        node = hamt_kept[size];
        hamt_kept[size] = (hamt_node *)node->slots[0];
        hamt_kept_count[size]--;
        (void)PyObject_InitVar((PyVarObject *)node, &hamt_node_type, size);
    }
    else
#endif
        node = PyObject_GC_NewVar(hamt_node, &hamt_node_type, size);
    if (node) {
        node->entries = entries;
        node->children = children;
    }
    return node;
}

static inline PyObject *hamt_new_reference(PyObject *thing) {
    Py_INCREF(thing);
    return thing;
}

static inline void hamt_copy_slots(PyObject **to, PyObject **from, Py_ssize_t count) {
    for (Py_ssize_t index = 0; index < count; index++) to[index] = hamt_new_reference(from[index]);
}

/* A node with `gain` slots, for the caller to fill, in the place of `drop` slots from `at`. */
static inline hamt_node *hamt_spliced(
    hamt_node *node, uint32_t entries, uint32_t children, Py_ssize_t at, Py_ssize_t drop, Py_ssize_t gain
) {
    Py_ssize_t size = Py_SIZE(node);
    hamt_node *copy = hamt_new_node(entries, children, size - drop + gain);
    if (copy) {
        hamt_copy_slots(copy->slots, node->slots, at);
        hamt_copy_slots(copy->slots + at + gain, node->slots + at + drop, size - at - drop);
    }
    return copy;
}

/* The collector need not follow objects that cannot be in a cycle, such as a tree of strings and numbers. For child
   nodes, which never change, being tracked decides; for other objects their type. */
static inline int hamt_is_followed(PyObject *thing) {
    if (!PyType_HasFeature(Py_TYPE(thing), Py_TPFLAGS_HAVE_GC)) return 0;
    return Py_TYPE(thing) != &hamt_node_type || PyObject_GC_IsTracked(thing);
}

/* Whether the caller holds the only reference to the node, and the collector need not learn of the new slot. */
static inline int hamt_can_change(hamt_node *node, PyObject *slot) {
    return HAMT_HAS_REFERENCES(node, 1) && (PyObject_GC_IsTracked((PyObject *)node) || !hamt_is_followed(slot));
}

/* Finish a node made from another one, or from none, with `gain` slots from `at` of its own. */
static inline PyObject *hamt_finished(hamt_node *node, hamt_node *from, Py_ssize_t at, Py_ssize_t gain) {
    int followed = from != NULL && PyObject_GC_IsTracked((PyObject *)from);
    for (Py_ssize_t index = at; !followed && index < at + gain; index++) {
        followed = hamt_is_followed(node->slots[index]);
    }
    if (followed) PyObject_GC_Track(node);
    return (PyObject *)node;
}

/* Free a node whose references have moved to another. */
static void hamt_free_shell(hamt_node *node) {
#ifdef Py_REF_DEBUG
    /* The interpreter counts all references, so it must see each one end. */
    for (Py_ssize_t index = 0; index < Py_SIZE(node); index++) node->slots[index] = hamt_new_reference(Py_None);
    Py_DECREF(node);
#else
    PyObject_GC_UnTrack(node);
    hamt_free_node(node);
#endif
}

/* Fill a node with another one's references, and leave a gap of `gain` slots in the place of `drop` slots from `at`. */
static inline void hamt_move_slots(hamt_node *to, hamt_node *from, Py_ssize_t at, Py_ssize_t drop, Py_ssize_t gain) {
    memcpy(to->slots, from->slots, at * sizeof(PyObject *));
    memcpy(to->slots + at + gain, from->slots + at + drop, (Py_SIZE(from) - at - drop) * sizeof(PyObject *));
}

/* Whether a node loses an entry where it stands. At every power of two it moves instead, so that more than half of its
   memory is always in use. */
static inline int hamt_shrinks(Py_ssize_t size) {
    return (size ^ (size - 2)) < (size & (size - 2));
}

/* Close the gap of an entry whose references the caller took. */
static inline void hamt_shrink(hamt_node *node, uint32_t bit, Py_ssize_t at) {
    Py_ssize_t size = Py_SIZE(node) - 2;
    node->entries ^= bit;
    memmove(node->slots + at, node->slots + at + 2, (size - at) * sizeof(PyObject *));
    Py_SET_SIZE(node, size);
}

/* A node that takes over another one's references, with `gain` slots, for the caller to fill, in the place of `drop`
   slots from `at`. NULL if other code holds that node, or no node of the size was kept: this allocates nothing, so that
   no user code runs in the middle. */
static hamt_node *hamt_node_from(hamt_node *node, uint32_t entries, Py_ssize_t at, Py_ssize_t drop, Py_ssize_t gain) {
#ifndef Py_GIL_DISABLED
    Py_ssize_t size = Py_SIZE(node) - drop + gain;
    if (Py_REFCNT(node) == 1 && 0 < size && size < HAMT_KEPT_SIZES && hamt_kept[size] != NULL) {
        hamt_node *moved = hamt_new_node(entries, node->children, size);
        hamt_move_slots(moved, node, at, drop, gain);
        return moved;
    }
#endif
    return NULL;
}

#endif
