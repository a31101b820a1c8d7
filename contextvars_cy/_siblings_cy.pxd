# Only for this package's modules: it changes what the C code of a module that cimports it imports.

from cpython.object cimport PyObject

cdef extern from "../_siblings.h":
    # By name, not as a module: that would include the package's own .pxd, and the modules that it names.
    PyObject *import_sibling(const char *name) except NULL
