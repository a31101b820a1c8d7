"""The persistent map under every Context, the reference twin: a root node of `trie_py`, a count, and their methods.

Nothing that a map can reach is ever written again. A mutation collects its changes in a dict, and applies them to the
map in one walk at `finish` or `len`: every node is made once, and none needs an owner.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from sys import maxsize
from threading import RLock
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar, final

from .._sealed import Sealed, published, recursive_repr
from .._sentinels import ABSENT, MISSING
from .debug import check, dump
from .diff import HamtDiff, merge
from .trie_py import EMPTY_NODE, Node, assoc, collect_changes, compare, dissoc, equal, find, fold, remove, update, walk

if TYPE_CHECKING:
    from typing_extensions import TypeGuard

K = TypeVar("K")
V = TypeVar("V")
F = TypeVar("F", bound=Callable[..., Any])

GIL: Final[bool] = getattr(sys, "_is_gil_enabled", lambda: True)()


@published
@final
class Hamt(Sealed, Generic[K, V]):
    """A persistent map: every change gives a new map, and the old one stays as it was.

    `Hamt(source, **items)` takes what `dict` takes: a mapping, an iterable of pairs, keywords; and any object with
    `items()`; O(n). Given a map, it returns that map. Keys need `__hash__` and `__eq__`, and are compared by identity
    first. Iteration follows the hashes: the order depends only on the content, except for keys of one hash.

    Two maps are equal if they have equal values for the same keys. If one was made from the other, comparing takes the
    time of their difference, since it skips shared subtrees; else O(n). A map has a hash if its values have one.

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

    def __new__(cls, source: Mapping[K, V] | Iterable[tuple[K, V]] = (), /, **items: V) -> Hamt[K, V]:
        if type(source) is Hamt and not items:
            return source
        return EMPTY._updated(_as_dict(source, items))

    @classmethod
    def fromkeys(cls, keys: Iterable[K], value: Any = None, /) -> Hamt[K, Any]:
        """Return the map that gives every key the same value. O(n).

        >>> Hamt.fromkeys("a", 0)
        Hamt({'a': 0})
        """
        return Hamt(dict.fromkeys(keys, value))

    def find(self, key: object, /) -> tuple[V | Any, bool]:
        """Return `(value, True)`, or `(MISSING, False)` if the key is missing. O(log n).

        >>> Hamt(a=None).find("a")
        (None, True)
        >>> Hamt().find("a")
        (<Token.MISSING>, False)
        """
        value = self._find(key, fold(key))
        if value is ABSENT:
            return MISSING, False
        return value, True

    def get(self, key: object, default: Any = None, /) -> V | Any:
        """Return the value of the key, or the default if the key is missing. O(log n).

        >>> Hamt(a=1).get("a"), Hamt().get("a", 0)
        (1, 0)
        """
        value = find(self._root, fold(key), key)
        return default if value is ABSENT else value

    def set(self, key: K, value: V, /) -> Hamt[K, V]:
        """Return the map with the key set; this map itself if the key has this very value. O(log n).

        >>> one = Hamt(a=1)
        >>> sorted(one.set("b", 2).items())
        [('a', 1), ('b', 2)]
        >>> one.set("a", 1) is one
        True
        """
        return self._exchange(key, fold(key), value)[0]

    def delete(self, key: object, /) -> Hamt[K, V]:
        """Return the map without the key; KeyError if it is missing. O(log n).

        >>> Hamt(a=1).delete("a")
        Hamt({})
        >>> Hamt().delete("a")
        Traceback (most recent call last):
        ...
        KeyError: 'a'
        """
        smaller = self._discard(key, fold(key))
        if smaller is self:
            raise KeyError(key)
        return smaller

    def discard(self, key: object, /) -> Hamt[K, V]:
        """Return the map without the key; this map itself if the key is missing. O(log n).

        >>> one = Hamt(a=1)
        >>> one.discard("b") is one
        True
        """
        return self._discard(key, fold(key))

    def update(self, source: Mapping[K, V] | Iterable[tuple[K, V]] = (), /, **items: V) -> Hamt[K, V]:
        """Return the map with all entries of `Hamt(source, **items)` set; this map itself if nothing changes.

        O(m log n) for a source of m entries, in one walk of the tree; for a map made from this one, the time of their
        difference. `map | mapping` is the same; in `mapping | map` the map's values win.

        >>> Hamt(a=1).update({"a": 2}) == Hamt(a=2)
        True
        >>> {"a": 1, "b": 1} | Hamt(a=2) == Hamt(a=2, b=1)
        True
        """
        if type(source) is not Hamt or items:
            return self._updated(_as_dict(source, items))
        if not self._count and source._count:
            return source
        changes: dict[K, V] = {}
        collect_changes(self._root, source._root, 0, changes)
        return self._updated(changes)

    def mutate(self) -> HamtMutation[K, V]:
        """Return a `HamtMutation`, which turns many changes into one new map. O(1).

        >>> with Hamt(a=1).mutate() as mutation:
        ...     mutation["b"] = 2
        ...     del mutation["a"]
        >>> mutation.finish()
        Hamt({'b': 2})
        """
        mutation: HamtMutation[K, V] = object.__new__(HamtMutation)
        mutation._hamt = self
        mutation._changes = {}
        mutation._finished = False
        mutation._idle = [None, None]
        return mutation

    def diff(self, other: Hamt[K, V], /) -> HamtDiff:
        """Return the changes from this map to the other: a `HamtDiff` of added, removed and changed.

        Values are compared by identity first, then by `==`, so only equal maps have an empty difference. If one map was
        made from the other, the time grows with the difference, not with the maps: shared subtrees are skipped. Else
        O(n).

        >>> Hamt(a=1, b=2).diff(Hamt(a=1, b=3)).changed
        {'b': (2, 3)}
        """
        if type(other) is not Hamt:
            raise TypeError(f"diff() takes a Hamt, not {type(other).__name__}")
        difference = HamtDiff({}, {}, {})
        compare(self._root, other._root, 0, *difference)
        return difference

    def merge(
        self, base: Hamt[K, V], other: Hamt[K, V], /, resolve: Callable[[Any, Any, Any, Any], Any] | None = None
    ) -> Hamt[K, V]:
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

    def keys(self) -> KeysView[K]:
        """Return a view of the keys, a `collections.abc.Set`; iterating it takes O(n).

        >>> "a" in Hamt(a=1).keys()
        True
        >>> Hamt(a=1, b=2).keys() & {"b", "c"}
        {'b'}
        """
        view: HamtKeys[K] = object.__new__(HamtKeys)
        view._mapping = self
        return view

    def values(self) -> ValuesView[V]:
        """Return a view of the values; iterating it takes O(n).

        >>> list(Hamt(a=1).values())
        [1]
        """
        view: HamtValues[V] = object.__new__(HamtValues)
        view._mapping = self
        return view

    def items(self) -> ItemsView[K, V]:
        """Return a view of the (key, value) pairs, a `collections.abc.Set`; iterating it takes O(n).

        >>> list(Hamt(a=1).items())
        [('a', 1)]
        """
        view: HamtItems[K, V] = object.__new__(HamtItems)
        view._mapping = self
        return view

    def __getitem__(self, key: object, /) -> V:
        value = find(self._root, fold(key), key)
        if value is ABSENT:
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def __contains__(self, key: object, /) -> bool:
        return find(self._root, fold(key), key) is not ABSENT

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> HamtIterator:
        return iterate(self, "keys")

    def __eq__(self, other: object, /) -> bool:
        if type(other) is not Hamt:
            return NotImplemented
        return self._count == other._count and equal(self._root, other._root)

    def __hash__(self) -> int:
        if not hasattr(self, "_hash"):
            # Not negative: the twin uses negative numbers otherwise.
            self._hash = hash((self._count, sum(map(hash, self.items())))) & maxsize
        return self._hash

    def __or__(self, other: Mapping[K, V], /) -> Hamt[K, V]:
        return self.update(other) if _is_mapping(other) else NotImplemented

    def __ror__(self, other: Mapping[K, V], /) -> Hamt[K, V]:
        return Hamt(other).update(self) if _is_mapping(other) else NotImplemented

    @recursive_repr("Hamt({...})")
    def __repr__(self) -> str:
        return f"Hamt({_braced(self)})"

    def __copy__(self) -> Hamt[K, V]:
        return self

    def __reduce__(self) -> tuple[type[Hamt[K, V]], tuple[dict[K, V]]]:
        return Hamt, (dict(self.items()),)

    # The order follows the hashes, so reversing it means nothing.
    __reversed__ = None

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def _find(self, key: object, key_hash: int) -> Any:
        return find(self._root, key_hash, key)

    def _exchange(self, key: K, key_hash: int, value: V) -> tuple[Hamt[K, V], Any]:
        """The map with the key set, and the value that it had before, or ABSENT."""
        root, old_value = assoc(self._root, key_hash, key, value)
        if root is self._root:
            return self, old_value
        return _new(root, self._count + (old_value is ABSENT)), old_value

    def _discard(self, key: object, key_hash: int) -> Hamt[K, V]:
        root = dissoc(self._root, key_hash, key)
        if root is None:
            return self
        return _new(root, self._count - 1) if self._count > 1 else EMPTY

    def _updated(self, changes: dict[K, V]) -> Hamt[K, V]:
        root, added = update(self._root, changes)
        return self if root is self._root else _new(root, self._count + added)

    def _changed(self, changes: dict[K, Any]) -> Hamt[K, V]:
        """As `_updated`, without the keys whose value is ABSENT."""
        root, removed = remove(self._root, changes)
        root, added = update(root, changes)
        return self if root is self._root else _new(root, self._count - removed + added)

    def _dump(self) -> str:
        """Return the tree as text, one line per node or entry; both twins give the same."""
        return dump(self._root, self._count)

    def _check(self) -> None:
        """Raise AssertionError if an invariant is broken, with its name and the tree."""
        check(self._root, self._count)


