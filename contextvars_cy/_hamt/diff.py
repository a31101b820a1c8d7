"""The difference of maps, and the three-way merge, for both twins, on the map's public names alone."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from .._sealed import published
from .._sentinels import MISSING

K = TypeVar("K")
V = TypeVar("V")

if TYPE_CHECKING:

    class _Fields(NamedTuple, Generic[K, V]):
        added: dict[K, V]
        removed: dict[K, V]
        changed: dict[K, tuple[V, V]]

else:
    # Before 3.11 a NamedTuple cannot be generic.
    _Fields = {(K, V): namedtuple("HamtDiff", ["added", "removed", "changed"])}


@published
class HamtDiff(_Fields[K, V]):
    """The changes from one map to another: dicts of what was added, removed and changed.

    From `Hamt.diff` and `Context.diff`.

    - `added`: the keys that only the second map has, with their values.
    - `removed`: the keys that only the first map has, with their values.
    - `changed`: the keys that both have, with both values, the first map's first.

    It is true if anything changed.

    >>> added, removed, changed = Hamt(a=1, b=2).diff(Hamt(b=3, c=4))
    >>> added, removed, changed
    ({'c': 4}, {'a': 1}, {'b': (2, 3)})
    """

    __slots__ = ()

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def __bool__(self) -> bool:
        return any(self)


def merge(own: Any, base: Any, other: Any, resolve: Callable[[Any, Any, Any, Any], Any] | None) -> Any:
    for role, hamt in (("base", base), ("other", other)):
        if type(hamt) is not type(own):
            raise TypeError(f"merge() takes a Hamt as {role}, not {type(hamt).__name__}")
    added, removed, changed = base.diff(other)
    changes = [(key, MISSING, new) for key, new in added.items()]
    changes += [(key, old, MISSING) for key, old in removed.items()]
    changes += [(key, old, new) for key, (old, new) in changed.items()]
    mutation = own.mutate()
    for key, old, new in changes:
        mine, _ = own.find(key)
        if _same(mine, new):
            continue
        if not _same(mine, old):
            if resolve is None:
                raise ValueError(
                    f"both sides changed the key {key!r}: from {old!r} to {mine!r} here and to {new!r} there; "
                    "give merge() a resolver to decide"
                )
            new = resolve(key, old, mine, new)
        if new is MISSING:
            mutation.pop(key, None)
        else:
            mutation[key] = new
    return mutation.finish()


def _same(value: Any, other: Any) -> bool:
    # A value's `==` may return True for MISSING.
    return value is other or value is not MISSING and other is not MISSING and bool(value == other)
