"""Shows and checks a tree for both twins, given as plain Python nodes: (entries, children, slots) tuples.

A collision node has two zero bitmaps and nonempty slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def dump(root: Any, count: int) -> str:
    return "\n".join([f"Hamt of {count}", *_lines(root, 1)])


def _lines(node: Any, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if _is_collision(node):
        yield f"{indent}CollisionNode"
    else:
        yield f"{indent}Node entries={node[0]:#b} children={node[1]:#b}"
    entries, children = _split(node)
    for key, value in entries:
        yield f"{indent}  {key!r}: {value!r}"
    for child in children:
        yield from _lines(child, depth + 1)


def check(root: Any, count: int) -> None:
    """Check invariants 1 to 6; only a kept old map shows whether a node was written again (7)."""
    # Not above: the compiled twin needs nothing else of the reference.
    from .trie_py import fold, same_key

    def require(invariant: int, holds: bool, what: str) -> None:
        if not holds:
            raise AssertionError(f"invariant {invariant}: {what}\n{dump(root, count)}")

    def visit(node: Any, depth: int, prefix: int) -> int:
        """Check the subtree whose keys' hashes end in `prefix`; return how many entries it holds."""
        if _is_collision(node):
            require(4, depth == 7, f"a collision node at depth {depth}")
            return visit_entries(node, depth, prefix)
        require(4, depth < 7, "an inner node below the last level")
        entries, children, slots = node
        require(1, not entries & children, "a position that is both an entry and a child")
        expected = 2 * bin(entries).count("1") + bin(children).count("1")
        require(2, len(slots) == expected, f"{len(slots)} slots where the bitmaps ask for {expected}")
        size = visit_entries(node, depth, prefix)
        for position, child in zip(_positions(children), _split(node)[1]):
            below = visit(child, depth + 1, prefix | position << 5 * depth)
            require(3, below > 1, f"a child with {below} entry")
            size += below
        return size

    def visit_entries(node: Any, depth: int, prefix: int) -> int:
        entries = _split(node)[0]
        # Below the last level the whole hash is the prefix, and no position is left to tell keys apart.
        positions = list(_positions(node[0])) or [0] * len(entries)
        for (key, _), position in zip(entries, positions):
            folded = fold(hash(key))
            place = prefix | position << 5 * depth
            require(5, (folded ^ place) & ((1 << 5 * (depth + 1)) - 1) == 0, f"key {key!r} is out of its hash's place")
        for index, (key, _) in enumerate(entries):
            require(6, not any(same_key(key, other) for other, _ in entries[:index]), f"key {key!r} twice")
        return len(entries)

    size = visit(root, 0, 0)
    require(2, size == count, f"{size} entries where the map counts {count}")


def _is_collision(node: Any) -> bool:
    entries, children, slots = node
    return not entries and not children and bool(slots)


def _split(node: Any) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """The entries, and the children in hash-bit order."""
    _, children, slots = node
    edge = len(slots) - bin(children).count("1")
    pairs = iter(slots[:edge])
    return list(zip(pairs, pairs)), slots[edge:][::-1]


def _positions(bitmap: int) -> Iterator[int]:
    return (position for position in range(32) if bitmap >> position & 1)
