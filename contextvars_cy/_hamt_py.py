"""The persistent map under every Context: a hash array mapped trie, the reference twin.

A worked example. Let `'a'` hash to 0b00010_00011 and `'b'` to 0b00111_00011 (the low ten of 32 bits). The root looks
at the low five bits: both keys ask for position 3, so the root's `children` bitmap has bit 3 set, and its only slot is
a child. The child looks at the next five bits: positions 2 and 7, both free, so its `entries` bitmap is 0b10000100 and
its slots are 'a', 1, 'b', 2. A third key whose low bits are 9 becomes an entry of the root itself:

    root    entries = {9}     children = {3}     slots = [key, value, child]
    child   entries = {2, 7}  children = {}      slots = ['a', 1, 'b', 2]

To find 'b': the root's bit 3 is a child, the first from the right; in the child bit 7 is an entry, and one entry bit
lies below it, so its key is at slot 2 * 1. To set 'b' anew copies the child and the root (the path), and shares
everything else; that is why a copy of a map costs nothing and a change costs O(log n).

The encoding is CHAMP (Steindorfer and Vinju, "Optimizing Hash-Array Mapped Tries for Fast and Lean Immutable JVM
Collections", OOPSLA 2015): entries and children apart, each with a bitmap, deletion restoring the one shape that a
content has. The invariants that the code below keeps, numbered as `Hamt._check` reports them:

1. A node has two bitmaps, one for entries and one for children; a position is never in both.
2. Its slots hold the entries' key, value pairs from the left, in hash-bit order, and the children from the right.
3. A child holds at least two entries in its subtree, so the shape is a function of the content alone.
4. Keys with the same 32-bit hash share a collision node, which stands only below the last of the 7 levels.
5. The 64-bit hash is folded to 32 bits once, by one formula, negative hashes included.
6. Keys are compared by identity first, then by `==`; "unchanged" means `is`, never `==`.
7. A node that a map can reach is never written again.

Keys are the user's objects: their `__hash__` and `__eq__` may raise, or run anything. Nothing here is changed in place,
so an exception leaves every map as it was.
"""

from __future__ import annotations

import sys
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Final, Generic, NoReturn, TypeVar, final

from ._hamt_inspect import check, dump
from ._sentinels import ABSENT, MISSING

K = TypeVar("K")
V = TypeVar("V")

BITS: Final = 5
"""The hash bits that one level looks at."""
POSITIONS: Final = 31
"""The mask of one level's bits."""
LAST_SHIFT: Final = 30
"""The shift of the seventh level; a collision node stands below it."""

if sys.version_info >= (3, 10):
    _popcount = int.bit_count
else:

    def _popcount(bitmap: int) -> int:
        return bin(bitmap).count("1")


def _fold(key: object) -> int:
    key_hash = hash(key)
    return (key_hash ^ (key_hash >> 32)) & 0xFFFFFFFF


