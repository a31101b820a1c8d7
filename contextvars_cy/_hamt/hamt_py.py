"""The persistent map under every Context, the reference twin: a root node of `trie_py`, a count, and their methods.

Nothing that a map can reach is ever written again. So a mutation is a place for a map, where each change puts the next
one; the compiled twin changes its nodes in place as long as nothing else holds them.
"""

from __future__ import annotations

import builtins
import itertools
import sys
from _thread import RLock  # threading's own does not work when the interpreter ends
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, TypeVar, Union, final, overload

from .._reprs import recursive_repr
from .._sealed import Sealed, made_elsewhere, published
from .._sentinels import ABSENT, MISSING
from .debug import check, dump
from .diff import HamtDiff, merge
from .trie_py import (
    BOTH,
    EMPTY_NODE,
    FEW,
    MINE,
    THEIRS,
    Node,
    Tally,
    assoc,
    combine,
    compare,
    dissoc,
    equal,
    find,
    fold,
    is_apart,
    is_within,
    same_value,
    update,
    walk,
)
from .views import are_within, common, is_disjoint, symmetric_difference

K = TypeVar("K")
K2 = TypeVar("K2")
K_co = TypeVar("K_co", covariant=True)
V = TypeVar("V")
V2 = TypeVar("V2")
V_co = TypeVar("V_co", covariant=True)
V_contra = TypeVar("V_contra", contravariant=True)

if TYPE_CHECKING:
    from collections.abc import Mapping as _Mapping

    from typing_extensions import TypeGuard

    class HasItems(Protocol[K_co, V_co]):
        def items(self) -> Iterable[tuple[K_co, V_co]]: ...

    class HasKeys(Protocol[K, V_co]):
        def keys(self) -> Iterable[K]: ...

        def __getitem__(self, key: K, /) -> V_co: ...

    class TakesNames(Protocol[V_contra]):
        def __setitem__(self, key: str, value: V_contra, /) -> None: ...

    # Only where the key is known: mypy infers none from a union.
    Source = Union[HasItems[K, V_co], HasKeys[K, V_co], Iterable[tuple[K, V_co]]]
else:
    # A base that adds methods would make the twins differ, so Hamt is registered below.
    _Mapping = Generic

# What a map compares with: a builtin mapping of which no other code can have its own idea of equality.
_DICTS: Final = (dict, getattr(builtins, "frozendict", dict))
GIL: Final[bool] = getattr(sys, "_is_gil_enabled", lambda: True)()
# CPython 3.10 and later let no other thread, and no signal handler, come between a test and a store without a call.
TEST_AND_STORE_IS_ONE_STEP: Final = GIL and sys.implementation.name == "cpython" and sys.version_info >= (3, 10)


