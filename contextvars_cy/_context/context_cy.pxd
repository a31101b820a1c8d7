# The compiled context variables, for `cimport`: the types, and CPython's C API for contexts with our types.

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

from .._hamt.hamt_cy cimport Hamt


cdef class ContextVar:
    cdef object _name
    cdef object _default
    cdef object _default_factory
    cdef uint32_t _folded
    cdef Py_hash_t _hash
    # The value it was last found to have, borrowed, NULL for none, and the number of the snapshot that has it.
    cdef PyObject *_remembered
    cdef Py_hash_t _remembered_in


cdef class Token:
    cdef ContextVar _var
    cdef object _old_value
    cdef object _context
    cdef object _origin
    cdef bint _used


cdef class Assignment:
    cdef list _old_value
    cdef object _context
    cdef object _origin
    cdef bint _used


cdef class Context:
    cdef object __weakref__
    cdef object _native
    cdef Hamt _snapshot
    cdef bint _entered
    cdef bint _is_registered
    cdef object _home


cdef class ThreadState:
    cdef object __weakref__
    cdef Context _base
    cdef Context _current
    # The Contexts below the current one.
    cdef list _below
    cdef uint64_t _loopless_version


# The value in the current Context, else the default, else the variable's own default, else LookupError.
cdef object contextvar_get(ContextVar var, object default=*)
cdef Token contextvar_set(ContextVar var, object value)
cdef int contextvar_reset(ContextVar var, Token token) except -1

cdef int context_enter(Context context) except -1
cdef int context_exit(Context context) except -1
cdef Context context_current()
cdef Context context_copy_current()
