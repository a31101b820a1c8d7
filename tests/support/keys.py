"""Keys that a test can do anything with: choose their hash, count their calls, make one raise, act in the middle."""

from __future__ import annotations

from collections.abc import Callable


class Key:
    """Equal to keys of the same name; hashes to what it is told."""

    def __init__(self, name: object, key_hash: int) -> None:
        self.name = name
        self.key_hash = key_hash

    def __hash__(self) -> int:
        return self.key_hash

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if isinstance(other, Key) else NotImplemented

    def __repr__(self) -> str:
        return f"Key({self.name!r}, {self.key_hash:#x})"


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

    def __init__(self, name: object, key_hash: int, watch: Watch) -> None:
        super().__init__(name, key_hash)
        self.watch = watch

    def __hash__(self) -> int:
        self.watch.report()
        return self.key_hash

    def __eq__(self, other: object) -> bool:
        self.watch.report()
        return super().__eq__(other)