class _Node:
    """An inner node: entries from the left of `slots`, children from the right, a bitmap for each."""

    __slots__ = ("children", "entries", "slots")

    def __init__(self, entries: int, children: int, slots: tuple[Any, ...]) -> None:
        self.entries = entries
        self.children = children
        self.slots = slots

    def set(self, shift: int, key_hash: int, key: object, value: object) -> tuple[_Node, bool]:
        """The node with `key` set, and whether that added an entry; this very node where nothing changes."""
        bit = 1 << (key_hash >> shift & POSITIONS)
        slots = self.slots
        if self.entries & bit:
            index = 2 * _popcount(self.entries & (bit - 1))
            old_key, old_value = slots[index], slots[index + 1]
            if old_key is key or key == old_key:
                if old_value is value:
                    return self, False
                return _Node(self.entries, self.children, slots[: index + 1] + (value,) + slots[index + 2 :]), False
            child = _join(shift + BITS, _fold(old_key), old_key, old_value, key_hash, key, value)
            return self._with_child_for_entry(bit, child), True
        if self.children & bit:
            old_child = self._child(bit)
            child, added = old_child.set(shift + BITS, key_hash, key, value)
            if child is old_child:
                return self, False
            return self._with_child(bit, child), added
        index = 2 * _popcount(self.entries & (bit - 1))
        return _Node(self.entries | bit, self.children, slots[:index] + (key, value) + slots[index:]), True

    def delete(self, shift: int, key_hash: int, key: object) -> _Node | None:
        """The node without `key`, or None where the key is missing."""
        bit = 1 << (key_hash >> shift & POSITIONS)
        if self.entries & bit:
            index = 2 * _popcount(self.entries & (bit - 1))
            old_key = self.slots[index]
            if not (old_key is key or key == old_key):
                return None
            return _Node(self.entries ^ bit, self.children, self.slots[:index] + self.slots[index + 2 :])
        if not self.children & bit:
            return None
        child = self._child(bit).delete(shift + BITS, key_hash, key)
        if child is None:
            return None
        if len(child.slots) == 2 and not child.children:
            return self._with_entry_for_child(bit, *child.slots)
        return self._with_child(bit, child)

    def _child(self, bit: int) -> _Node:
        return self.slots[-1 - _popcount(self.children & (bit - 1))]  # type: ignore[no-any-return]

    def _with_child(self, bit: int, child: _Node) -> _Node:
        index = len(self.slots) - 1 - _popcount(self.children & (bit - 1))
        return _Node(self.entries, self.children, self.slots[:index] + (child,) + self.slots[index + 1 :])

    def _with_child_for_entry(self, bit: int, child: _Node) -> _Node:
        start = 2 * _popcount(self.entries & (bit - 1))
        end = len(self.slots) - _popcount(self.children & (bit - 1))
        slots = self.slots[:start] + self.slots[start + 2 : end] + (child,) + self.slots[end:]
        return _Node(self.entries ^ bit, self.children | bit, slots)

    def _with_entry_for_child(self, bit: int, key: object, value: object) -> _Node:
        start = 2 * _popcount(self.entries & (bit - 1))
        end = len(self.slots) - 1 - _popcount(self.children & (bit - 1))
        slots = self.slots[:start] + (key, value) + self.slots[start:end] + self.slots[end + 1 :]
        return _Node(self.entries | bit, self.children ^ bit, slots)


@final
class _CollisionNode(_Node):
    """Two or more entries whose keys have one hash: `slots` is key, value, key, value…, in any order."""

    __slots__ = ()

    def __init__(self, slots: tuple[Any, ...]) -> None:
        super().__init__(0, 0, slots)

    def set(self, shift: int, key_hash: int, key: object, value: object) -> tuple[_Node, bool]:
        index = self.index(key)
        if index < 0:
            return _CollisionNode((*self.slots, key, value)), True
        if self.slots[index + 1] is value:
            return self, False
        return _CollisionNode(self.slots[: index + 1] + (value,) + self.slots[index + 2 :]), False

    def delete(self, shift: int, key_hash: int, key: object) -> _Node | None:
        # A lone entry that is left over is for the parent to take in.
        index = self.index(key)
        if index < 0:
            return None
        return _CollisionNode(self.slots[:index] + self.slots[index + 2 :])

    def index(self, key: object) -> int:
        """Where the key stands in `slots`, or -1."""
        slots = self.slots
        for index in range(0, len(slots), 2):
            if slots[index] is key or key == slots[index]:
                return index
        return -1


_EMPTY_NODE: Final = _Node(0, 0, ())


def _join(
    shift: int, old_hash: int, old_key: object, old_value: object, key_hash: int, key: object, value: object
) -> _Node:
    """The smallest subtree that holds two entries whose hashes agree below `shift`."""
    if shift > LAST_SHIFT:
        return _CollisionNode((old_key, old_value, key, value))
    old_position = old_hash >> shift & POSITIONS
    position = key_hash >> shift & POSITIONS
    if old_position == position:
        child = _join(shift + BITS, old_hash, old_key, old_value, key_hash, key, value)
        return _Node(0, 1 << position, (child,))
    entries = 1 << old_position | 1 << position
    if old_position < position:
        return _Node(entries, 0, (old_key, old_value, key, value))
    return _Node(entries, 0, (key, value, old_key, old_value))


