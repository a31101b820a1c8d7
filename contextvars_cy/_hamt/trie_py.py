"""The hash array mapped trie under the persistent map: its nodes, and the operations on them.

A worked example. Let `'a'` hash to 0b00010_00011 and `'b'` to 0b00111_00011 (the low ten of 32 bits). The root uses the
low five bits: both keys want position 3, so the root's `children` bitmap has bit 3 set, and its only slot is a child.
The child uses the next five bits: positions 2 and 7, both free, so its `entries` bitmap is 0b10000100 and its slots are
'a', 1, 'b', 2. A third key whose low bits are 9 becomes an entry of the root itself:

    root    entries = {9}     children = {3}     slots = [key, value, child]
    child   entries = {2, 7}  children = {}      slots = ['a', 1, 'b', 2]

To find 'b': the root's bit 3 is a child, the first from the right; in the child bit 7 is an entry, and one entry bit
lies below it, so its key is at slot 2 * 1. Setting 'b' again copies the child and the root (the path), and shares
everything else; so a copy of a map costs nothing and a change costs O(log n).

The encoding is CHAMP (Steindorfer and Vinju, "Optimizing Hash-Array Mapped Tries for Fast and Lean Immutable JVM
Collections", OOPSLA 2015): entries and children apart, each with a bitmap; deletion restores the one shape that each
content has. The code below keeps these invariants; `Hamt._check` reports them by number:

1. A node has two bitmaps, one for entries and one for children; a position is never in both.
2. Its slots hold the entries' key, value pairs from the left, in hash-bit order, and the children from the right.
3. A child holds at least two entries in its subtree, so the shape is a function of the content alone.
4. Keys with the same 32-bit hash share a collision node, which stands only below the last of the 7 levels.
5. A hash is folded to 32 bits by one formula, which mixes: ranges of numbers, negative ones too, multiples, packed
   pairs, floats and addresses spread as random numbers do.
6. Keys are compared by identity first, then, only if their whole hashes are equal, by `==`; "unchanged" means `is`,
   never `==`.
7. What a published map shows never changes. Here no node is written again after the function that made it returns; the
   compiled twin writes a node again if its one owner is a map that no other code can see.

A collision node has two zero bitmaps and its entries in any order; an empty root has no slots either.

Keys are the user's objects: their `__hash__` and `__eq__` may raise, or run anything. Nothing here is changed in place,
so an exception leaves every map as it was. Operations on two trees walk them side by side: a subtree that both share
costs one look, and one that only one of them has is taken or left as a whole.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from operator import is_
from typing import Any, Final

from .._sentinels import ABSENT

Node = tuple[int, int, list[Any]]
"""The bitmaps of the entries and of the children, and the slots."""
Item = tuple[int, Any, Any, int]
"""A folded hash, a key and a value, to go into a tree, and the key's whole hash."""

BITS: Final = 5
"""The number of hash bits that one level uses."""
POSITIONS: Final = 31
"""The mask of one level's bits."""
LAST_SHIFT: Final = 30
"""The shift of the seventh level; a collision node stands below it."""
FEW: Final = 8
"""Up to so many items are not worth sorting by position, nor a walk of two trees."""
PORTION: Final = 64
"""How many slots a walk collects before it yields them."""
MINE, BOTH, THEIRS = 1, 2, 4
"""What `combine` keeps: the entries whose key only the first tree has, both have, only the second has."""
PYPY: Final = sys.implementation.name == "pypy"
HASHES_ARE_WIDE: Final = sys.maxsize > 1 << 32
COLLECTS_AT_ALLOCATION: Final = sys.version_info < (3, 12)
EMPTY_NODE: Final[Node] = (0, 0, [])


def popcount_by_sums(bitmap: int) -> int:
    """How many bits are set, by sums of two bits, of four, of eight, and of all.

    PyPy compiles this to a tenth of the time that `bit_count` takes there.
    """
    bitmap -= bitmap >> 1 & 0x55555555
    bitmap = (bitmap & 0x33333333) + (bitmap >> 2 & 0x33333333)
    return ((bitmap + (bitmap >> 4) & 0x0F0F0F0F) * 0x01010101 & 0xFFFFFFFF) >> 24