def _new(root: Node, count: int) -> Hamt[Any, Any]:
    hamt: Hamt[Any, Any] = object.__new__(Hamt)
    hamt._root = root
    hamt._count = count
    return hamt


def _as_dict(source: Any, items: dict[Any, Any]) -> dict[Any, Any]:
    if type(source) is dict and not items:
        return source
    if hasattr(source, "items") and not hasattr(source, "keys"):
        source = source.items()
    return dict(source, **items)


def _is_mapping(other: object) -> TypeGuard[Mapping[Any, Any]]:
    # Abstract base classes no longer work for the last objects of an interpreter.
    return type(other) is Hamt or type(other) is dict or isinstance(other, Mapping)


def _refuse_call(kind: type) -> NoReturn:
    raise TypeError(f"cannot create 'contextvars_cy.{kind.__name__}' instances; a Hamt's methods give them")


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

    def __new__(cls, *arguments: NoReturn) -> HamtIterator:
        _refuse_call(cls)

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


class _SetView:
    """What keys and items share beside the methods of an abstract set."""

    __slots__ = ()

    def __xor__(self: Iterable[Any], other: Any, /) -> Any:
        # Set's own method unites two results, and the second has the other's type.
        return set(self) ^ set(other) if isinstance(other, Iterable) else NotImplemented

    __rxor__ = __xor__