@published
@final
class Hamt(Sealed, _Mapping[K, V_co]):
    """A persistent map: every change gives a new map, and the old one stays as it was.

    `Hamt(source, **items)` takes what `dict` takes: a mapping, an iterable of pairs, keywords; and any object with
    `items()`; O(n). Given a map, it returns that map. Keys need `__hash__` and `__eq__`; as in a dict, only keys of one
    hash are compared, by identity first. Iteration follows the hashes: the order depends only on the content, except
    for keys of one hash.

    Two maps are equal if they have equal values for the same keys; a dict is equal too. If one was made from the other,
    comparing takes the time of their difference, since it skips shared subtrees; else O(n). A map has a hash if its
    values have one, that of `frozenset(map.items())`, as a frozendict has: O(n) once, then O(1).

    A hash array mapped trie in the CHAMP encoding (Steindorfer and Vinju, OOPSLA 2015). Finding, setting and deleting
    take O(log n), with a base of 32; a map needs no copying.

    >>> one = Hamt({"a": 1})
    >>> two = one.set("b", 2)
    >>> len(one), len(two), two["b"]
    (1, 2, 2)
    >>> two == one | {"b": 2}
    True
    """

    __slots__ = ("__weakref__", "_count", "_hash", "_root")

    _root: Node
    _count: int
    _hash: int

    # With an overload of no argument, pyright would not know what `field(default_factory=Hamt)` makes.
    @overload
    def __new__(cls, source: HasItems[K, V_co] = ..., /) -> Hamt[K, V_co]: ...

    @overload
    def __new__(cls, source: HasKeys[K, V_co], /) -> Hamt[K, V_co]: ...  # type: ignore[overload-overlap]

    @overload
    def __new__(cls, source: Iterable[tuple[K, V_co]], /) -> Hamt[K, V_co]: ...  # type: ignore[overload-overlap]

    @overload
    def __new__(cls: type[Hamt[str, V_co]], source: Source[str, V_co] = ..., /, **items: V_co) -> Hamt[str, V_co]: ...

    def __new__(cls, source: Any = (), /, **items: Any) -> Hamt[Any, Any]:
        return EMPTY.update(source, **items)

    @overload
    @classmethod
    def fromkeys(cls, keys: Iterable[K2], value: None = None, /) -> Hamt[K2, None]: ...

    @overload
    @classmethod
    def fromkeys(cls, keys: Iterable[K2], value: V2, /) -> Hamt[K2, V2]: ...

    @classmethod
    def fromkeys(cls, keys: Iterable[Any], value: Any = None, /) -> Hamt[Any, Any]:
        """Return the map that gives every key the same value. O(n).

        >>> Hamt.fromkeys("a", 0)
        Hamt({'a': 0})
        """
        return Hamt(dict.fromkeys(keys, value))

    def find(self, key: K, /) -> tuple[V_co | Any, bool]:
        """Return `(value, True)`, or `(MISSING, False)` if the key is missing. O(log n).

        >>> Hamt(a=None).find("a")
        (None, True)
        >>> Hamt().find("a")
        (<Token.MISSING>, False)
        """
        value: Any = self.get(key, ABSENT)
        if value is ABSENT:
            return MISSING, False
        return value, True

    @overload
    def get(self, key: K, /) -> V_co | None: ...

    # As in Mapping: it gives an empty list, as the default, its type.
    @overload
    def get(self, key: K, default: V_co, /) -> V_co: ...  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]

    @overload
    def get(self, key: K, default: V2, /) -> V_co | V2: ...

    def get(self, key: Any, default: Any = None, /) -> Any:
        """Return the value of the key, or the default if the key is missing. O(log n).

        >>> Hamt(a=1).get("a"), Hamt().get("a", 0)
        (1, 0)
        """
        key_hash = hash(key)
        value = find(self._root, fold(key_hash), key, key_hash)
        return default if value is ABSENT else value

    def set(self, key: K2, value: V2, /) -> Hamt[K | K2, V_co | V2]:
        """Return the map with the key set; this map itself if the key has this very value. O(log n).

        >>> one = Hamt(a=1)
        >>> sorted(one.set("b", 2).items())
        [('a', 1), ('b', 2)]
        >>> one.set("a", 1) is one
        True
        """
        key_hash = hash(key)
        return self._exchange(key, fold(key_hash), value, key_hash)[0]

    def delete(self, key: K, /) -> Hamt[K, V_co]:
        """Return the map without the key; KeyError if it is missing. O(log n).

        >>> Hamt(a=1).delete("a")
        Hamt({})
        >>> Hamt().delete("a")
        Traceback (most recent call last):
        ...
        KeyError: 'a'
        """
        smaller = self.discard(key)
        if smaller is self:
            raise KeyError(key)
        return smaller

    def discard(self, key: K, /) -> Hamt[K, V_co]:
        """Return the map without the key; this map itself if the key is missing. O(log n).

        >>> one = Hamt(a=1)
        >>> one.discard("b") is one
        True
        """
        key_hash = hash(key)
        return self._discard(key, fold(key_hash), key_hash)[0]

    @overload
    def update(self, /) -> Hamt[K, V_co]: ...  # pyright: ignore[reportOverlappingOverload]

    @overload
    def update(self, source: HasItems[K2, V2], /) -> Hamt[K | K2, V_co | V2]: ...

    @overload
    def update(self, source: HasKeys[K2, V2], /) -> Hamt[K | K2, V_co | V2]: ...

    @overload
    def update(self, source: Iterable[tuple[K2, V2]], /) -> Hamt[K | K2, V_co | V2]: ...

    @overload
    def update(self, source: Source[str, V2] = ..., /, **items: V2) -> Hamt[K | str, V_co | V2]: ...

    def update(self, source: Any = (), /, **items: Any) -> Hamt[Any, Any]:
        """Return the map with all entries of `Hamt(source, **items)` set; this map itself if nothing changes.

        O(m log n) for a source of m entries, in one walk of the tree. If the source is a map, it takes the time of the
        smaller map or of their difference, and shares the rest. `map | mapping` is the same; in `mapping | map` the
        map's values win.

        >>> Hamt(a=1).update({"a": 2}) == Hamt(a=2)
        True
        >>> {"a": 1, "b": 1} | Hamt(a=2) == Hamt(a=2, b=1)
        True
        """
        if type(source) is not Hamt:
            return self._updated(_as_dict(source, items))
        if not self._count:
            changed = source
        elif source._count <= FEW and source._count * FEW < self._count:
            changed = self._updated(dict(source.items()))
        else:
            changed = self._combined(source, MINE | BOTH | THEIRS)
        return changed._updated(items) if items else changed

    def mutate(self) -> HamtMutation[K, V_co]:
        """Return a `HamtMutation`, which turns many changes into one new map. O(1).

        >>> with Hamt(a=1).mutate() as mutation:
        ...     mutation["b"] = 2
        ...     del mutation["a"]
        >>> mutation.finish()
        Hamt({'b': 2})
        """
        mutation: HamtMutation[K, V_co] = object.__new__(HamtMutation)
        mutation._hamt = self
        mutation._finished = False
        mutation._lock = None if TEST_AND_STORE_IS_ONE_STEP else RLock()
        return mutation

    # To pyright `object | int` is not `object`.
    @overload
    def diff(self, other: Hamt[K2, V_co], /) -> HamtDiff[K | K2, V_co]: ...

    @overload
    def diff(self, other: Hamt[K2, V2], /) -> HamtDiff[K | K2, V_co | V2]: ...

    def diff(self, other: Hamt[Any, Any], /) -> HamtDiff[Any, Any]:
        """Return the changes from this map to the other: a `HamtDiff` of added, removed and changed.

        Values are compared by identity first, then by `==`, so only equal maps have an empty difference. If one map was
        made from the other, the time grows with the difference, not with the maps: shared subtrees are skipped. Else
        O(n).

        >>> Hamt(a=1, b=2).diff(Hamt(a=1, b=3)).changed
        {'b': (2, 3)}
        """
        if type(other) is not Hamt:
            raise TypeError(f"diff() takes a Hamt, not {type(other).__name__}")
        difference: HamtDiff[Any, Any] = HamtDiff({}, {}, {})
        compare(self._root, other._root, 0, *difference)
        return difference

    def merge(
        self,
        base: Hamt[Any, Any],
        other: Hamt[K2, V2],
        /,
        resolve: Callable[[K | K2, Any, Any, Any], Any] | None = None,
    ) -> Hamt[K | K2, V_co | V2]:
        """Return this map with the changes from the base to the other map: a three-way merge.

        A key that both sides changed differently is a conflict. `resolve(key, base_value, own_value, other_value)`
        returns its value; MISSING stands for no value. Without a resolver a conflict is a ValueError. Takes the time of
        `base.diff(other)`, and O(log n) for each change.

        >>> base = Hamt(a=1, b=1)
        >>> base.set("a", 2).merge(base, base.set("b", 3)) == Hamt(a=2, b=3)
        True
        >>> base.set("a", 2).merge(base, base.set("a", 3), lambda key, base, own, other: max(own, other))["a"]
        3
        """
        return merge(self, base, other, resolve)  # type: ignore[no-any-return]

    def keys(self) -> HamtKeys[K]:
        """Return a view of the keys, a `collections.abc.Set`; iterating it takes O(n). Its `mapping` is this map.

        >>> "a" in Hamt(a=1).keys()
        True
        >>> Hamt(a=1, b=2).keys() & {"b", "c"}
        {'b'}
        """
        view: HamtKeys[K] = object.__new__(HamtKeys)
        view._mapping = self
        return view

    def values(self) -> HamtValues[V_co]:
        """Return a view of the values; iterating it takes O(n). Its `mapping` is this map.

        >>> list(Hamt(a=1).values())
        [1]
        """
        view: HamtValues[V_co] = object.__new__(HamtValues)
        view._mapping = self
        return view

    def items(self) -> HamtItems[K, V_co]:
        """Return a view of the (key, value) pairs, a `collections.abc.Set`; iterating it takes O(n). Its `mapping` is
        this map.

        >>> list(Hamt(a=1).items())
        [('a', 1)]
        """
        view: HamtItems[K, V_co] = object.__new__(HamtItems)
        view._mapping = self
        return view

    def copy(self) -> Hamt[K, V_co]:
        """Return this very map, which nothing can change. O(1).

        >>> one = Hamt(a=1)
        >>> one.copy() is one
        True
        """
        return self

    __copy__ = copy

    def __replace__(self, /, **items: V2) -> Hamt[K | str, V_co | V2]:
        return self._updated(items)

    def __getitem__(self, key: K, /) -> V_co:
        key_hash = hash(key)
        value = find(self._root, fold(key_hash), key, key_hash)
        if value is ABSENT:
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def __contains__(self, key: object, /) -> bool:
        key_hash = hash(key)
        return find(self._root, fold(key_hash), key, key_hash) is not ABSENT

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[K]:
        return iterate(self, "keys")

    def __eq__(self, other: object, /) -> bool:
        if type(other) is Hamt:
            return self._count == other._count and equal(self._root, other._root)
        if isinstance(other, _DICTS):
            return self._count == len(other) and _has_items(self, other)  # pyright: ignore[reportArgumentType]
        return NotImplemented

    def __hash__(self) -> int:
        if not hasattr(self, "_hash"):
            self._hash = hash(frozenset(self.items()))
        return self._hash

    def __or__(self, other: Mapping[K2, V2], /) -> Hamt[K | K2, V_co | V2]:
        return self.update(other) if _is_mapping(other) else NotImplemented

    def __ror__(self, other: Mapping[K2, V2], /) -> Hamt[K | K2, V_co | V2]:
        return Hamt(other).update(self) if _is_mapping(other) else NotImplemented

    @recursive_repr("Hamt({...})")
    def __repr__(self) -> str:
        return f"Hamt({_braced(self)})"

    def __reduce__(self) -> tuple[type[Hamt[K, V_co]], tuple[dict[K, V_co]]]:
        return Hamt, (dict(self.items()),)

    # The order follows the hashes, so reversing it means nothing.
    __reversed__ = None

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def _find(self, key: object, folded: int, key_hash: int) -> Any:
        return find(self._root, folded, key, key_hash)

    def _exchange(self, key: Any, folded: int, value: Any, key_hash: int) -> tuple[Hamt[Any, Any], Any]:
        """The map with the key set, and the value that it had before, or ABSENT."""
        root, old_value = assoc(self._root, folded, key, value, key_hash)
        if root is self._root:
            return self, old_value
        return _new(root, self._count + (old_value is ABSENT)), old_value

    def _discard(self, key: object, folded: int, key_hash: int) -> tuple[Hamt[Any, Any], Any]:
        """The map without the key, and the value that it had, or ABSENT."""
        root, value = dissoc(self._root, folded, key, key_hash)
        if value is ABSENT:
            return self, ABSENT
        return _new(root, self._count - 1) if self._count > 1 else EMPTY, value

    def _updated(self, changes: dict[Any, Any]) -> Hamt[Any, Any]:
        root, added = update(self._root, changes)
        return self if root is self._root else _new(root, self._count + added)

    def _combined(self, other: Hamt[Any, Any], kept: int) -> Hamt[Any, Any]:
        """The map of what is kept of two; MINE, BOTH and THEIRS say what."""
        tally = Tally()
        root = combine(self._root, other._root, 0, kept, tally)
        if root is self._root:
            return self
        if root is None:
            return EMPTY
        shared = tally.total_shared(self._count)
        count = shared if kept & BOTH else 0
        count += self._count - shared if kept & MINE else 0
        count += other._count - shared if kept & THEIRS else 0
        return _new(root, count)

    def _common(self, other: Hamt[Any, Any]) -> Hamt[K, V_co]:
        return self._combined(other, BOTH)

    def _without(self, other: Hamt[Any, Any]) -> Hamt[K, V_co]:
        return self._combined(other, MINE)

    def _unshared(self, other: Hamt[Any, Any]) -> Hamt[Any, Any]:
        return self._combined(other, MINE | THEIRS)

    def _is_within(self, other: Hamt[Any, Any]) -> bool:
        return self._count <= other._count and is_within(self._root, other._root, 0)

    def _is_apart(self, other: Hamt[Any, Any]) -> bool:
        return is_apart(self._root, other._root, 0)

    def _dump(self) -> str:
        """Return the tree as text, one line per node or entry; both twins give the same."""
        return dump(self._root, self._count)

    def _check(self) -> None:
        """Raise AssertionError if an invariant is broken, with its name and the tree."""
        check(self._root, self._count)