def popcount_by_digits(bitmap: int) -> int:
    return bin(bitmap).count("1")


popcount: Callable[[int], int] = popcount_by_sums if PYPY else getattr(int, "bit_count", popcount_by_digits)


def fold(key_hash: int) -> int:
    """The hash, folded to 32 bits.

    It is multiplied by the golden ratio's bits (Knuth, The Art of Computer Programming, 6.4), and the middle of the
    product mixed by a round of shift, exclusive or and multiplication, with constants that Wellons found by search
    ("Prospecting for Hash Functions", 2018).
    """
    mixed = key_hash * 0x9E3779B97F4A7C15 >> 32 & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 15) * 0x735A2D97 & 0xFFFFFFFF
    return mixed ^ mixed >> 15


def fold_by_halves(key_hash: int) -> int:
    """What `fold` gives, without a product of more than 63 bits, which PyPy would make a long of."""
    low = key_hash & 0xFFFFFFFF
    # The multiplier's upper half less 1 << 32, and its lower half.
    middle = (low * -0x61C88647 & 0xFFFFFFFF) + (low * 0x7F4A7C15 >> 32) + (key_hash >> 32) * 0x7F4A7C15
    mixed = middle & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 15) * 0x735A2D97 & 0xFFFFFFFF
    return mixed ^ mixed >> 15


if PYPY:
    fold = fold_by_halves


def unfold(folded: int) -> int:
    """A hash that folds to this number, on a 64-bit Python; on others, some hash."""
    mixed = folded ^ folded >> 15 ^ folded >> 30
    mixed = mixed * 0x97132227 & 0xFFFFFFFF
    mixed ^= mixed >> 15 ^ mixed >> 30
    # The low half, which folding drops, makes the lowest bits differ, which a dict looks at.
    key_hash = (mixed << 32 | folded) * 0xF1DE83E19937733D & 0xFFFFFFFFFFFFFFFF
    # Not by a subtraction: PyPy keeps the result of arithmetic on more than 64 bits as a long, and hashes a long that
    # `__hash__` returns once more.
    return int.from_bytes(key_hash.to_bytes(8, "little"), "little", signed=True) if HASHES_ARE_WIDE else folded


def find(node: Node, folded: int, key: object, key_hash: int) -> Any:
    """The key's value, or ABSENT; `folded` lacks the bits that the levels above the node have used."""
    while True:
        entries, children, slots = node
        bit = 1 << (folded & POSITIONS)
        if entries & bit:
            index = 2 * popcount(entries & (bit - 1))
            found = slots[index]
            return slots[index + 1] if found is key or hash(found) == key_hash and key == found else ABSENT
        if not children & bit:
            break
        node = slots[-1 - popcount(children & (bit - 1))]
        folded >>= BITS
    if entries or children or not slots:
        return ABSENT
    index = index_in_collision(slots, key, key_hash)
    return ABSENT if index < 0 else slots[index + 1]


def assoc(root: Node, folded: int, key: object, value: object, key_hash: int, shift: int = 0) -> tuple[Node, Any]:
    """The tree whose root stands at `shift` with the key set, and the value that it had before, or ABSENT.

    It is this tree itself if nothing changes.
    """
    entries, children, slots = root
    # The nodes above, each behind the one below it.
    path: Any = None
    bit = 1 << (folded >> shift & POSITIONS)
    while children & bit:
        index = -1 - popcount(children & (bit - 1))
        path = path, entries, children, slots, index
        entries, children, slots = slots[index]
        shift += BITS
        bit = 1 << (folded >> shift & POSITIONS)
    old_value = ABSENT
    if entries & bit:
        index = 2 * popcount(entries & (bit - 1))
        old_key, found = slots[index], slots[index + 1]
        old_hash = key_hash if old_key is key else hash(old_key)
        if not (old_key is key or old_hash == key_hash and key == old_key):
            child = join(shift + BITS, fold(old_hash), old_key, found, folded, key, value)
            slots = slots.copy()
            slots.insert(len(slots) - popcount(children & (bit - 1)), child)
            del slots[index : index + 2]
            entries ^= bit
            children |= bit
        elif found is value:
            return root, value
        else:
            old_value = found
            slots = slots.copy()
            slots[index + 1] = value
    elif entries or children or not slots:
        index = 2 * popcount(entries & (bit - 1))
        slots = slots.copy()
        slots[index:index] = key, value
        entries |= bit
    else:
        index = index_in_collision(slots, key, key_hash)
        if index < 0:
            slots = [*slots, key, value]
        elif slots[index + 1] is value:
            return root, value
        else:
            old_value = slots[index + 1]
            slots = slots.copy()
            slots[index + 1] = value
    node = entries, children, slots
    while path:
        path, entries, children, slots, index = path
        slots = slots.copy()
        slots[index] = node
        node = entries, children, slots
    return node, old_value


