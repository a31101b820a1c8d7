"""Our Hamt under the names of CPython's test double for its own map, which `HamtTest` in its test_context tests."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from contextvars_cy import Hamt


class Map:
    """The double's `delete` of a missing key returns the map; its views are iterators that know their length."""

    def __init__(self, hamt: Hamt[Any, Any] | None = None) -> None:
        self.hamt: Hamt[Any, Any] = Hamt() if hamt is None else hamt

    def _wrap(self, hamt: Hamt[Any, Any]) -> Map:
        return self if hamt is self.hamt else Map(hamt)

    def set(self, key: Any, value: Any) -> Map:
        return self._wrap(self.hamt.set(key, value))

    def delete(self, key: Any) -> Map:
        return self._wrap(self.hamt.discard(key))

    def get(self, key: Any, *default: Any) -> Any:
        return self.hamt.get(key, *default)

    def keys(self) -> Counted:
        return Counted(self.hamt.keys())

    def values(self) -> Counted:
        return Counted(self.hamt.values())

    def items(self) -> Counted:
        return Counted(self.hamt.items())

    def __len__(self) -> int:
        return len(self.hamt)

    def __eq__(self, other: object) -> bool:
        return self.hamt == other.hamt if isinstance(other, Map) else NotImplemented

    def __contains__(self, key: object) -> bool:
        return key in self.hamt

    def __getitem__(self, key: Any) -> Any:
        return self.hamt[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.hamt)


class Counted:
    def __init__(self, view: Collection[Any]) -> None:
        self.view, self.iterator = view, iter(view)

    def __iter__(self) -> Counted:
        return self

    def __next__(self) -> Any:
        return next(self.iterator)

    def __len__(self) -> int:
        return len(self.view)