def _equal(node: _Node, other: _Node) -> bool:
    """Whether two subtrees at the same place hold equal entries; shared parts are not looked at."""
    if node is other:
        return True
    if node.entries != other.entries or node.children != other.children or len(node.slots) != len(other.slots):
        return False
    if isinstance(node, _CollisionNode) and isinstance(other, _CollisionNode):
        return _equal_collisions(node, other)
    pairs = len(node.slots) - _popcount(node.children)
    for index in range(pairs):
        if node.slots[index] is not other.slots[index] and not node.slots[index] == other.slots[index]:
            return False
    return all(_equal(node.slots[index], other.slots[index]) for index in range(pairs, len(node.slots)))


def _equal_collisions(node: _CollisionNode, other: _CollisionNode) -> bool:
    for start in range(0, len(node.slots), 2):
        index = other.index(node.slots[start])
        if index < 0:
            return False
        value, other_value = node.slots[start + 1], other.slots[index + 1]
        if value is not other_value and not value == other_value:
            return False
    return True


@final
class Hamt(Generic[K, V]):
    """A persistent map: every change gives a new map, and the old one stays as it was.

    A hash array mapped trie in the CHAMP encoding (Steindorfer and Vinju, OOPSLA 2015). Keys need `__hash__` and
    `__eq__`; they are compared by identity first. Finding, setting and deleting take O(log n), copying is not needed.

    >>> empty = Hamt()
    >>> one = empty.set("a", 1)
    >>> len(empty), len(one), one["a"]
    (0, 1, 1)
    """

    __slots__ = ("__weakref__", "_count", "_root")

    _root: _Node
    _count: int

    def __new__(cls) -> Hamt[K, V]:
        self = object.__new__(cls)
        self._root = _EMPTY_NODE
        self._count = 0
        return self

    def find(self, key: object) -> tuple[V | Any, bool]:
        """Return `(value, True)`, or `(MISSING, False)` where the key is missing. O(log n).

        >>> Hamt().set("a", None).find("a")
        (None, True)
        >>> Hamt().find("a")
        (<Token.MISSING>, False)
        """
        value = self._find(key, _fold(key))
        if value is ABSENT:
            return MISSING, False
        return value, True

    def get(self, key: object, default: Any = None, /) -> V | Any:
        """Return the value of the key, or the default where the key is missing. O(log n).

        >>> Hamt().set("a", 1).get("a"), Hamt().get("a", 0)
        (1, 0)
        """
        value = self._find(key, _fold(key))
        return default if value is ABSENT else value

    def set(self, key: K, value: V) -> Hamt[K, V]:
        """Return the map with the key set; this very map where the key has this very value. O(log n).

        >>> one = Hamt().set("a", 1)
        >>> sorted(one.set("b", 2).items())
        [('a', 1), ('b', 2)]
        >>> one.set("a", 1) is one
        True
        """
        return self._set(key, _fold(key), value)

    def delete(self, key: object) -> Hamt[K, V]:
        """Return the map without the key; KeyError where it is missing. O(log n).

        >>> len(Hamt().set("a", 1).delete("a"))
        0
        >>> Hamt().delete("a")
        Traceback (most recent call last):
        ...
        KeyError: 'a'
        """
        smaller = self._discard(key, _fold(key))
        if smaller is self:
            raise KeyError(key)
        return smaller

    def discard(self, key: object) -> Hamt[K, V]:
        """Return the map without the key; this very map where the key is missing. O(log n).

        >>> one = Hamt().set("a", 1)
        >>> one.discard("b") is one
        True
        """
        return self._discard(key, _fold(key))

    def keys(self) -> KeysView[K]:
        """Return a view of the keys; iterating it takes O(n).

        >>> "a" in Hamt().set("a", 1).keys()
        True
        """
        return KeysView(self)

    def values(self) -> ValuesView[V]:
        """Return a view of the values; iterating it takes O(n).

        >>> list(Hamt().set("a", 1).values())
        [1]
        """
        return ValuesView(self)

    def items(self) -> ItemsView[K, V]:
        """Return a view of the (key, value) pairs; iterating it takes O(n).

        >>> list(Hamt().set("a", 1).items())
        [('a', 1)]
        """
        return ItemsView(self)

    def __getitem__(self, key: object) -> V:
        value = self._find(key, _fold(key))
        if value is ABSENT:
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def __contains__(self, key: object) -> bool:
        return self._find(key, _fold(key)) is not ABSENT

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> HamtIterator:
        return HamtIterator(self, "keys")

    def __eq__(self, other: object) -> bool:
        if type(other) is not Hamt:
            return NotImplemented
        return self._count == other._count and _equal(self._root, other._root)

    # A map of unhashable values has no hash, and contexts need none.
    __hash__ = None  # type: ignore[assignment]
    # The order is the hashes' and has no other end to begin from.
    __reversed__ = None

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("type 'contextvars_cy.Hamt' is not an acceptable base type")

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'contextvars_cy.Hamt' object")

    def _find(self, key: object, key_hash: int) -> Any:
        node = self._root
        for shift in range(0, LAST_SHIFT + 1, BITS):
            bit = 1 << (key_hash >> shift & POSITIONS)
            if node.entries & bit:
                index = 2 * _popcount(node.entries & (bit - 1))
                found = node.slots[index]
                return node.slots[index + 1] if found is key or key == found else ABSENT
            if not node.children & bit:
                return ABSENT
            node = node._child(bit)
        assert isinstance(node, _CollisionNode)
        index = node.index(key)
        return ABSENT if index < 0 else node.slots[index + 1]

    def _set(self, key: K, key_hash: int, value: V) -> Hamt[K, V]:
        root, added = self._root.set(0, key_hash, key, value)
        if root is self._root:
            return self
        return _new(root, self._count + added)

    def _discard(self, key: object, key_hash: int) -> Hamt[K, V]:
        root = self._root.delete(0, key_hash, key)
        if root is None:
            return self
        return _new(root, self._count - 1) if self._count > 1 else EMPTY

    def _dump(self) -> str:
        """Return the tree as text, one line a node or entry; both twins give the same one."""
        return dump(self._root, self._count)

    def _check(self) -> None:
        """Raise AssertionError, naming the invariant and showing the tree, where one of the seven is broken."""
        check(self._root, self._count)