def dissoc(root: Node, folded: int, key: object, key_hash: int) -> tuple[Node, Any]:
    """The tree without the key, and the value that it had, or ABSENT: then it is this tree itself."""
    entries, children, slots = root
    path: Any = None
    shift = 0
    bit = 1 << (folded & POSITIONS)
    while children & bit:
        index = -1 - popcount(children & (bit - 1))
        path = path, entries, children, slots, index
        entries, children, slots = slots[index]
        shift += BITS
        bit = 1 << (folded >> shift & POSITIONS)
    if entries & bit:
        index = 2 * popcount(entries & (bit - 1))
        if not (slots[index] is key or hash(slots[index]) == key_hash and key == slots[index]):
            return root, ABSENT
        entries ^= bit
    elif entries or children or not slots:
        return root, ABSENT
    else:
        index = index_in_collision(slots, key, key_hash)
        if index < 0:
            return root, ABSENT
    value = slots[index + 1]
    slots = slots.copy()
    del slots[index : index + 2]
    while path and not children and len(slots) == 2:
        # A lone entry moves up into its parent.
        path, entries, children, parent_slots, index = path
        shift -= BITS
        bit = 1 << (folded >> shift & POSITIONS)
        parent_slots = parent_slots.copy()
        del parent_slots[index]
        index = 2 * popcount(entries & (bit - 1))
        parent_slots[index:index] = slots
        entries, children, slots = entries | bit, children ^ bit, parent_slots
    node = entries, children, slots
    while path:
        path, entries, children, slots, index = path
        slots = slots.copy()
        slots[index] = node
        node = entries, children, slots
    return node, value


def update(root: Node, changes: dict[Any, Any]) -> tuple[Node, int]:
    """The tree with all keys of the dict set, and how many entries that added.

    The dict's keys are distinct already, so they are compared only with those of the tree.
    """
    # A list, because another thread, or a key's `__hash__`, may change the dict meanwhile.
    items = [(fold(key_hash := hash(key)), key, value, key_hash) for key, value in list(changes.items())]
    if not items:
        return root, 0
    if not root[2]:
        return subtree_of(items, 0), len(items)
    return subtree_with(root, items, 0)


def equal(node: Node, other: Node) -> bool:
    """Whether two subtrees at the same place hold equal entries; skips shared parts."""
    if node is other:
        return True
    entries, children, slots = node
    if entries != other[0] or children != other[1] or len(slots) != len(other[2]):
        return False
    if not entries and not children:
        return equal_collisions(slots, other[2])
    edge = len(slots) - popcount(children)
    for start in range(0, edge, 2):
        if not same_key(slots[start], other[2][start]) or not same_value(slots[start + 1], other[2][start + 1]):
            return False
    return all(map(equal, slots[edge:], other[2][edge:]))


def compare(
    node: Node, other: Node, shift: int, added: dict[Any, Any], removed: dict[Any, Any], changed: dict[Any, Any]
) -> None:
    """Record the changes from the entries of `node` to those of `other` in the three dicts."""
    if node is other:
        return
    if shift > LAST_SHIFT:
        compare_collisions(node[2], other[2], added, removed, changed)
        return
    for _, mine, theirs in aligned(node, other):
        if mine is None:
            added.update([theirs] if len(theirs) == 2 else entries_of(theirs))
        elif theirs is None:
            removed.update([mine] if len(mine) == 2 else entries_of(mine))
        elif len(mine) == 2 and len(theirs) == 2 and same_key(mine[0], theirs[0]):
            if not same_value(mine[1], theirs[1]):
                changed[mine[0]] = mine[1], theirs[1]
        elif mine is not theirs:
            below = shift + BITS
            compare(as_subtree(mine, below), as_subtree(theirs, below), below, added, removed, changed)