@published
@final
class HamtKeys(_SetView, Sealed, KeysView[K]):
    """The keys of a map, as `Hamt.keys` gives them: a set that is never copied; its operators give builtin sets."""

    __slots__ = ()

    _mapping: Hamt[K, Any]

    def __new__(cls, *arguments: NoReturn) -> HamtKeys[K]:
        _refuse_call(cls)

    def __iter__(self) -> Iterator[K]:
        return iterate(self._mapping, "keys")

    def __repr__(self) -> str:
        return f"HamtKeys({list(self)!r})"


@published
@final
class HamtValues(Sealed, ValuesView[V]):
    """The values of a map, as `Hamt.values` gives them."""

    __slots__ = ()

    _mapping: Hamt[Any, V]

    def __new__(cls, *arguments: NoReturn) -> HamtValues[V]:
        _refuse_call(cls)

    def __iter__(self) -> Iterator[V]:
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
class HamtItems(_SetView, Sealed, ItemsView[K, V]):
    """The (key, value) pairs of a map, as `Hamt.items` gives them: a set; its operators give builtin sets."""

    __slots__ = ()

    _mapping: Hamt[K, V]

    def __new__(cls, *arguments: NoReturn) -> HamtItems[K, V]:
        _refuse_call(cls)

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iterate(self._mapping, "items")

    def __contains__(self, item: object, /) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        value = self._mapping._find(item[0], fold(item[0]))
        return value is not ABSENT and (item[1] is value or bool(item[1] == value))

    def __repr__(self) -> str:
        return f"HamtItems({list(self)!r})"


_UNCHANGED: Final = object()


def _exclusive(method: F) -> F:
    """Allows one such operation on a mutation at a time: another thread, or a key's `__eq__`, gets a RuntimeError."""

    @functools.wraps(method)
    def exclusive(self: HamtMutation[Any, Any], /, *arguments: Any, **items: Any) -> Any:
        # Only one of two threads gets the element. Not a call: an interrupt after it could lose the element for good.
        try:
            del self._idle[1]
        except IndexError:
            raise RuntimeError(
                "the mutation is in use, by another thread or by the operation that called this one"
            ) from None
        try:
            return method(self, *arguments, **items)
        finally:
            self._idle += (None,)

    return exclusive  # type: ignore[return-value]


