/* Tells the next interpreter in the process that this one has ended. */
#ifndef CONTEXTVARS_CY_INTERPRETER_END_H
#define CONTEXTVARS_CY_INTERPRETER_END_H

#include <Python.h>

/* For `_backend`, which finds this name among the built-in modules of the next interpreter in the process. */
static inline PyObject *interpreter_has_ended(void) {
    PyErr_SetString(PyExc_ImportError, "an earlier interpreter in this process has used contextvars_cy");
    return NULL;
}

static inline void interpreter_ends(void) {
    PyImport_AppendInittab("_contextvars_cy_has_ended", interpreter_has_ended);
}

#endif