class Tally:
    """What `combine` met of the first tree's entries: so many that both trees have, so many that only the first has."""

    __slots__ = ("alone", "alone_below", "shared", "shared_below")

    def __init__(self) -> None:
        self.shared = self.alone = 0
        # Whole subtrees, whose entries are not counted yet.
        self.shared_below: list[Node] = []
        self.alone_below: list[Node] = []

    def total_shared(self, count: int) -> int:
        """How many of the first tree's `count` entries both have; in the time of the smaller part."""
        counts, stacks = [self.shared, self.alone], [self.shared_below, self.alone_below]
        while True:
            for counted, stack in enumerate(stacks):
                if not stack:
                    return counts[0] if counted == 0 else count - counts[1]
                _, children, slots = stack.pop()
                edge = len(slots) - popcount(children)
                counts[counted] += edge // 2
                stack += slots[edge:]


def combine(node: Node, other: Node, shift: int, kept: int, tally: Tally) -> Any:
    """The part of a tree that has what is `kept` of two: a (key, value) entry, a node, or None.

    Keys that both have keep the first tree's key and get the second's value. It is the first node itself if that is the
    same; parts that only one tree has are shared.
    """
    if node is other:
        tally.shared_below.append(node)
        return node if kept & BOTH else None
    if shift > LAST_SHIFT:
        return combine_collisions(node, other[2], kept, tally)
    entries = children = 0
    pairs: list[Any] = []
    subtrees: list[Node] = []
    is_same = True
    for bit, mine, theirs in aligned(node, other):
        if mine is None:
            part = theirs if kept & THEIRS else None
        elif theirs is None:
            part = mine if kept & MINE else None
            if len(mine) == 2:
                tally.alone += 1
            else:
                tally.alone_below.append(mine)
        elif len(mine) == 2 and len(theirs) == 2 and same_key(mine[0], theirs[0]):
            tally.shared += 1
            part = (mine if mine[1] is theirs[1] else (mine[0], theirs[1])) if kept & BOTH else None
        else:
            below = shift + BITS
            subtree = as_subtree(mine, below)
            part = combine(subtree, as_subtree(theirs, below), below, kept, tally)
            if part is subtree:
                part = mine
        is_same = is_same and part is mine
        if part is None:
            continue
        if len(part) == 2:
            entries |= bit
            pairs += part
        else:
            children |= bit
            subtrees.append(part)
    if is_same:
        return node
    if shift and len(pairs) == 2 and not children:
        return tuple(pairs)
    return (entries, children, pairs + subtrees[::-1]) if pairs or subtrees else None


def combine_collisions(node: Node, other: list[Any], kept: int, tally: Tally) -> Any:
    slots = node[2]
    result: list[Any] = []
    for start in range(0, len(slots), 2):
        key, value = slots[start : start + 2]
        index = index_in_collision(other, key, hash(key))
        if index < 0:
            tally.alone += 1
            if kept & MINE:
                result += key, value
        else:
            tally.shared += 1
            if kept & BOTH:
                result += key, other[index + 1]
    if kept & THEIRS:
        for start in range(0, len(other), 2):
            if is_missing(slots, other[start]):
                result += other[start : start + 2]
    if len(result) == len(slots) and all(map(is_, result, slots)):
        return node
    return tuple(result) or None if len(result) <= 2 else (0, 0, result)