@published
@final
class HamtMutation(Sealed, Generic[K, V]):
    """Makes one new map of many changes; `Hamt.mutate` returns it.

    It reads and changes like a dict, but is not iterable. A change takes as long as a dict's; `finish` and `len` apply
    the m changes to the map in one walk, O(m log n). After `finish` every change is a ValueError. A change is a
    RuntimeError while another one runs, in another thread or in the operation that called the `__eq__` of a key.

    >>> mutation = Hamt(a=1).mutate()
    >>> mutation["b"] = 2
    >>> mutation.pop("a")
    1
    >>> mutation.finish()
    Hamt({'b': 2})
    """

    __slots__ = ("__weakref__", "_changes", "_finished", "_hamt", "_idle")

    # The map, and the changes to it: for each key a value, or ABSENT if it was removed. Every change is one store in
    # the dict, so an exception changes nothing, and a reader needs no lock.
    _hamt: Hamt[K, V]
    _changes: dict[Any, Any]
    _finished: bool
    _idle: list[None]

    def __new__(cls, *arguments: NoReturn) -> HamtMutation[K, V]:
        _refuse_call(cls)

    def get(self, key: object, default: Any = None, /) -> V | Any:
        """Return the value of the key, or the default if the key is missing. O(log n).

        >>> Hamt(a=1).mutate().get("b", 0)
        0
        """
        value = self._find(key)
        return default if value is ABSENT else value

    @_exclusive
    def set(self, key: K, value: V, /) -> None:
        """Set the key, like `mutation[key] = value`. O(1).

        >>> mutation = Hamt().mutate()
        >>> mutation.set("a", 1)
        >>> mutation["a"]
        1
        """
        self._refuse_if_finished()
        if self._changes.get(key, value) is ABSENT:
            # Else the map would keep its old key, which may be an equal but different object.
            self._settle()
        self._changes[key] = value

    @_exclusive
    def pop(self, key: object, default: Any = ABSENT, /) -> V | Any:
        """Remove the key and return its value; if it is missing, the default, or KeyError without one. O(log n).

        >>> mutation = Hamt(a=1).mutate()
        >>> mutation.pop("a"), mutation.pop("a", 0)
        (1, 0)
        """
        self._refuse_if_finished()
        value = self._find(key)
        if value is ABSENT:
            if default is ABSENT:
                raise KeyError(key)
            return default
        self._changes[key] = ABSENT
        return value

    @_exclusive
    def update(self, source: Mapping[K, V] | Iterable[tuple[K, V]] = (), /, **items: V) -> None:
        """Set all entries of `Hamt(source, **items)`, or none on an error. As `Hamt.update`.

        >>> mutation = Hamt(a=1).mutate()
        >>> mutation.update({"a": 2}, b=3)
        >>> mutation.finish() == Hamt(a=2, b=3)
        True
        """
        self._refuse_if_finished()
        self._hamt = self._settle().update(source, **items)

    @_exclusive
    def finish(self) -> Hamt[K, V]:
        """Return the new map, or the old map itself if nothing changed. The mutation takes no further change.

        >>> hamt = Hamt(a=1)
        >>> hamt.mutate().finish() is hamt
        True
        """
        hamt = self._settle()
        self._finished = True
        return hamt

    def __getitem__(self, key: object, /) -> V:
        value = self._find(key)
        if value is ABSENT:
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def __setitem__(self, key: K, value: V, /) -> None:
        self.set(key, value)

    def __delitem__(self, key: object, /) -> None:
        self.pop(key)

    def __contains__(self, key: object, /) -> bool:
        return self._find(key) is not ABSENT

    @_exclusive
    def __len__(self) -> int:
        return len(self._settle())

    def __enter__(self) -> HamtMutation[K, V]:
        self._refuse_if_finished()
        return self

    def __exit__(self, *exception: object) -> None:
        self.finish()

    def __eq__(self, other: object, /) -> bool:
        if not isinstance(other, HamtMutation):
            return NotImplemented
        return bool(self._settled() == other._settled())

    @recursive_repr("HamtMutation({...})")
    def __repr__(self) -> str:
        return f"HamtMutation({_braced(self._settled())})"

    __reversed__ = None
    __hash__ = None  # type: ignore[assignment]
    __iter__ = None

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def _refuse_if_finished(self) -> None:
        if self._finished:
            raise ValueError("the mutation has been finished; call mutate() on a map for another one")

    def _find(self, key: object) -> Any:
        value = self._changes.get(key, _UNCHANGED)
        return self._hamt._find(key, fold(key)) if value is _UNCHANGED else value

    @_exclusive
    def _settled(self) -> Hamt[K, V]:
        return self._settle()

    def _settle(self) -> Hamt[K, V]:
        """Apply the changes to the map, and return it."""
        if self._changes:
            self._hamt = self._hamt._changed(self._changes)
            self._changes = {}
        return self._hamt


Mapping.register(Hamt)  # pyright: ignore[reportAttributeAccessIssue]
