/* The Contexts that a thread is in, on a list of the ThreadState. */
#ifndef CONTEXTVARS_CY_THREAD_STACK_H
#define CONTEXTVARS_CY_THREAD_STACK_H

#include <Python.h>
#include <stdint.h>

#ifndef Py_GIL_DISABLED
#define PER_THREAD
#elif defined(_MSC_VER)
#define PER_THREAD __declspec(thread)
#else
#define PER_THREAD __thread
#endif

/* The thread that asked last for its ThreadState. */
static PER_THREAD uint64_t known_thread_id;
/* That thread's state, borrowed. */
static PER_THREAD PyObject *known_thread_state;

/* References move from the current one to those below and back, since a count that goes up and down at once waits
   for the processor's caches. The list keeps its room: leaving needs no memory. */
static inline int push_context(PyObject **current, PyObject *below, PyObject *context) {
    PyListObject *list = (PyListObject *)below;
    Py_ssize_t size = Py_SIZE(list);
    if (size < list->allocated) {
        list->ob_item[size] = *current;
        Py_SET_SIZE(list, size + 1);
    }
    else {
        if (PyList_Append(below, *current) < 0) return -1;
        Py_DECREF(*current);
    }
    Py_INCREF(context);
    *current = context;
    return 0;
}
static inline void pop_context(PyObject **current, PyObject *below) {
    PyListObject *list = (PyListObject *)below;
    Py_ssize_t size = Py_SIZE(list) - 1;
    PyObject *left = *current;
    *current = list->ob_item[size];
    Py_SET_SIZE(list, size);
    Py_DECREF(left);
}
#define PUSH_CONTEXT(state, context) \
    push_context((PyObject **)&(state)->_current, (PyObject *)(state)->_below, (PyObject *)(context))
#define POP_CONTEXT(state) pop_context((PyObject **)&(state)->_current, (PyObject *)(state)->_below)
#define HAS_ROOM(state) (Py_SIZE((state)->_below) < ((PyListObject *)(state)->_below)->allocated)
#define IS_TOPMOST(state, context) ((state)->_current == (context) && Py_SIZE((state)->_below) > 0)

#endif
