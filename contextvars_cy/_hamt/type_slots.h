/* Type settings that Cython cannot express. */
#ifndef CONTEXTVARS_CY_TYPE_SLOTS_H
#define CONTEXTVARS_CY_TYPE_SLOTS_H

#include <Python.h>
#include <string.h>

#ifndef Py_TPFLAGS_MAPPING
#define Py_TPFLAGS_MAPPING 0
#endif

/* Give a static type the name that users import, and the function that calling it runs. */
static inline int publish_type(PyObject *type, PyObject *package, newfunc called) {
    PyTypeObject *published = (PyTypeObject *)type;
    const char *name = strrchr(published->tp_name, '.'), *prefix = PyUnicode_AsUTF8(package);
    if (prefix == NULL) return -1;
    /* Never freed, like the type. */
    char *whole = PyMem_RawMalloc(strlen(prefix) + strlen(name) + 1);
    if (whole == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    strcat(strcpy(whole, prefix), name);
    published->tp_name = whole;
    if (called != NULL) {
        published->tp_new = called;
        published->tp_vectorcall = NULL;
    }
    return 0;
}

/* Make a method of the type take its arguments as they come. */
static inline int replace_method(PyObject *type, const char *name, void (*function)(void), int flags) {
    PyObject *names = ((PyTypeObject *)type)->tp_dict, *key = PyUnicode_FromString(name), *method;
    PyMethodDef *definition;
    if (key == NULL) return -1;
    method = PyDict_GetItemWithError(names, key);
    Py_DECREF(key);
    if (method == NULL) return -1;
    definition = ((PyMethodDescrObject *)method)->d_method;
    definition->ml_meth = (PyCFunction)function;
    definition->ml_flags = flags;
    method = PyDescr_NewMethod((PyTypeObject *)type, definition);
    if (method == NULL) return -1;
    int result = PyDict_SetItemString(names, name, method);
    Py_DECREF(method);
    PyType_Modified((PyTypeObject *)type);
    return result;
}

#endif