def _has_items(hamt: Hamt[Any, Any], items: Any) -> bool:
    for key, value in items.items():
        mine = hamt.get(key, ABSENT)
        if mine is ABSENT or not same_value(mine, value):
            return False
    return True


def _new(root: Node, count: int) -> Hamt[Any, Any]:
    hamt: Hamt[Any, Any] = object.__new__(Hamt)
    hamt._root = root
    hamt._count = count
    return hamt


def _as_dict(source: Any, items: dict[Any, Any]) -> dict[Any, Any]:
    if type(source) is dict and not items:
        return source
    if type(source) is tuple and not source:
        return items
    if hasattr(source, "items") and not hasattr(source, "keys"):
        source = source.items()  # pyright: ignore[reportAttributeAccessIssue]
    return dict(source, **items)


def _is_mapping(other: object) -> TypeGuard[Mapping[Any, Any]]:
    # Abstract base classes no longer work for the last objects of an interpreter.
    return type(other) is Hamt or type(other) is dict or isinstance(other, Mapping)


def _braced(hamt: Hamt[Any, Any]) -> str:
    return "{" + ", ".join([f"{key!r}: {value!r}" for key, value in hamt.items()]) + "}"


EMPTY: Final[Hamt[Any, Any]] = _new(EMPTY_NODE, 0)


