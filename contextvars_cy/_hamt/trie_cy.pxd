# The compiled trie: nodes with their slots inline, the lookup, inlined where it is used, and the operations on trees.

from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint32_t

cdef extern from "../_hamt/node.h":
    ctypedef struct Node "hamt_node":
        uint32_t entries
        uint32_t children
        PyObject **slots
    int popcount(uint32_t bitmap) noexcept
    void prefetch_slots "hamt_prefetch_slots"(Node *node) noexcept
    Py_hash_t hash_of "PyObject_Hash"(PyObject *key) except -1
    # Of all hashes one in 256 is lower, and no map remembers it: these numbers are for snapshots.
    Py_hash_t FIRST_HASH "HAMT_FIRST_HASH"
    uint32_t fold "hamt_fold"(Py_hash_t key_hash) noexcept
    Py_hash_t unfold "hamt_unfold"(uint32_t folded) noexcept
    int equal_keys "hamt_equal_keys"(PyObject *found, PyObject *key, Py_hash_t key_hash) except -1
    bint has_references "HAMT_HAS_REFERENCES"(void *thing, Py_ssize_t count) noexcept
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
    FEW = 8
    # What `combine` keeps.
    MINE = 1
    BOTH = 2
    THEIRS = 4


cdef inline bint same_key(PyObject *found, PyObject *key, Py_hash_t key_hash) except -1:
    return found is key or equal_keys(found, key, key_hash)


cdef inline bint is_collision(Node *node) noexcept:
    return not node.entries and not node.children and size_of(node) > 0


cdef inline PyObject *find(Node *node, uint32_t folded, PyObject *key, Py_hash_t key_hash) except? NULL:
    # Borrowed; NULL without an exception if the key is missing.
    cdef uint32_t bit
    cdef Py_ssize_t index
    while True:
        bit = <uint32_t>1 << (folded & POSITIONS)
        if node.entries & bit:
            index = 2 * popcount(node.entries & (bit - 1))
            return node.slots[index + 1] if same_key(node.slots[index], key, key_hash) else NULL
        if not node.children & bit:
            break
        node = <Node *>node.slots[size_of(node) - 1 - popcount(node.children & (bit - 1))]
        folded >>= BITS
    if not is_collision(node):
        return NULL
    index = index_in_collision(node, key, key_hash)
    return NULL if index < 0 else node.slots[index + 1]


cdef inline PyObject *find_identical(Node *node, uint32_t folded, PyObject *key) noexcept:
    # For keys that are equal only by identity; borrowed, NULL if the key is missing.
    cdef uint32_t bit = <uint32_t>1 << (folded & POSITIONS)
    cdef Py_ssize_t index
    while node.children & bit:
        node = <Node *>node.slots[size_of(node) - 1 - popcount(node.children & (bit - 1))]
        folded >>= BITS
        bit = <uint32_t>1 << (folded & POSITIONS)
    if node.entries & bit:
        index = 2 * popcount(node.entries & (bit - 1))
        return node.slots[index + 1] if node.slots[index] is key else NULL
    if is_collision(node):
        for index in range(0, size_of(node), 2):
            if node.slots[index] is key:
                return node.slots[index + 1]
    return NULL


cdef object EMPTY_NODE


cdef enum Found:
    # The key has no place yet, another key has it, or it is there.
    FREE
    TAKEN
    THERE


# A change of one entry: prepared, which may run user code, and then made, which runs none before it frees what was
# replaced. A node is changed in place if nothing but the tree holds it and those above it, else copied.
cdef struct Change:
    # The path from the root to the node that has the key, or would get it.
    Node *nodes[DEPTH]
    # Of the child in each node, and of the entry in the last.
    Py_ssize_t indexes[DEPTH]
    int depth
    int shift
    uint32_t bit
    Found found
    # So many of the nodes, from the root on, nothing else holds.
    int sole
    # The new node, and which on the path it replaces. With a drop or a gain of slots it is still empty, and takes over
    # those of the old one. NULL to replace a value in place.
    Node *made
    int level
    int drop
    int gain


cdef int prepare_assoc(
    Change *change, Node *root, uint32_t folded, PyObject *key, PyObject *value, Py_hash_t key_hash, bint in_place,
    int shift=*
) except -1
# Prepares nothing if the key is missing.
cdef int prepare_dissoc(
    Change *change, Node *root, uint32_t folded, PyObject *key, Py_hash_t key_hash, bint in_place
) except -1
# The root stands there. False, and nothing was done, if other code now holds a node that is to change in place.
cdef bint make_change(Change *change, PyObject **root, PyObject *key, PyObject *value) noexcept
cdef int drop_change(Change *change) noexcept


cdef inline PyObject *value_at(Change *change) noexcept:
    # Of a key that is there.
    return change.nodes[change.depth].slots[change.indexes[change.depth] + 1]


# The tree is the same object if nothing changes; `added` and its like are increased.
cdef object assoc(
    Node *root, uint32_t folded, PyObject *key, PyObject *value, Py_hash_t key_hash, Py_ssize_t *added, int shift=*
)
# The slot of the key's value, if no other code holds a node on the way, so that it can change in place; else NULL.
cdef PyObject **sole_slot(Node *node, uint32_t folded, PyObject *key, PyObject *value) noexcept
# The root with an entry more, or less, in the place of one that no other code holds. NULL, and nothing was done, if
# that is impossible at once. The caller gets the removed value, and holds the key.
cdef Node *sole_with_entry(Node *root, uint32_t folded, PyObject *key, PyObject *value) noexcept
cdef Node *sole_without_entry(Node *root, uint32_t folded, PyObject *key, PyObject **value) noexcept
# None if the key is missing.
cdef object dissoc(Node *root, uint32_t folded, PyObject *key, Py_hash_t key_hash)
cdef object update(Node *root, dict changes, Py_ssize_t *added)
cdef bint equal(Node *node, Node *other) except -1
cdef int compare(Node *node, Node *other, int shift, dict added, dict removed, dict changed) except -1


cdef class Tally:
    cdef Py_ssize_t shared
    cdef Py_ssize_t alone
    cdef list shared_below
    cdef list alone_below

    cdef Py_ssize_t total_shared(self, Py_ssize_t count) except -1


# The root of what is kept, or None.
cdef object combined(Node *root, Node *other, int kept, Tally tally)
cdef bint is_within(Node *node, Node *other, int shift) except -1
cdef bint is_apart(Node *node, Node *other, int shift) except -1
cdef Py_ssize_t index_in_collision(Node *node, PyObject *key, Py_hash_t key_hash) except -2
# Of all items' hashes, as a frozenset mixes them.
cdef size_t mixed_items(Node *node) except? 0
cdef object plain(Node *node)
