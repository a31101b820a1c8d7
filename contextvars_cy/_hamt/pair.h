/* The pairs that iterating yields. */
#ifndef CONTEXTVARS_CY_PAIR_H
#define CONTEXTVARS_CY_PAIR_H

#include <Python.h>

/* The last pair with new contents, like a dict's iterator; NULL if other code has kept it. */
static inline PyObject *reuse_pair(PyObject *pair, PyObject *key, PyObject *value) {
#ifndef Py_GIL_DISABLED
    if (pair != Py_None && Py_REFCNT(pair) == 1) {
        PyObject *old_key = PyTuple_GET_ITEM(pair, 0), *old_value = PyTuple_GET_ITEM(pair, 1);
        Py_INCREF(pair);
        Py_INCREF(key);
        Py_INCREF(value);
        PyTuple_SET_ITEM(pair, 0, key);
        PyTuple_SET_ITEM(pair, 1, value);
#if PY_VERSION_HEX >= 0x030E0000
        ((PyTupleObject *)pair)->ob_hash = -1;
#endif
        /* The collector untracks a tuple whose contents it need not follow. */
        if (!PyObject_GC_IsTracked(pair)) PyObject_GC_Track(pair);
        Py_DECREF(old_key);
        Py_DECREF(old_value);
        return pair;
    }
#endif
    return NULL;
}

#endif
