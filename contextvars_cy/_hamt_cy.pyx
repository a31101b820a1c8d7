# cython: language_level=3, binding=False, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
# cython: wraparound=False, boundscheck=False, nonecheck=True
"""The compiled twin of `_hamt_py`, which explains what both do."""

cimport cython
from cpython.object cimport PyTypeObject
from libc.stdint cimport int64_t, uint32_t

from collections.abc import ItemsView, KeysView, Mapping, ValuesView

from contextvars_cy._hamt_inspect import check, dump
from contextvars_cy._sentinels import ABSENT as _ABSENT, MISSING as _MISSING

cdef object ABSENT = _ABSENT
cdef object MISSING = _MISSING

cdef extern from *:
    """
    /* Portable: a builtin would need a processor flag to be as fast. */
    static inline int popcount(uint32_t bitmap) {
        bitmap = bitmap - ((bitmap >> 1) & 0x55555555u);
        bitmap = (bitmap & 0x33333333u) + ((bitmap >> 2) & 0x33333333u);
        return (int)((((bitmap + (bitmap >> 4)) & 0x0F0F0F0Fu) * 0x01010101u) >> 24);
    }

    #ifndef Py_TPFLAGS_MAPPING
    #define Py_TPFLAGS_MAPPING 0
    #endif
    """
    int popcount(uint32_t bitmap) noexcept
    unsigned long Py_TPFLAGS_MAPPING

cdef enum:
    BITS = 5
    POSITIONS = 31
    LAST_SHIFT = 30


cdef uint32_t fold(object key) except? 0xFFFFFFFF:
    # A 32-bit hash is widened first, so that the one formula holds for it too.
    cdef int64_t key_hash = hash(key)
    return <uint32_t>(key_hash ^ (key_hash >> 32))


cdef inline uint32_t position_bit(uint32_t key_hash, int shift) noexcept:
    return <uint32_t>1 << (key_hash >> shift & POSITIONS)


cdef class _Node:

    def __cinit__(self, uint32_t entries, uint32_t children, tuple slots not None):
        self.entries = entries
        self.children = children
        self.slots = slots

    cdef _Node set(self, int shift, uint32_t key_hash, object key, object value, bint *added):
        cdef uint32_t bit = position_bit(key_hash, shift)
        cdef tuple slots = self.slots
        cdef Py_ssize_t index
        cdef _Node child, old_child
        if self.entries & bit:
            index = 2 * popcount(self.entries & (bit - 1))
            old_key, old_value = slots[index], slots[index + 1]
            if old_key is key or key == old_key:
                if old_value is value:
                    return self
                return _Node(self.entries, self.children, slots[: index + 1] + (value,) + slots[index + 2 :])
            child = _join(shift + BITS, fold(old_key), old_key, old_value, key_hash, key, value)
            added[0] = True
            return self._with_child_for_entry(bit, child)
        if self.children & bit:
            old_child = self._child(bit)
            child = old_child.set(shift + BITS, key_hash, key, value, added)
            if child is old_child:
                return self
            return self._with_child(bit, child)
        index = 2 * popcount(self.entries & (bit - 1))
        added[0] = True
        return _Node(self.entries | bit, self.children, slots[:index] + (key, value) + slots[index:])

    cdef _Node delete(self, int shift, uint32_t key_hash, object key):
        cdef uint32_t bit = position_bit(key_hash, shift)
        cdef tuple slots = self.slots
        cdef Py_ssize_t index
        cdef _Node child
        if self.entries & bit:
            index = 2 * popcount(self.entries & (bit - 1))
            old_key = slots[index]
            if not (old_key is key or key == old_key):
                return None
            return _Node(self.entries ^ bit, self.children, slots[:index] + slots[index + 2 :])
        if not self.children & bit:
            return None
        child = self._child(bit).delete(shift + BITS, key_hash, key)
        if child is None:
            return None
        if len(child.slots) == 2 and not child.children:
            return self._with_entry_for_child(bit, child.slots[0], child.slots[1])
        return self._with_child(bit, child)

    cdef _Node _child(self, uint32_t bit):
        return <_Node>self.slots[len(self.slots) - 1 - popcount(self.children & (bit - 1))]

    cdef _Node _with_child(self, uint32_t bit, _Node child):
        cdef Py_ssize_t index = len(self.slots) - 1 - popcount(self.children & (bit - 1))
        return _Node(self.entries, self.children, self.slots[:index] + (child,) + self.slots[index + 1 :])

    cdef _Node _with_child_for_entry(self, uint32_t bit, _Node child):
        cdef Py_ssize_t start = 2 * popcount(self.entries & (bit - 1))
        cdef Py_ssize_t end = len(self.slots) - popcount(self.children & (bit - 1))
        slots = self.slots[:start] + self.slots[start + 2 : end] + (child,) + self.slots[end:]
        return _Node(self.entries ^ bit, self.children | bit, slots)

    cdef _Node _with_entry_for_child(self, uint32_t bit, object key, object value):
        cdef Py_ssize_t start = 2 * popcount(self.entries & (bit - 1))
        cdef Py_ssize_t end = len(self.slots) - 1 - popcount(self.children & (bit - 1))
        slots = self.slots[:start] + (key, value) + self.slots[start:end] + self.slots[end + 1 :]
        return _Node(self.entries | bit, self.children ^ bit, slots)


