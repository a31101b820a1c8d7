/* Imports modules that were compiled together, whatever the package's name. */
#ifndef CONTEXTVARS_CY__SIBLINGS_H
#define CONTEXTVARS_CY__SIBLINGS_H

#include <Python.h>
#include <string.h>

/* Cython makes a module import the modules it cimports under their absolute compiled names. In a copy of the package
   under another name, those are another copy's, or missing: so this imports the copy's own. */
static PyObject *__pyx_m;
static PyObject *import_sibling(const char *name) {
    const char *within = strchr(name, '.');
    PyObject *wing, *package, *whole = NULL, *module = NULL;
    if (within == NULL || strncmp(name, "contextvars_cy.", 15) != 0) return PyImport_ImportModule(name);
    wing = PyObject_GetAttrString(__pyx_m, "__package__");
    package = wing ? PyObject_CallMethod(wing, "rpartition", "s", ".") : NULL;
    if (package != NULL) whole = PyUnicode_FromFormat("%U%s", PyTuple_GET_ITEM(package, 0), within);
    if (whole != NULL) module = PyImport_Import(whole);
    Py_XDECREF(whole);
    Py_XDECREF(package);
    Py_XDECREF(wing);
    return module;
}
#define PyImport_ImportModule import_sibling

#endif
