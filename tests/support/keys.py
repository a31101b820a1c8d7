"""Keys that a test can do anything with: choose their place, count their calls, make one raise, act in the middle."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from contextvars_cy._hamt.trie_py import fold, unfold

# The inverse of the golden ratio's bits in `fold`: so much apart are two hashes whose low half, once multiplied,
# differs by one. Folding drops that half.
NEXT = pow(0x9E3779B97F4A7C15, -1, 1 << 64)


def hash_at(place: int) -> int:
    """A hash that folds to the place's low 32 bits. Places that differ in other bits give other hashes."""
    folded = place & 0xFFFFFFFF
    low = folded ^ place >> 32 & 0xFFFFFFFF
    key_hash = unfold(folded) + (low - folded) * NEXT & 0xFFFFFFFFFFFFFFFF
    return key_hash - (key_hash >> 63 << 64)


def number_at(place: int) -> int:
    """A number that is its own hash, as a fourth of them are, and folds to the place's low 32 bits."""
    folded, other = place & 0xFFFFFFFF, place >> 32
    hashes = (hash_at(folded | 64 * other + more << 32) for more in itertools.count())
    return next(number for number in hashes if hash(number) == number and fold(number) == folded)


class Key:
    """Equal to keys of the same name; its hash leads to the place that it is told."""

    def __init__(self, name: object, place: int) -> None:
        self.name = name
        self.place = place
        # PyPy hashes a larger number that `__hash__` returns once more.
        self.key_hash = number_at(place)

    def __hash__(self) -> int:
        return self.key_hash

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if isinstance(other, Key) else NotImplemented

    def __repr__(self) -> str:
        return f"Key({self.name!r}, {self.place:#x})"


class Unequal:
    """Equal to nothing, itself included; a float nan is no example, since to PyPy's `is` all of those are one."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return False


class Sabotage(Exception):
    """What a watched key raises."""


class Watch:
    """What watched keys report every `__hash__` and `__eq__` to: it counts them, and interferes as it is told.

    The call number `fails_at` raises Sabotage; `acts` is called in every call, but not in those that it makes itself.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self, fails_at: int = 0, acts: Callable[[], object] | None = None) -> None:
        self.calls = 0
        self.fails_at = fails_at
        self.acts = acts

    def report(self) -> None:
        self.calls += 1
        if self.calls == self.fails_at:
            raise Sabotage
        acts, self.acts = self.acts, None
        if acts:
            acts()
            self.acts = acts


class WatchedKey(Key):
    """A key, or a value, whose every `__hash__` and `__eq__` is reported to a Watch first."""

    def __init__(self, name: object, place: int, watch: Watch) -> None:
        super().__init__(name, place)
        self.watch = watch

    def __hash__(self) -> int:
        self.watch.report()
        return self.key_hash

    def __eq__(self, other: object) -> bool:
        self.watch.report()
        return super().__eq__(other)
