/* Calling, and being called, with arguments as they come; and what asyncio's tasks begin with. */
#ifndef CONTEXTVARS_CY_CALLS_H
#define CONTEXTVARS_CY_CALLS_H

#include <Python.h>

/* An instance's type is called by what is in its field `_vectorcall`, and binds without making a bound method. */
#define BE_CALLED(self) be_called(Py_TYPE(self), (char *)&(self)->_vectorcall - (char *)(self))
static inline void be_called(PyTypeObject *type, Py_ssize_t offset) {
    type->tp_vectorcall_offset = offset;
    type->tp_call = PyVectorcall_Call;
    type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
}

/* Set the `__init__` of a class, also of one in C, which Python allows while a flag is not set. */
static inline int replace_init(PyTypeObject *type, PyObject *init) {
    unsigned long immutable = type->tp_flags & Py_TPFLAGS_IMMUTABLETYPE;
    int result;
    type->tp_flags &= ~immutable;
    result = PyObject_SetAttrString((PyObject *)type, "__init__", init);
    type->tp_flags |= immutable;
    return result;
}

/* The same where it is C code, by C code, which is called with what it replaces in `before`. */
static inline int replace_slot_init(PyTypeObject *type, PyObject *replaced, initproc init, initproc *before) {
    PyWrapperDescrObject *descriptor = (PyWrapperDescrObject *)replaced;
    PyObject *replacing;
    int result;
    if ((void *)init == descriptor->d_wrapped) return 0;
    replacing = PyDescr_NewWrapper(type, descriptor->d_base, (void *)init);
    if (replacing == NULL) return -1;
    *before = (initproc)descriptor->d_wrapped;
    result = replace_init(type, replacing);
    Py_DECREF(replacing);
    return result;
}

#endif
