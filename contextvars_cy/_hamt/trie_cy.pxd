# The compiled trie: nodes with their slots inline, the lookup, inlined wherever it is used, and the work on trees.

from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int64_t, uint32_t

cdef extern from *:
    """
    #include <stdint.h>

    /* Whoever holds the root holds every node below, since none is ever written again: walks borrow. */
    typedef struct {
        PyObject_VAR_HEAD
        uint32_t entries;
        uint32_t children;
        PyObject *slots[];
    } hamt_node;

    /* The instruction for it where the processor has one: on x86 that shows only at run time, and a builtin alone would
       be a call of a function there. */
    static inline int hamt_popcount(uint32_t bitmap) {
    #if defined(__POPCNT__) || (defined(__aarch64__) && defined(__GNUC__))
        return __builtin_popcount(bitmap);
    #elif defined(__x86_64__) && defined(__GNUC__)
        if (__builtin_cpu_supports("popcnt")) {
            uint32_t count;
            __asm__("popcntl %1, %0" : "=r"(count) : "r"(bitmap) : "cc");
            return (int)count;
        }
    #endif
        bitmap = bitmap - ((bitmap >> 1) & 0x55555555u);
        bitmap = (bitmap & 0x33333333u) + ((bitmap >> 2) & 0x33333333u);
        return (int)((((bitmap + (bitmap >> 4)) & 0x0F0F0F0Fu) * 0x01010101u) >> 24);
    }

    #if defined(__GNUC__)
    #define hamt_prefetch(address) __builtin_prefetch(address)
    #else
    #define hamt_prefetch(address) ((void)(address))
    #endif

    /* A string keeps its hash, where it may be read as it is: without the GIL another thread may be storing it. */
    #ifdef Py_GIL_DISABLED
    #define hamt_kept_hash(text) ((Py_hash_t)-1)
    #else
    #define hamt_kept_hash(text) (((PyASCIIObject *)(text))->hash)
    #endif

    static inline Py_hash_t hamt_hash(PyObject *key) {
        if (PyUnicode_CheckExact(key) && hamt_kept_hash(key) != -1) return hamt_kept_hash(key);
        return PyObject_Hash(key);
    }

    /* Not the same object. Strings and integers have no code of the user's to run, and types without a comparison of
       their own, such as ContextVar, are equal by identity only. */
    static inline int hamt_equal_keys(PyObject *found, PyObject *key) {
        PyTypeObject *type = Py_TYPE(key);
        if (type == Py_TYPE(found)) {
            if (type == &PyUnicode_Type) {
                if (hamt_kept_hash(key) != hamt_kept_hash(found)) return 0;
                return PyObject_RichCompareBool(key, found, Py_EQ);
            }
            if (type == &PyLong_Type) {
                PyObject *answer = PyLong_Type.tp_richcompare(key, found, Py_EQ);
                Py_DECREF(answer);
                return answer == Py_True;
            }
            if (type->tp_richcompare == NULL || type->tp_richcompare == PyBaseObject_Type.tp_richcompare) return 0;
        }
        return PyObject_RichCompareBool(key, found, Py_EQ);
    }
    """
    ctypedef struct Node "hamt_node":
        uint32_t entries
        uint32_t children
        PyObject **slots
    int popcount "hamt_popcount"(uint32_t bitmap) noexcept
    void prefetch "hamt_prefetch"(void *address) noexcept
    Py_hash_t hash_of "hamt_hash"(PyObject *key) except -1
    int equal_keys "hamt_equal_keys"(PyObject *found, PyObject *key) except -1
    Py_ssize_t size_of "Py_SIZE"(Node *node) noexcept
    void decref "Py_DECREF"(PyObject *thing) noexcept
    void xincref "Py_XINCREF"(PyObject *thing) noexcept
    # From a pointer that owns to an object that does.
    object handed_over "(PyObject *)"(PyObject *made)

cdef enum:
    BITS = 5
    POSITIONS = 31
    LAST_SHIFT = 30
    DEPTH = 8


cdef inline uint32_t folded(Py_hash_t key_hash) noexcept:
    # A 32-bit hash is widened first, so that the one formula holds for it too.
    cdef int64_t wide = key_hash
    return <uint32_t>(wide ^ (wide >> 32))


cdef inline uint32_t fold(object key) except? 0xFFFFFFFF:
    return folded(hash_of(<PyObject *>key))


cdef inline bint same_key(PyObject *found, PyObject *key) except -1:
    return found is key or equal_keys(found, key)


cdef inline bint is_collision(Node *node) noexcept:
    return not node.entries and not node.children and size_of(node) > 0


cdef inline PyObject *find(Node *node, uint32_t key_hash, PyObject *key) except? NULL:
    # Borrowed; NULL without an exception where the key is missing.
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
        prefetch(&node.slots[POSITIONS - (key_hash & POSITIONS)])
    if not is_collision(node):
        return NULL
    index = index_in_collision(node, key)
    return NULL if index < 0 else node.slots[index + 1]


cdef inline PyObject *find_identical(Node *node, uint32_t key_hash, PyObject *key) noexcept:
    # For keys that are equal by identity alone; borrowed, NULL where the key is missing.
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

# The tree is the same object where nothing changes; `added` and its like are counted up.
cdef object assoc(Node *root, uint32_t key_hash, PyObject *key, PyObject *value, Py_ssize_t *added, int shift=*)
# Where the key's value stands, if nobody else holds a node on the way, so that it may be changed in place; else NULL.
cdef PyObject **sole_slot(Node *node, uint32_t key_hash, PyObject *key, PyObject *value) noexcept
# The root in the place of one that nobody else holds, with an entry more, or less; NULL, and nothing was done, where that
# does not go at once. The value that was left out is the caller's; the key has to be held by somebody else.
cdef Node *sole_with_entry(Node *root, uint32_t key_hash, PyObject *key, PyObject *value) noexcept
cdef Node *sole_without_entry(Node *root, uint32_t key_hash, PyObject *key, PyObject **value) noexcept
# None where the key is missing.
cdef object dissoc(Node *root, uint32_t key_hash, PyObject *key)
cdef object update(Node *root, dict changes, Py_ssize_t *added)
cdef object remove(Node *root, dict changes, Py_ssize_t *removed)
cdef bint equal(Node *node, Node *other) except -1
cdef int compare(Node *node, Node *other, int shift, dict added, dict removed, dict changed) except -1
cdef int news(Node *node, Node *other, int shift, dict noted) except -1
cdef Py_ssize_t index_in_collision(Node *node, PyObject *key) except -2
cdef object plain(Node *node)