@cython.final
cdef class _CollisionNode(_Node):

    cdef _Node set(self, int shift, uint32_t key_hash, object key, object value, bint *added):
        cdef Py_ssize_t index = self.index(key)
        if index < 0:
            added[0] = True
            return _CollisionNode(0, 0, self.slots + (key, value))
        if self.slots[index + 1] is value:
            return self
        return _CollisionNode(0, 0, self.slots[: index + 1] + (value,) + self.slots[index + 2 :])

    cdef _Node delete(self, int shift, uint32_t key_hash, object key):
        cdef Py_ssize_t index = self.index(key)
        if index < 0:
            return None
        return _CollisionNode(0, 0, self.slots[:index] + self.slots[index + 2 :])

    cdef Py_ssize_t index(self, object key) except -2:
        cdef tuple slots = self.slots
        cdef Py_ssize_t index
        for index in range(0, len(slots), 2):
            if slots[index] is key or key == slots[index]:
                return index
        return -1


cdef _Node _EMPTY_NODE = _Node(0, 0, ())


cdef _Node _join(
    int shift, uint32_t old_hash, object old_key, object old_value, uint32_t key_hash, object key, object value
):
    if shift > LAST_SHIFT:
        return _CollisionNode(0, 0, (old_key, old_value, key, value))
    cdef uint32_t old_bit = position_bit(old_hash, shift)
    cdef uint32_t bit = position_bit(key_hash, shift)
    if old_bit == bit:
        return _Node(0, bit, (_join(shift + BITS, old_hash, old_key, old_value, key_hash, key, value),))
    if old_bit < bit:
        return _Node(old_bit | bit, 0, (old_key, old_value, key, value))
    return _Node(old_bit | bit, 0, (key, value, old_key, old_value))


cdef bint _equal(_Node node, _Node other) except -1:
    if node is other:
        return True
    if node.entries != other.entries or node.children != other.children or len(node.slots) != len(other.slots):
        return False
    if type(node) is _CollisionNode:
        return _equal_collisions(node, other)
    cdef Py_ssize_t pairs = len(node.slots) - popcount(node.children)
    cdef Py_ssize_t index
    for index in range(pairs):
        if node.slots[index] is not other.slots[index] and not node.slots[index] == other.slots[index]:
            return False
    for index in range(pairs, len(node.slots)):
        if not _equal(node.slots[index], other.slots[index]):
            return False
    return True


cdef bint _equal_collisions(_CollisionNode node, _CollisionNode other) except -1:
    cdef Py_ssize_t start, index
    for start in range(0, len(node.slots), 2):
        index = other.index(node.slots[start])
        if index < 0:
            return False
        value, other_value = node.slots[start + 1], other.slots[index + 1]
        if value is not other_value and not value == other_value:
            return False
    return True


