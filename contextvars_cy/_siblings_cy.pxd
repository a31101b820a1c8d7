# For the modules of this package alone: it changes what the C code of whoever cimports it imports.

from cpython.object cimport PyObject

cdef extern from "../_siblings.h":
    # By this name, and not as a module: the package's own .pxd would come along, and with it the modules that it names.
    PyObject *import_sibling(const char *name) except NULL
