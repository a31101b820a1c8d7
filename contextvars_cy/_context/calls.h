/* Call, and be called, with arguments as they come; and replace the `__init__` of asyncio's tasks. */
#ifndef CONTEXTVARS_CY_CALLS_H
#define CONTEXTVARS_CY_CALLS_H

#include <Python.h>

/* Calls of the instance go to its field `_vectorcall`, and binding makes no bound method. */
#define BE_CALLED(self) be_called(Py_TYPE(self), (char *)&(self)->_vectorcall - (char *)(self))
static inline void be_called(PyTypeObject *type, Py_ssize_t offset) {
    type->tp_vectorcall_offset = offset;
    type->tp_call = PyVectorcall_Call;
    type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
}

/* Set the `__init__` of a class, even of a C class, which Python allows while a flag is not set. */
static inline int replace_init(PyTypeObject *type, PyObject *init) {
    unsigned long immutable = type->tp_flags & Py_TPFLAGS_IMMUTABLETYPE;
    int result;
    type->tp_flags &= ~immutable;
    result = PyObject_SetAttrString((PyObject *)type, "__init__", init);
    type->tp_flags |= immutable;
    return result;
}

/* CPython keeps a slot's function as an object pointer, to which C has no cast. */
typedef union {
    void *wrapped;
    initproc init;
} wrapped_init;

/* The same for an `__init__` in C, with another in C; `before` gets the replaced one. */
static inline int replace_slot_init(PyTypeObject *type, PyObject *replaced, initproc init, initproc *before) {
    PyWrapperDescrObject *descriptor = (PyWrapperDescrObject *)replaced;
    wrapped_init theirs, ours;
    PyObject *replacing;
    int result;
    theirs.wrapped = descriptor->d_wrapped;
    ours.init = init;
    /* Once for each class: what another copy of the package has put on top of ours calls ours. */
    if (*before != NULL && *before != theirs.init) return 0;
    replacing = PyDescr_NewWrapper(type, descriptor->d_base, ours.wrapped);
    if (replacing == NULL) return -1;
    *before = theirs.init;
    result = replace_init(type, replacing);
    Py_DECREF(replacing);
    return result;
}

#endif