@published
@final
class HamtIterator(Sealed, itertools.chain):  # type: ignore[type-arg]
    """Walks one map, a node's entries before its children; its length is the map's, as in `context.keys()`."""

    __slots__ = ("_hamt", "_lock", "_portions")

    _hamt: Hamt[Any, Any]
    _lock: Any
    _portions: Iterator[Iterable[Any]]

    if TYPE_CHECKING:

        def __new__(cls, refused: NoReturn, /) -> HamtIterator: ...

    else:
        __new__ = made_elsewhere("HamtIterator", "a Hamt's methods give them")

    def __len__(self) -> int:
        return self._hamt._count

    if not GIL:

        def __next__(self) -> Any:
            # Without the GIL, neither chain nor a generator survives two threads at once.
            with self._lock:
                return super().__next__()


def iterate(hamt: Hamt[Any, Any], kind: str) -> HamtIterator:
    portions = walk(hamt._root, kind)
    iterator: Any = HamtIterator.from_iterable(portions)
    # Kept, so that no node is freed and no finaliser runs in the middle of a step.
    iterator._hamt = hamt
    # Kept, because chain drops its source at an error: if two threads share the iterator, one may get the error that
    # the generator is executing already, and would free it while the other runs it.
    iterator._portions = portions
    if not GIL:
        iterator._lock = RLock()
    return iterator  # type: ignore[no-any-return]