@cython.final
cdef class Hamt:
    """Hamt()\n--\n
    A persistent map: every change gives a new map, and the old one stays as it was.

    A hash array mapped trie in the CHAMP encoding (Steindorfer and Vinju, OOPSLA 2015). Keys need `__hash__` and
    `__eq__`; they are compared by identity first. Finding, setting and deleting take O(log n), copying is not needed.

    >>> empty = Hamt()
    >>> one = empty.set("a", 1)
    >>> len(empty), len(one), one["a"]
    (0, 1, 1)
    """

    def __cinit__(self):
        self._root = _EMPTY_NODE
        self._count = 0

    def find(self, key):
        """Return `(value, True)`, or `(MISSING, False)` where the key is missing. O(log n).

        >>> Hamt().set("a", None).find("a")
        (None, True)
        >>> Hamt().find("a")
        (<Token.MISSING>, False)
        """
        value = self._find(key, fold(key))
        if value is ABSENT:
            return MISSING, False
        return value, True

    def get(self, key, default=None, /):
        """Return the value of the key, or the default where the key is missing. O(log n).

        >>> Hamt().set("a", 1).get("a"), Hamt().get("a", 0)
        (1, 0)
        """
        value = self._find(key, fold(key))
        return default if value is ABSENT else value

    def set(self, key, value):
        """Return the map with the key set; this very map where the key has this very value. O(log n).

        >>> one = Hamt().set("a", 1)
        >>> sorted(one.set("b", 2).items())
        [('a', 1), ('b', 2)]
        >>> one.set("a", 1) is one
        True
        """
        return self._set(key, fold(key), value)

    def delete(self, key):
        """Return the map without the key; KeyError where it is missing. O(log n).

        >>> len(Hamt().set("a", 1).delete("a"))
        0
        >>> Hamt().delete("a")
        Traceback (most recent call last):
        ...
        KeyError: 'a'
        """
        smaller = self._discard(key, fold(key))
        if smaller is self:
            raise KeyError(key)
        return smaller

    def discard(self, key):
        """Return the map without the key; this very map where the key is missing. O(log n).

        >>> one = Hamt().set("a", 1)
        >>> one.discard("b") is one
        True
        """
        return self._discard(key, fold(key))

    def keys(self):
        """Return a view of the keys; iterating it takes O(n).

        >>> "a" in Hamt().set("a", 1).keys()
        True
        """
        return KeysView(self)

    def values(self):
        """Return a view of the values; iterating it takes O(n).

        >>> list(Hamt().set("a", 1).values())
        [1]
        """
        return ValuesView(self)

    def items(self):
        """Return a view of the (key, value) pairs; iterating it takes O(n).

        >>> list(Hamt().set("a", 1).items())
        [('a', 1)]
        """
        return ItemsView(self)

    def __getitem__(self, key):
        value = self._find(key, fold(key))
        if value is ABSENT:
            raise KeyError(key)
        return value

    def __contains__(self, key):
        return self._find(key, fold(key)) is not ABSENT

    def __len__(self):
        return self._count

    def __iter__(self):
        return HamtIterator(self, "keys")

    def __eq__(self, other):
        if type(other) is not Hamt:
            return NotImplemented
        cdef Hamt that = other
        return self._count == that._count and _equal(self._root, that._root)

    __reversed__ = None

    def __reduce__(self):
        raise TypeError("cannot pickle 'contextvars_cy.Hamt' object")

    cdef object _find(self, object key, uint32_t key_hash):
        cdef _Node node = self._root
        cdef int shift
        cdef uint32_t bit
        cdef Py_ssize_t index
        for shift in range(0, LAST_SHIFT + 1, BITS):
            bit = position_bit(key_hash, shift)
            if node.entries & bit:
                index = 2 * popcount(node.entries & (bit - 1))
                found = node.slots[index]
                return node.slots[index + 1] if found is key or key == found else ABSENT
            if not node.children & bit:
                return ABSENT
            node = node._child(bit)
        index = (<_CollisionNode?>node).index(key)
        return ABSENT if index < 0 else node.slots[index + 1]

    cdef Hamt _set(self, object key, uint32_t key_hash, object value):
        cdef bint added = False
        cdef _Node root = self._root.set(0, key_hash, key, value, &added)
        if root is self._root:
            return self
        return _new(root, self._count + added)

    cdef Hamt _discard(self, object key, uint32_t key_hash):
        cdef _Node root = self._root.delete(0, key_hash, key)
        if root is None:
            return self
        return _new(root, self._count - 1) if self._count > 1 else EMPTY

    def _dump(self):
        """Return the tree as text, one line a node or entry; both twins give the same one."""
        return dump(self._root, self._count)

    def _check(self):
        """Raise AssertionError, naming the invariant and showing the tree, where one of the seven is broken."""
        check(self._root, self._count)


cdef Hamt _new(_Node root, Py_ssize_t count):
    cdef Hamt hamt = Hamt.__new__(Hamt)
    hamt._root = root
    hamt._count = count
    return hamt


cdef Hamt EMPTY = Hamt()


@cython.final
cdef class HamtIterator:
    """Walks one map, entries of a node before its children; its length is the map's, as in `context.keys()`."""

    def __cinit__(self, Hamt hamt not None, str kind not None):
        self._kind = 0 if kind == "keys" else 1 if kind == "values" else 2
        self._hamt = hamt
        self._stack = [hamt._root]
        self._node = _EMPTY_NODE
        self._index = 0

    def __iter__(self):
        return self

    def __len__(self):
        return self._hamt._count

    def __next__(self):
        cdef Py_ssize_t index
        while self._index == len(self._node.slots) - popcount(self._node.children):
            if not self._stack:
                raise StopIteration
            self._node = self._stack.pop()
            self._index = 0
            self._stack.extend(self._node.slots[len(self._node.slots) - popcount(self._node.children) :])
        index = self._index
        self._index += 2
        if self._kind == 0:
            return self._node.slots[index]
        if self._kind == 1:
            return self._node.slots[index + 1]
        return self._node.slots[index], self._node.slots[index + 1]

    def __reduce__(self):
        raise TypeError("cannot pickle 'contextvars_cy.HamtIterator' object")


cdef int match_as_mapping(object kind) except -1:
    # What registering with Mapping does for a class of Python, so that `match` takes it for a mapping.
    (<PyTypeObject *>kind).tp_flags |= Py_TPFLAGS_MAPPING
    return 0


Mapping.register(Hamt)
match_as_mapping(Hamt)
# A static type's __module__ is the part of its name before the last dot, and cannot be set otherwise.
(<PyTypeObject *>Hamt).tp_name = "contextvars_cy.Hamt"
(<PyTypeObject *>HamtIterator).tp_name = "contextvars_cy.HamtIterator"
