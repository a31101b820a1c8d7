# The compiled map, for `cimport`: its public methods at C speed, with the key's hash folded once by `fold`.

from libc.stdint cimport uint32_t


cdef class _Node:
    cdef readonly uint32_t entries
    cdef readonly uint32_t children
    cdef readonly tuple slots

    cdef _Node set(self, int shift, uint32_t key_hash, object key, object value, bint *added)
    cdef _Node delete(self, int shift, uint32_t key_hash, object key)
    cdef _Node _child(self, uint32_t bit)
    cdef _Node _with_child(self, uint32_t bit, _Node child)
    cdef _Node _with_child_for_entry(self, uint32_t bit, _Node child)
    cdef _Node _with_entry_for_child(self, uint32_t bit, object key, object value)


cdef class Hamt:
    cdef object __weakref__
    cdef _Node _root
    cdef Py_ssize_t _count

    # The value, or ABSENT.
    cdef object _find(self, object key, uint32_t key_hash)
    cdef Hamt _set(self, object key, uint32_t key_hash, object value)
    cdef Hamt _discard(self, object key, uint32_t key_hash)


cdef class HamtIterator:
    cdef int _kind
    cdef Hamt _hamt
    cdef Py_ssize_t _index
    cdef _Node _node
    cdef list _stack


cdef uint32_t fold(object key) except? 0xFFFFFFFF
cdef Hamt EMPTY
cdef int match_as_mapping(object kind) except -1