class _View:
    """What all views share."""

    __slots__ = ()

    _mapping: Hamt[Any, Any]

    @property
    def mapping(self) -> Hamt[Any, Any]:
        """The map that this is a view of."""
        return self._mapping


class _SetView(_View):
    """What keys and items share beside the methods of an abstract set."""

    __slots__ = ()

    def isdisjoint(self, other: Iterable[Any], /) -> bool:
        """Return True if two sets have a null intersection."""
        return is_disjoint(self, other)

    # To checkers they are those of the abstract views.
    if not TYPE_CHECKING:

        def __eq__(self, other: object, /) -> bool:
            if type(self) is HamtItems and type(other) is HamtItems:
                return self._mapping == other._mapping
            return super().__eq__(other)

        # The strict comparisons of an abstract set call these.
        def __le__(self, other: Any, /) -> bool:
            if type(self) is HamtKeys and type(other) is HamtKeys:
                return self._mapping._is_within(other._mapping)
            if type(self) is HamtItems and type(other) is HamtItems:
                return are_within(self, other)
            return super().__le__(other)

        def __ge__(self, other: Any, /) -> bool:
            if type(self) is HamtKeys and type(other) is HamtKeys:
                return other._mapping._is_within(self._mapping)
            if type(self) is HamtItems and type(other) is HamtItems:
                return are_within(other, self)
            return super().__ge__(other)

        def __and__(self, other: Any, /) -> Any:
            return common(self, other)

        def __xor__(self, other: Any, /) -> Any:
            return symmetric_difference(self, other)

        __hash__ = None
        __rand__ = __and__
        __rxor__ = __xor__


