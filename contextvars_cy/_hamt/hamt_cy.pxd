# The compiled map, for `cimport`: its public methods at C speed, with the key's hash folded once by `fold`.

from cpython.object cimport PyObject, newfunc
from libc.stdint cimport uint32_t

from .trie_cy cimport Node, fold

cdef extern from *:
    """
    /* Give a static type the name that users import, and what Python code gets from calling it. */
    static inline int hamt_publish(PyObject *type, PyObject *package, newfunc called) {
        PyTypeObject *published = (PyTypeObject *)type;
        const char *name = strrchr(published->tp_name, '.'), *prefix = PyUnicode_AsUTF8(package);
        if (prefix == NULL) return -1;
        /* Never freed, as the type is not. */
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
    """
    int publish "hamt_publish"(object type, object package, newfunc called) except -1


cdef class Hamt:
    cdef object __weakref__
    cdef object _root
    cdef Py_ssize_t _count
    # 0 before anybody asks for it. A snapshot, which is what a Context has of its variables, has its number there.
    cdef Py_hash_t _hash

    # The value, or ABSENT.
    cdef object _find(self, object key, uint32_t key_hash)
    cdef Hamt _set(self, object key, uint32_t key_hash, object value)
    cdef Hamt _discard(self, object key, uint32_t key_hash)
    cdef Hamt _updated(self, dict changes)
    cdef Hamt _changed(self, dict changes)
    # Becomes what the other one is; only for a map that is nobody else's.
    cdef int _become(self, Hamt other) except -1


cdef class HamtIterator:
    cdef Hamt _hamt
    cdef int _kind
    cdef int _depth
    # Where the entries of the present node go on, and where they end.
    cdef PyObject **_slot
    cdef PyObject **_end
    # The nodes from the root to the present one, borrowed from the map, and how many children of each are left.
    cdef Node *_nodes[8]
    cdef int _unvisited[8]
    cdef object _last

    # Owned; NULL without an exception at the end.
    cdef PyObject *_next(self) except? NULL
    cdef bint _advance(self) noexcept
    cdef int _enter(self, Node *node) noexcept


# The first two are offsets in an entry.
cdef enum:
    KEYS = 0
    VALUES = 1
    ITEMS = 2


cdef HamtIterator iterate(Hamt hamt, int kind)


cdef class HamtKeys:
    cdef Hamt _mapping


cdef class HamtValues:
    cdef Hamt _mapping


cdef class HamtItems:
    cdef Hamt _mapping


cdef class HamtMutation:
    cdef object __weakref__
    cdef Hamt _hamt
    cdef dict _changes
    cdef bint _has_deleted
    cdef bint _finished
    cdef bint _busy

    cdef int _begin(self) except -1
    cdef int _end(self) except -1
    cdef int _refuse_if_finished(self) except -1
    cdef int _store(self, object key, object value) except -1
    cdef object _find(self, object key)
    cdef Hamt _settled(self)
    cdef Hamt _settle(self)


cdef Hamt EMPTY
cdef int match_as_mapping(object kind) except -1