def is_within(node: Node, other: Node, shift: int) -> bool:
    """Whether the other tree has all keys of this one."""
    if node is other:
        return True
    if shift > LAST_SHIFT:
        return not any(map(functools.partial(is_missing, other[2]), node[2][::2]))
    if (node[0] | node[1]) & ~(other[0] | other[1]) or node[1] & other[0]:
        return False
    below = shift + BITS
    for _, mine, theirs in aligned(node, other):
        if mine is None:
            continue
        if len(theirs) == 2:
            if not same_key(mine[0], theirs[0]):
                return False
        elif not is_within(as_subtree(mine, below), theirs, below):
            return False
    return True


def is_apart(node: Node, other: Node, shift: int) -> bool:
    """Whether the trees have no key in common."""
    if node is other:
        return not node[2]
    if shift > LAST_SHIFT:
        return all(map(functools.partial(is_missing, other[2]), node[2][::2]))
    if not (node[0] | node[1]) & (other[0] | other[1]):
        return True
    below = shift + BITS
    for _, mine, theirs in aligned(node, other):
        if mine is None or theirs is None:
            continue
        if len(mine) == 2 and len(theirs) == 2:
            if same_key(mine[0], theirs[0]):
                return False
        elif not is_apart(as_subtree(mine, below), as_subtree(theirs, below), below):
            return False
    return True


def walk(root: Node, kind: str) -> Iterator[Iterator[Any]]:
    """The keys, values or (key, value) items, a node's before its children's, in portions of several nodes.

    Before 3.12 a step of a portion allocates nothing: an allocation may collect garbage, and let another thread run in
    the middle of the step, finish the portion and free it.
    """
    stack = [root]
    portion: list[Any] = []
    while stack:
        _, children, slots = stack.pop()
        if children:
            edge = len(slots) - popcount(children)
            portion += slots[:edge]
            stack += slots[edge:]
        else:
            portion += slots
        if len(portion) > PORTION or not stack:
            if kind == "items":
                entries = iter(portion)
                items = zip(entries, entries)
                yield iter(list(items)) if COLLECTS_AT_ALLOCATION else items
            else:
                yield iter(portion[kind == "values" :: 2])
            portion = []


def entries_of(node: Node) -> list[tuple[Any, Any]]:
    return [item for items in walk(node, "items") for item in items]


def index_in_collision(slots: list[Any], key: object, key_hash: int) -> int:
    """The key's index in a collision node, or -1."""
    for index in range(0, len(slots), 2):
        if slots[index] is key or hash(slots[index]) == key_hash and key == slots[index]:
            return index
    return -1


def is_missing(slots: list[Any], key: object) -> bool:
    return index_in_collision(slots, key, hash(key)) < 0


def join(
    shift: int, old_folded: int, old_key: object, old_value: object, folded: int, key: object, value: object
) -> Node:
    """The smallest subtree that holds two entries whose hashes agree below `shift`."""
    if shift > LAST_SHIFT:
        return 0, 0, [old_key, old_value, key, value]
    old_position = old_folded >> shift & POSITIONS
    position = folded >> shift & POSITIONS
    if old_position == position:
        return 0, 1 << position, [join(shift + BITS, old_folded, old_key, old_value, folded, key, value)]
    entries = 1 << old_position | 1 << position
    if old_position < position:
        return entries, 0, [old_key, old_value, key, value]
    return entries, 0, [key, value, old_key, old_value]


def by_position(items: list[Item], shift: int) -> dict[int, list[Item]]:
    """The items at each position of one level."""
    buckets: dict[int, list[Item]] = {}
    for item in items:
        position = item[0] >> shift & POSITIONS
        if position in buckets:
            buckets[position].append(item)
        else:
            buckets[position] = [item]
    return buckets


def subtree_of(items: list[Item], shift: int) -> Node:
    """The subtree of items whose hashes agree below `shift`: bottom-up, each node made once."""
    if shift > LAST_SHIFT:
        return 0, 0, [part for item in items for part in item[1:3]]
    buckets = by_position(items, shift)
    entries = children = 0
    pairs: list[Any] = []
    subtrees: list[Node] = []
    for position in sorted(buckets):
        bucket = buckets[position]
        if len(bucket) == 1:
            entries |= 1 << position
            pairs += bucket[0][1:3]
        else:
            children |= 1 << position
            subtrees.append(subtree_of(bucket, shift + BITS))
    return entries, children, pairs + subtrees[::-1]