@published
@final
class HamtKeys(_SetView, Sealed, KeysView[K_co]):
    """The keys of a map, as `Hamt.keys` gives them: a set that is never copied; its operators give builtin sets.

    >>> keys = Hamt(a=1, b=2).keys()
    >>> "a" in keys, keys & {"a", "c"}, keys.mapping["b"]
    (True, {'a'}, 2)
    """

    __slots__ = ()

    _mapping: Hamt[Any, Any]

    if TYPE_CHECKING:

        @property
        def mapping(self) -> Hamt[K_co, Any]: ...

        def __new__(cls, refused: NoReturn, /) -> HamtKeys[K_co]: ...

    else:
        __new__ = made_elsewhere("HamtKeys", "a Hamt's methods give them")

    def __iter__(self) -> Iterator[K_co]:
        return iterate(self._mapping, "keys")

    def __repr__(self) -> str:
        return f"HamtKeys({list(self)!r})"


@published
@final
class HamtValues(_View, Sealed, ValuesView[V_co]):
    """The values of a map, as `Hamt.values` gives them.

    >>> values = Hamt(a=1, b=2).values()
    >>> sorted(values), 2 in values, len(values.mapping)
    ([1, 2], True, 2)
    """

    __slots__ = ()

    _mapping: Hamt[Any, V_co]

    if TYPE_CHECKING:

        @property
        def mapping(self) -> Hamt[Any, V_co]: ...

        def __new__(cls, refused: NoReturn, /) -> HamtValues[V_co]: ...

    else:
        __new__ = made_elsewhere("HamtValues", "a Hamt's methods give them")

    def __iter__(self) -> Iterator[V_co]:
        return iterate(self._mapping, "values")

    def __contains__(self, value: object, /) -> bool:
        for other in self:
            if value is other or value == other:
                return True
        return False

    def __repr__(self) -> str:
        return f"HamtValues({list(self)!r})"


