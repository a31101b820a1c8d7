# The compiled trie: nodes with their slots inline, the lookup, inlined where it is used, and the operations on trees.

from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int64_t, uint32_t

cdef extern from "../_hamt/node.h":
    ctypedef struct Node "hamt_node":
        uint32_t entries
        uint32_t children
        PyObject **slots
    int popcount(uint32_t bitmap) noexcept
    void prefetch "hamt_prefetch"(void *address) noexcept
    Py_hash_t hash_of "PyObject_Hash"(PyObject *key) except -1
    int equal_keys "hamt_equal_keys"(PyObject *found, PyObject *key) except -1
    Py_ssize_t size_of "Py_SIZE"(Node *node) noexcept
    void decref "Py_DECREF"(PyObject *thing) noexcept
    void xincref "Py_XINCREF"(PyObject *thing) noexcept
    # From an owning pointer to an owning object.
    object owned "(PyObject *)"(PyObject *made)

cdef enum:
    BITS = 5
    POSITIONS = 31
    LAST_SHIFT = 30
    DEPTH = 8


cdef inline uint32_t folded(Py_hash_t key_hash) noexcept:
    # A 32-bit hash is widened first, so that the same formula works for it.
    cdef int64_t wide = key_hash
    return <uint32_t>(wide ^ (wide >> 32))


cdef inline uint32_t fold(object key) except? 0xFFFFFFFF:
    return folded(hash_of(<PyObject *>key))


cdef inline bint same_key(PyObject *found, PyObject *key) except -1:
    return found is key or equal_keys(found, key)


cdef inline bint is_collision(Node *node) noexcept:
    return not node.entries and not node.children and size_of(node) > 0


cdef inline PyObject *find(Node *node, uint32_t key_hash, PyObject *key) except? NULL:
    # Borrowed; NULL without an exception if the key is missing.
    cdef uint32_t bit
    cdef Py_ssize_t index
    while True:
        bit = <uint32_t>1 << (key_hash & POSITIONS)
        if node.entries & bit:
            index = 2 * popcount(node.entries & (bit - 1))
            return node.slots[index + 1] if same_key(node.slots[index], key) else NULL
        if not node.children & bit:
            break
        node = <Node *>node.slots[size_of(node) - 1 - popcount(node.children & (bit - 1))]
        key_hash >>= BITS
    if not is_collision(node):
        return NULL
    index = index_in_collision(node, key)
    return NULL if index < 0 else node.slots[index + 1]


cdef inline PyObject *find_identical(Node *node, uint32_t key_hash, PyObject *key) noexcept:
    # For keys that are equal only by identity; borrowed, NULL if the key is missing.
    cdef uint32_t bit = <uint32_t>1 << (key_hash & POSITIONS)
    cdef Py_ssize_t index
    while node.children & bit:
        node = <Node *>node.slots[size_of(node) - 1 - popcount(node.children & (bit - 1))]
        key_hash >>= BITS
        bit = <uint32_t>1 << (key_hash & POSITIONS)
    if node.entries & bit:
        index = 2 * popcount(node.entries & (bit - 1))
        return node.slots[index + 1] if node.slots[index] is key else NULL
    if is_collision(node):
        for index in range(0, size_of(node), 2):
            if node.slots[index] is key:
                return node.slots[index + 1]
    return NULL


cdef object EMPTY_NODE

# The tree is the same object if nothing changes; `added` and its like are increased.
cdef object assoc(Node *root, uint32_t key_hash, PyObject *key, PyObject *value, Py_ssize_t *added, int shift=*)
# The slot of the key's value, if no other code holds a node on the way, so that it can change in place; else NULL.
cdef PyObject **sole_slot(Node *node, uint32_t key_hash, PyObject *key, PyObject *value) noexcept
# The root with an entry more, or less, in the place of one that no other code holds. NULL, and nothing was done, if
# that is impossible at once. The caller gets the removed value, and holds the key.
cdef Node *sole_with_entry(Node *root, uint32_t key_hash, PyObject *key, PyObject *value) noexcept
cdef Node *sole_without_entry(Node *root, uint32_t key_hash, PyObject *key, PyObject **value) noexcept
# None if the key is missing.
cdef object dissoc(Node *root, uint32_t key_hash, PyObject *key)
cdef object update(Node *root, dict changes, Py_ssize_t *added)
cdef object remove(Node *root, dict changes, Py_ssize_t *removed)
cdef bint equal(Node *node, Node *other) except -1
cdef int compare(Node *node, Node *other, int shift, dict added, dict removed, dict changed) except -1
cdef int collect_changes(Node *node, Node *other, int shift, dict noted) except -1
cdef Py_ssize_t index_in_collision(Node *node, PyObject *key) except -2
cdef object plain(Node *node)
