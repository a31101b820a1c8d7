/* The interpreter's own contexts, as far as its C API reaches them. */
#ifndef CONTEXTVARS_CY_INTERPRETER_H
#define CONTEXTVARS_CY_INTERPRETER_H

#include <Python.h>
#include "cpython_layout.h"

static inline int visit_context(PyObject *referent, void *found) {
    if (!PyContext_CheckExact(referent)) return 0;
    *(PyObject **)found = referent;
    return 1;
}

/* A token keeps its Context private, but shows it to the garbage collector; borrowed. */
static inline PyObject *context_of_token(PyObject *token) {
    PyObject *context = NULL;
    Py_TYPE(token)->tp_traverse(token, visit_context, &context);
    return context;
}

/* Before 3.12 any allocation may run the collector, even in the middle of CPython's set or copy. What a finaliser sets
   there is lost, and frees the map that CPython is reading (its issue 148891). So the collector waits. Nothing that
   runs user code is freed meanwhile: the caller holds the old value. */
#if PY_VERSION_HEX >= 0x030C0000
#define stop_collector() 0
#define resume_collector(stopped) ((void)(stopped))
#elif PY_VERSION_HEX >= 0x030A0000
#define stop_collector() PyGC_Disable()
#define resume_collector(stopped) ((stopped) ? PyGC_Enable() : 0)
#else
/* Looked up early, so that a lack of memory cannot leave the collector stopped. */
static PyObject *gc_isenabled, *gc_disable, *gc_enable;
static inline int call_and_clear(PyObject *function) {
    PyObject *error, *value, *traceback, *answer;
    PyErr_Fetch(&error, &value, &traceback);
    answer = PyObject_CallObject(function, NULL);
    int is_true = answer == Py_True;
    Py_XDECREF(answer);
    PyErr_Restore(error, value, traceback);
    return is_true;
}
static inline int stop_collector(void) {
    if (gc_enable == NULL) {
        PyObject *module = PyImport_ImportModule("gc");
        if (module != NULL) {
            Py_XSETREF(gc_isenabled, PyObject_GetAttrString(module, "isenabled"));
            Py_XSETREF(gc_disable, PyObject_GetAttrString(module, "disable"));
            if (gc_isenabled && gc_disable) {
                gc_enable = PyObject_GetAttrString(module, "enable");
            }
            Py_DECREF(module);
        }
        PyErr_Clear();
    }
    if (gc_enable == NULL || !call_and_clear(gc_isenabled)) return 0;
    call_and_clear(gc_disable);
    return 1;
}
#define resume_collector(stopped) ((stopped) ? call_and_clear(gc_enable) : 0)
#endif

/* CPython reads and changes a Context without a lock, even without the GIL (its issue 155519). So code here that
   touches a native Context that another thread can see does so in a critical section of that Context. */
#ifdef Py_GIL_DISABLED
#define LOCKED(context, statement) \
    Py_BEGIN_CRITICAL_SECTION(context); \
    statement; \
    Py_END_CRITICAL_SECTION()
#else
#define LOCKED(context, statement) statement
#endif

/* They set an exception if they return -1. */
static inline int enter_native(PyObject *context) {
    int status;
    LOCKED(context, status = PyContext_Enter(context));
    return status;
}

static inline int exit_native(PyObject *context) {
    int status;
    LOCKED(context, status = PyContext_Exit(context));
    return status;
}

static inline PyObject *copy_native(PyObject *context) {
    PyObject *copy;
    int stopped = stop_collector();
    LOCKED(context, copy = PyContext_Copy(context));
    resume_collector(stopped);
    return copy;
}

static inline PyObject *copy_current_native(void) {
    int stopped = stop_collector();
    PyObject *copy = PyContext_CopyCurrent();
    resume_collector(stopped);
    return copy;
}

static inline PyObject *set_native(PyObject *variable, PyObject *value) {
    PyObject *token;
#ifdef Py_GIL_DISABLED
    PyObject *context = current_native_context();
    if (context != NULL) {
        LOCKED(context, token = PyContextVar_Set(variable, value));
        return token;
    }
#endif
    int stopped = stop_collector();
    token = PyContextVar_Set(variable, value);
    resume_collector(stopped);
    return token;
}

/* The value in that Context, owned, or NULL; only a failure sets an exception. */
static inline PyObject *value_in_native(PyObject *context, PyObject *variable) {
    PyObject *value;
    LOCKED(context, value = Py_TYPE(context)->tp_as_mapping->mp_subscript(context, variable));
    if (value == NULL && PyErr_ExceptionMatches(PyExc_KeyError)) PyErr_Clear();
    return value;
}

/* The value in the current Context, owned, or NULL: as PyContextVar_Get finds it, but in the Context itself. */
static inline PyObject *current_native_value(PyObject *variable) {
    PyObject *context = copy_current_native(), *value;
    if (context == NULL) return NULL;
    value = value_in_native(context, variable);
    Py_DECREF(context);
    return value;
}

/* Call `told` after each switch of Contexts in any thread, except those that count as our own moves; NULL ends that.
   CPython reports them from 3.14 on. */
#if PY_VERSION_HEX >= 0x030E0000
#ifdef _MSC_VER
static __declspec(thread) int own_moves;
#else
static __thread int own_moves;
#endif
static void (*told_of_switch)(void);
static int context_watcher = -1;

static inline int on_context_event(PyContextEvent event, PyObject *Py_UNUSED(context)) {
    if (event == Py_CONTEXT_SWITCHED && !own_moves && !Py_IsFinalizing()) {
        PyObject *pending = PyErr_GetRaisedException();
        told_of_switch();
        PyErr_SetRaisedException(pending);
    }
    return 0;
}

static inline int watch_switches(void (*told)(void)) {
    int watcher = context_watcher;
    if (told != NULL) {
        told_of_switch = told;
        if (watcher < 0) context_watcher = PyContext_AddWatcher(on_context_event);
        return context_watcher < 0 ? -1 : 0;
    }
    context_watcher = -1;
    return watcher < 0 ? 0 : PyContext_ClearWatcher(watcher);
}
#else
static int own_moves;

static inline int watch_switches(void (*told)(void)) {
    (void)told;
    return 0;
}
#endif

#endif