@published
@final
class HamtItems(_SetView, Sealed, ItemsView[K_co, V_co]):
    """The (key, value) pairs of a map, as `Hamt.items` gives them: a set; its operators give builtin sets.

    >>> items = Hamt(a=1, b=2).items()
    >>> ("a", 1) in items, items - {("b", 2)}, items.mapping["b"]
    (True, {('a', 1)}, 2)
    """

    __slots__ = ()

    _mapping: Hamt[Any, V_co]

    if TYPE_CHECKING:

        @property
        def mapping(self) -> Hamt[K_co, V_co]: ...

        def __new__(cls, refused: NoReturn, /) -> HamtItems[K_co, V_co]: ...

    else:
        __new__ = made_elsewhere("HamtItems", "a Hamt's methods give them")

    def __iter__(self) -> Iterator[tuple[K_co, V_co]]:
        return iterate(self._mapping, "items")

    def __contains__(self, item: object, /) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        key, value = item
        mine: Any = self._mapping.get(key, ABSENT)
        return mine is not ABSENT and (value is mine or bool(value == mine))

    def __repr__(self) -> str:
        return f"HamtItems({list(self)!r})"


@published
@final
class HamtMutation(Sealed, Generic[K, V]):
    """Makes one new map of many changes; `Hamt.mutate` returns it.

    It reads and changes like a dict; iterators and views show what it held when they began. A change takes O(log n),
    and is one step: if another thread, or a key's `__hash__` or `__eq__`, changes the mutation meanwhile, no change is
    lost. After `finish` every change is a ValueError.

    >>> mutation = Hamt(a=1).mutate()
    >>> mutation["b"] = 2
    >>> mutation.pop("a")
    1
    >>> mutation.finish()
    Hamt({'b': 2})
    """

    __slots__ = ("__weakref__", "_finished", "_hamt", "_lock")

    _hamt: Hamt[K, V]
    _finished: bool
    _lock: Any

    if TYPE_CHECKING:

        def __new__(cls, refused: NoReturn, /) -> HamtMutation[K, V]: ...

    else:
        __new__ = made_elsewhere("HamtMutation", "a Hamt's methods give them")

    @overload
    def get(self, key: K, /) -> V | None: ...

    @overload
    def get(self, key: K, default: V, /) -> V: ...

    @overload
    def get(self, key: K, default: V2, /) -> V | V2: ...

    def get(self, key: Any, default: Any = None, /) -> Any:
        """Return the value of the key, or the default if the key is missing. O(log n).

        >>> Hamt(a=1).mutate().get("b", 0)
        0
        """
        return self._hamt.get(key, default)

    def set(self, key: K, value: V, /) -> None:
        """Set the key, like `mutation[key] = value`. O(log n).

        >>> mutation = Hamt().mutate()
        >>> mutation.set("a", 1)
        >>> mutation["a"]
        1
        """
        hamt = self._unfinished()
        key_hash = hash(key)
        folded = fold(key_hash)
        while not self._replace(hamt, hamt._exchange(key, folded, value, key_hash)[0]):
            hamt = self._unfinished()

    @overload
    def pop(self, key: K, /) -> V: ...

    @overload
    def pop(self, key: K, default: V, /) -> V: ...

    @overload
    def pop(self, key: K, default: V2, /) -> V | V2: ...

    def pop(self, key: Any, default: Any = ABSENT, /) -> Any:
        """Remove the key and return its value; if it is missing, the default, or KeyError without one. O(log n).

        >>> mutation = Hamt(a=1).mutate()
        >>> mutation.pop("a"), mutation.pop("a", 0)
        (1, 0)
        """
        hamt = self._unfinished()
        key_hash = hash(key)
        folded = fold(key_hash)
        while True:
            changed, value = hamt._discard(key, folded, key_hash)
            if value is ABSENT:
                if default is ABSENT:
                    raise KeyError(key)
                return default
            if self._replace(hamt, changed):
                return value
            hamt = self._unfinished()

    @overload
    def update(self, source: HasItems[K, V] = ..., /) -> None: ...

    @overload
    def update(self, source: HasKeys[K, V], /) -> None: ...

    @overload
    def update(self, source: Iterable[tuple[K, V]], /) -> None: ...

    @overload
    def update(self: TakesNames[V2], source: Source[str, V2] = ..., /, **items: V2) -> None: ...

    def update(self, source: Any = (), /, **items: Any) -> None:
        """Set all entries of `Hamt(source, **items)`, or none on an error. As `Hamt.update`.

        >>> mutation = Hamt(a=1).mutate()
        >>> mutation.update({"a": 2}, b=3)
        >>> mutation.finish() == Hamt(a=2, b=3)
        True
        """
        self._unfinished()
        if type(source) is not Hamt:
            source, items = _as_dict(source, items), {}
        while True:
            hamt = self._unfinished()
            changed: Any = hamt.update(source, **items)
            if self._replace(hamt, changed):
                return

    def finish(self) -> Hamt[K, V]:
        """Return the new map, or the old map itself if nothing was changed. The mutation takes no further change.

        >>> hamt = Hamt(a=1)
        >>> hamt.mutate().finish() is hamt
        True
        """
        if self._lock is None:
            self._finished = True
        else:
            with self._lock:
                self._finished = True
        return self._hamt

    def keys(self) -> HamtKeys[K]:
        """Return a view of the keys of now, as `Hamt.keys`.

        >>> mutation = Hamt(a=1).mutate()
        >>> keys = mutation.keys()
        >>> mutation["b"] = 2
        >>> list(keys)
        ['a']
        """
        return self._hamt.keys()

    def values(self) -> HamtValues[V]:
        """Return a view of the values of now, as `Hamt.values`.

        >>> list(Hamt(a=1).mutate().values())
        [1]
        """
        return self._hamt.values()

    def items(self) -> HamtItems[K, V]:
        """Return a view of the (key, value) pairs of now, as `Hamt.items`.

        >>> list(Hamt(a=1).mutate().items())
        [('a', 1)]
        """
        return self._hamt.items()

    def __getitem__(self, key: K, /) -> V:
        return self._hamt[key]

    # Not a method that calls `set`: most programs set in this way, and a call of Python's is a tenth of the cost.
    __setitem__ = set

    def __delitem__(self, key: K, /) -> None:
        self.pop(key)

    def __contains__(self, key: object, /) -> bool:
        return key in self._hamt

    def __len__(self) -> int:
        return self._hamt._count

    def __iter__(self) -> Iterator[K]:
        return iter(self._hamt)

    def __enter__(self) -> HamtMutation[K, V]:
        self._unfinished()
        return self

    def __exit__(self, *exception: object) -> None:
        self.finish()

    def __eq__(self, other: object, /) -> bool:
        return self._hamt == other._hamt if type(other) is HamtMutation else NotImplemented

    @recursive_repr("HamtMutation({...})")
    def __repr__(self) -> str:
        return f"HamtMutation({_braced(self._hamt)})"

    __reversed__ = None
    __hash__ = None  # type: ignore[assignment]

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def _unfinished(self) -> Hamt[K, V]:
        hamt = self._hamt
        if self._finished:
            raise ValueError("the mutation has been finished; call mutate() on a map for another one")
        return hamt

    def _replace_in_one_step(self, hamt: Hamt[K, V], changed: Hamt[K, V]) -> bool:
        # In this order: where Python 3.10 jumps, another thread may come between.
        if not self._finished and self._hamt is hamt:
            self._hamt = changed
            return True
        return False

    def _replace_under_lock(self, hamt: Hamt[K, V], changed: Hamt[K, V]) -> bool:
        with self._lock:
            return self._replace_in_one_step(hamt, changed)

    # Puts the changed map in the place of that one, unless another change came first.
    _replace = _replace_in_one_step if TEST_AND_STORE_IS_ONE_STEP else _replace_under_lock


Mapping.register(Hamt)  # pyright: ignore[reportAttributeAccessIssue]
