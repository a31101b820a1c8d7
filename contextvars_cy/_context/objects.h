/* Make, keep and fill Contexts and tokens without Cython's calls in between, and count their references. */
#ifndef CONTEXTVARS_CY_OBJECTS_H
#define CONTEXTVARS_CY_OBJECTS_H

#include <Python.h>

/* Freed objects of one type, for reuse. */
typedef struct {
    Py_ssize_t count;
    PyObject *freed[64];
} free_list;

/* An instance whose fields are NULL, or 0; Cython's own code takes three calls. */
static inline PyObject *allocate(PyTypeObject *type, free_list *list) {
    PyObject *made;
    if (list->count == 0) return PyType_GenericAlloc(type, 0);
    made = list->freed[--list->count];
    _Py_NewReference(made);
    PyObject_GC_Track(made);
    return made;
}

/* For a type's `tp_free`, after its `tp_dealloc` has released the fields. */
static inline void release(PyObject *freed, free_list *list) {
#if CYTHON_USE_FREELISTS /* With the GIL, unless the build sets it to 0. */
    if (list->count < 64) {
        list->freed[list->count++] = freed;
        return;
    }
#endif
    PyObject_GC_Del(freed);
}

/* As PyObject_Vectorcall, but without its check that C code sets either a result or an exception. */
static inline PyObject *vectorcall_of(PyObject *callable, PyObject *const *args, size_t count, PyObject *names) {
    PyTypeObject *type = Py_TYPE(callable);
    if (type->tp_flags & Py_TPFLAGS_HAVE_VECTORCALL) {
        vectorcallfunc function = *(vectorcallfunc *)((char *)callable + type->tp_vectorcall_offset);
        if (function != NULL) return function(callable, args, count, names);
    }
    return PyObject_Vectorcall(callable, args, count, names);
}

/* The referent of a weak reference, owned; NULL if it is gone. */
static inline PyObject *referent_of(PyObject *reference) {
    PyObject *referent;
#if PY_VERSION_HEX >= 0x030D0000
    PyWeakref_GetRef(reference, &referent);
#else
    referent = PyWeakref_GET_OBJECT(reference);
    if (referent == Py_None) return NULL;
    Py_INCREF(referent);
#endif
    return referent;
}

#ifndef Py_GIL_DISABLED
#define HAS_GIL 1
#else
#define HAS_GIL 0
#endif

#define PUT_ROOT(snapshot, root) ((snapshot)->_root = (PyObject *)(root))

#define items_of_list(list) (((PyListObject *)(list))->ob_item)

static inline int raise_pending(void) {
    return -1;
}

/* One step, because another thread may try the same. */
#ifdef Py_GIL_DISABLED
#define EXCHANGE_ENTERED(context, entered) _Py_atomic_exchange_int(&(context)->_entered, entered)
#else
static inline int exchange_flag(int *flag, int value) {
    int old = *flag;
    *flag = value;
    return old;
}
#define EXCHANGE_ENTERED(context, entered) exchange_flag(&(context)->_entered, entered)
#endif

/* For objects just made. */
#define FILL_TOKEN(token, var, context) \
    fill_field((PyObject **)&(token)->_var, (PyObject *)(var)); \
    fill_field((PyObject **)&(token)->_old_value, Py_None); \
    fill_field((PyObject **)&(token)->_context, (PyObject *)(context)); \
    fill_field((PyObject **)&(token)->_origin, Py_None); \
    (token)->_used = 0
#define FILL_CONTEXT(context, native, snapshot) \
    fill_field((PyObject **)&(context)->_native, (PyObject *)(native)); \
    fill_field((PyObject **)&(context)->_snapshot, (PyObject *)(snapshot)); \
    fill_field((PyObject **)&(context)->_home, Py_None); \
    (context)->_entered = (context)->_is_registered = 0
static inline void fill_field(PyObject **field, PyObject *value) {
    Py_INCREF(value);
    *field = value;
}

#endif