def _new(root: _Node, count: int) -> Hamt[Any, Any]:
    hamt: Hamt[Any, Any] = Hamt.__new__(Hamt)
    hamt._root = root
    hamt._count = count
    return hamt


EMPTY: Final[Hamt[Any, Any]] = Hamt()


@final
class HamtIterator(Iterator[Any]):
    """Walks one map, entries of a node before its children; its length is the map's, as in `context.keys()`."""

    __slots__ = ("_hamt", "_index", "_kind", "_node", "_stack")

    def __init__(self, hamt: Hamt[Any, Any], kind: str) -> None:
        self._kind = kind
        # Kept, so that no node is freed, and no finaliser run, in the middle of a step.
        self._hamt = hamt
        self._stack: list[Any] = [hamt._root]
        self._node: Any = _EMPTY_NODE
        self._index = 0

    def __iter__(self) -> HamtIterator:
        return self

    def __len__(self) -> int:
        return self._hamt._count

    def __next__(self) -> Any:
        while self._index == len(self._node.slots) - _popcount(self._node.children):
            if not self._stack:
                raise StopIteration
            self._node = node = self._stack.pop()
            self._index = 0
            self._stack.extend(node.slots[len(node.slots) - _popcount(node.children) :])
        index = self._index
        self._index += 2
        if self._kind == "keys":
            return self._node.slots[index]
        if self._kind == "values":
            return self._node.slots[index + 1]
        return self._node.slots[index], self._node.slots[index + 1]

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("type 'contextvars_cy.HamtIterator' is not an acceptable base type")

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'contextvars_cy.HamtIterator' object")


Mapping.register(Hamt)
for _public in (Hamt, HamtIterator):
    _public.__module__ = "contextvars_cy"