def subtree_with(node: Node, items: list[Item], shift: int) -> tuple[Node, int]:
    """The subtree at `shift` with the items set, and how many entries that added."""
    added = 0
    if len(items) <= FEW or shift > LAST_SHIFT:
        for item in items:
            node, old_value = assoc(node, *item, shift)
            added += old_value is ABSENT
        return node, added
    entries, children, slots = old_entries, old_children, old_slots = node
    below = shift + BITS
    # From the last position down, so that lower ones keep their index, from the left or from the right.
    for position, bucket in sorted(by_position(items, shift).items(), reverse=True):
        bit = 1 << position
        index = 2 * popcount(old_entries & (bit - 1))
        from_right = 1 + popcount(old_children & (bit - 1))
        if old_children & bit:
            old_child = old_slots[-from_right]
            child, more = subtree_with(old_child, bucket, below)
            if child is old_child:
                continue
            if slots is old_slots:
                slots = slots.copy()
            slots[-from_right] = child
            added += more
            continue
        if slots is old_slots:
            slots = slots.copy()
        if old_entries & bit:
            key, value = old_slots[index : index + 2]
            if len(bucket) == 1 and same_key(key, bucket[0][1]):
                slots[index + 1] = bucket[0][2]
                continue
            child, more = subtree_with(single(key, value, below), bucket, below)
            entries ^= bit
            del slots[index : index + 2]
        elif len(bucket) == 1:
            entries |= bit
            slots[index:index] = bucket[0][1:3]
            added += 1
            continue
        else:
            child, more = subtree_of(bucket, below), len(bucket)
        children |= bit
        slots.insert(len(slots) - from_right + 1, child)
        added += more
    if slots is old_slots or not added and all(map(is_, slots, old_slots)):
        return node, 0
    return (entries, children, slots), added


def aligned(node: Node, other: Node) -> Iterator[tuple[int, Any, Any]]:
    """For each position that either has: its bit, and each node's part there, a (key, value) entry, a child or None."""
    entries, children, slots = node
    other_entries, other_children, other_slots = other
    index = other_index = 0
    child_index, other_child_index = len(slots), len(other_slots)
    positions = entries | children | other_entries | other_children
    while positions:
        bit = positions & -positions
        positions ^= bit
        mine = theirs = None
        if entries & bit:
            mine = slots[index], slots[index + 1]
            index += 2
        elif children & bit:
            child_index -= 1
            mine = slots[child_index]
        if other_entries & bit:
            theirs = other_slots[other_index], other_slots[other_index + 1]
            other_index += 2
        elif other_children & bit:
            other_child_index -= 1
            theirs = other_slots[other_child_index]
        yield bit, mine, theirs


def same_key(key: object, other: object) -> bool:
    return key is other or hash(key) == hash(other) and bool(other == key)


def same_value(value: object, other: object) -> bool:
    return value is other or bool(value == other)


def as_subtree(part: Any, shift: int) -> Node:
    """A child as it is, an entry as its own node, so that both can be walked alike."""
    return part if len(part) == 3 else single(part[0], part[1], shift)


def single(key: object, value: object, shift: int) -> Node:
    return 1 << (fold(hash(key)) >> shift & POSITIONS) if shift <= LAST_SHIFT else 0, 0, [key, value]


def equal_collisions(slots: list[Any], other: list[Any]) -> bool:
    for start in range(0, len(slots), 2):
        index = index_in_collision(other, slots[start], hash(slots[start]))
        if index < 0 or not same_value(slots[start + 1], other[index + 1]):
            return False
    return True


def compare_collisions(
    slots: list[Any], other: list[Any], added: dict[Any, Any], removed: dict[Any, Any], changed: dict[Any, Any]
) -> None:
    for start in range(0, len(slots), 2):
        key, value = slots[start : start + 2]
        index = index_in_collision(other, key, hash(key))
        if index < 0:
            removed[key] = value
        elif not same_value(value, other[index + 1]):
            changed[key] = value, other[index + 1]
    for start in range(0, len(other), 2):
        if is_missing(slots, other[start]):
            added[other[start]] = other[start + 1]
