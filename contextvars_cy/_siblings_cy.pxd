# For the modules of this package alone: it changes what the C code of whoever cimports it imports.

from cpython.object cimport PyObject

cdef extern from *:
    """
    /* Cython has a module import those that it cimports under the absolute names that they were compiled with. Of a copy of
       the package that has another name, those are another copy's, or missing: so they are imported from the own one. */
    static PyObject *__pyx_m;
    static PyObject *hamt_import(const char *name) {
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
    #define PyImport_ImportModule hamt_import
    """
    # By this name, and not as a module: the package's own .pxd would come along, and with it the modules that it names.
    PyObject *import_sibling "hamt_import"(const char *name) except NULL
