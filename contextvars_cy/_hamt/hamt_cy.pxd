# The compiled map, for `cimport`. It has no C, so a project that cimports it needs no include path.

from libc.stdint cimport uint32_t


cdef class Hamt:
    cdef object __weakref__
    cdef object _root
    cdef Py_ssize_t _count
    # 0 until it is first computed. A snapshot, the map in a Context, has its number there, below FIRST_HASH.
    cdef Py_hash_t _hash

    # The value, or ABSENT.
    cdef object _find(self, object key, uint32_t folded, Py_hash_t key_hash)
    cdef Hamt _set(self, object key, uint32_t folded, object value, Py_hash_t key_hash)
    cdef Hamt _discard(self, object key, uint32_t folded, Py_hash_t key_hash)
    cdef Hamt _updated(self, dict changes)
    cdef Hamt _combined(self, Hamt other, int kept)
    # Takes the other map's content; only for a map without other references.
    cdef int _become(self, Hamt other) except -1


# The first two are offsets in an entry.
cdef enum:
    KEYS = 0
    VALUES = 1
    ITEMS = 2


cdef object iterate(Hamt hamt, int kind)


cdef Hamt EMPTY
cdef int match_as_mapping(object kind) except -1
