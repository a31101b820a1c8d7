"""The persistent set: a `Hamt` whose values are None, written once for both backends."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Set
from itertools import chain
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, final

from .._reprs import recursive_repr
from .._sealed import Sealed, made_elsewhere, published
from .._sentinels import MISSING
from .twin import Hamt, HamtMutation
from .views import common, is_disjoint, symmetric_difference

if TYPE_CHECKING:
    from typing_extensions import TypeGuard

T = TypeVar("T")
T2 = TypeVar("T2")
T_co = TypeVar("T_co", covariant=True)


@published
@final
class HamtSet(Sealed, Set[T_co], Hashable):
    """A persistent set: like a `frozenset`, but a changed copy costs O(log n), since it shares what did not change.

    `HamtSet(iterable)` takes O(n). The operators and comparisons are frozenset's, with every `collections.abc.Set`; the
    result has the left operand's type, and is a set if that is a view. Elements need `__hash__` and `__eq__`, and are
    compared by identity first. An operation on two sets takes the time of the smaller one or of their difference, and
    shares what did not change. The hash is that of an equal frozenset: O(n) once, then O(1).

    >>> one = HamtSet([1, 2])
    >>> one.add(3) - one
    HamtSet({3})
    >>> one == {1, 2}
    True
    """

    __slots__ = ("__weakref__", "_hamt", "_known_hash")

    _hamt: Hamt[T_co, None]
    _known_hash: int

    def __new__(cls, elements: Iterable[T_co] = (), /) -> HamtSet[T_co]:
        if type(elements) is HamtSet:
            return elements
        return _of(Hamt.fromkeys(elements))

    def add(self, element: T2, /) -> HamtSet[T_co | T2]:
        """Return the set with the element; this set itself if it has it. O(log n).

        >>> HamtSet().add(1)
        HamtSet({1})
        """
        return self._with(self._hamt.set(element, None))

    def remove(self, element: Any, /) -> HamtSet[T_co]:
        """Return the set without the element; KeyError if it is missing. O(log n).

        >>> HamtSet([1, 2]).remove(1)
        HamtSet({2})
        """
        hamt = self._hamt.discard(_hashable(element))
        if hamt is self._hamt:
            raise KeyError(element)
        return _of(hamt)

    def discard(self, element: Any, /) -> HamtSet[T_co]:
        """Return the set without the element; this set itself if it is missing. O(log n).

        >>> HamtSet([1, 2]).discard(1)
        HamtSet({2})
        """
        return self._with(self._hamt.discard(_hashable(element)))

    def mutate(self) -> HamtSetMutation[T_co]:
        """Return a `HamtSetMutation`, which turns many changes into one new set. O(1).

        >>> with HamtSet([1]).mutate() as mutation:
        ...     mutation.add(2)
        ...     mutation.remove(1)
        >>> mutation.finish()
        HamtSet({2})
        """
        mutation: HamtSetMutation[T_co] = object.__new__(HamtSetMutation)
        mutation._elements = self
        mutation._mutation = self._hamt.mutate()
        return mutation

    def union(self, *others: Iterable[T2]) -> HamtSet[T_co | T2]:
        """Return the set with all elements of the others, which may be any iterables. O(m log n) for m elements.

        >>> HamtSet([1]).union([2], "a") == {1, 2, "a"}
        True
        """
        hamt = self._hamt
        for other in others:
            hamt = hamt.update(_hamt_of(other))
        return self._with(hamt)

    def intersection(self, *others: Iterable[Any]) -> HamtSet[T_co]:
        """Return the set of the elements that all the others, any iterables, have too.

        O(m log n) for the smaller of two sets, of m elements; another iterable is made a set first, O(m).

        >>> HamtSet([1, 2]).intersection([2, 3])
        HamtSet({2})
        """
        result = self
        for other in others:
            if type(other) is not HamtSet and _is_set(other) and len(other) > len(result):
                result = result.difference([element for element in result if element not in other])
            else:
                result = result._with(result._hamt._common(HamtSet(other)._hamt))
        return result

    def difference(self, *others: Iterable[Any]) -> HamtSet[T_co]:
        """Return the set of the elements that none of the others, any iterables, has.

        O(m log n) for the smaller of two sets, of m elements; another iterable is walked, O(m log n).

        >>> HamtSet([1, 2]).difference([2, 3])
        HamtSet({1})
        """
        result = self
        for other in others:
            if type(other) is HamtSet:
                result = result._with(result._hamt._without(other._hamt))
                continue
            if _is_set(other) and len(other) > len(result):
                other = [element for element in result if element in other]
            with result.mutate() as mutation:
                for element in other:
                    mutation._mutation.pop(element, None)
            result = mutation.finish()
        return result

    def symmetric_difference(self, other: Iterable[T2], /) -> HamtSet[T_co | T2]:
        """Return the set of the elements that only one of the two has. O(m log n) for m elements of the other.

        >>> HamtSet([1, 2]).symmetric_difference([2, 3]) == {1, 3}
        True
        """
        return self._with(self._hamt._unshared(HamtSet(other)._hamt))

    def issubset(self, other: Iterable[Any], /) -> bool:
        """Return whether every element is in the other, which may be any iterable.

        O(n) for a set; another iterable is made a set first, O(m).

        >>> HamtSet([1]).issubset([1, 2])
        True
        """
        elements = other if _is_set(other) else HamtSet(other)
        if type(elements) is HamtSet:
            return self._hamt._is_within(elements._hamt)
        return len(self) <= len(elements) and all(element in elements for element in self)

    def issuperset(self, other: Iterable[Any], /) -> bool:
        """Return whether every element of the other, which may be any iterable, is here. O(m log n).

        >>> HamtSet([1, 2]).issuperset([1])
        True
        """
        if type(other) is HamtSet:
            return other._hamt._is_within(self._hamt)
        if _is_set(other) and len(other) > len(self):
            return False
        return all(element in self._hamt for element in other)

    def isdisjoint(self, other: Iterable[Any], /) -> bool:
        """Return whether no element is in the other, which may be any iterable. O(m log n), m of the smaller one.

        >>> HamtSet([1]).isdisjoint([2])
        True
        """
        if type(other) is HamtSet:
            return self._hamt._is_apart(other._hamt)
        return is_disjoint(self._hamt, other)

    def copy(self) -> HamtSet[T_co]:
        """Return this very set, which nothing can change. O(1).

        >>> one = HamtSet([1])
        >>> one.copy() is one
        True
        """
        return self

    __copy__ = copy

    def __contains__(self, element: object, /) -> bool:
        try:
            return element in self._hamt
        except TypeError:
            if isinstance(element, set):
                return frozenset(element) in self._hamt
            raise

    def __iter__(self) -> Iterator[T_co]:
        return iter(self._hamt)

    def __len__(self) -> int:
        return len(self._hamt)

    def __eq__(self, other: object, /) -> bool:
        if type(other) is HamtSet:
            return self._hamt == other._hamt
        return len(self) == len(other) and self.issubset(other) if _is_set(other) else NotImplemented

    def __le__(self, other: Set[Any], /) -> bool:
        return self.issubset(other) if _is_set(other) else NotImplemented

    def __ge__(self, other: Set[Any], /) -> bool:
        return self.issuperset(other) if _is_set(other) else NotImplemented

    def __lt__(self, other: Set[Any], /) -> bool:
        return len(self) < len(other) and self.issubset(other) if _is_set(other) else NotImplemented

    def __gt__(self, other: Set[Any], /) -> bool:
        return len(self) > len(other) and self.issuperset(other) if _is_set(other) else NotImplemented

    def __or__(self, other: Set[T2], /) -> HamtSet[T_co | T2]:
        return self.union(other) if _is_set(other) else NotImplemented

    def __and__(self, other: Set[Any], /) -> HamtSet[T_co]:
        return self.intersection(other) if _is_set(other) else NotImplemented

    def __sub__(self, other: Set[Any], /) -> HamtSet[T_co]:
        return self.difference(other) if _is_set(other) else NotImplemented

    def __xor__(self, other: Set[T2], /) -> HamtSet[T_co | T2]:
        return self.symmetric_difference(other) if _is_set(other) else NotImplemented

    def __ror__(self, other: Set[T2], /) -> Set[T_co | T2]:
        return _like(other, chain(other, self)) if _is_set(other) else NotImplemented

    def __rand__(self, other: Set[T2], /) -> Set[T2]:
        return _like(other, common(other, self)) if _is_set(other) else NotImplemented

    def __rsub__(self, other: Set[T2], /) -> Set[T2]:
        return _like(other, (element for element in other if element not in self)) if _is_set(other) else NotImplemented

    def __rxor__(self, other: Set[T2], /) -> Set[T_co | T2]:
        return _like(other, symmetric_difference(other, self)) if _is_set(other) else NotImplemented

    def __hash__(self) -> int:
        if not hasattr(self, "_known_hash"):
            self._known_hash = hash(frozenset(self))
        return self._known_hash

    @recursive_repr("HamtSet({...})")
    def __repr__(self) -> str:
        return f"HamtSet({{{', '.join(map(repr, self))}}})" if self else "HamtSet()"

    def __reduce__(self) -> tuple[type[HamtSet[T_co]], tuple[list[T_co]]]:
        return HamtSet, (list(self),)

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def _with(self, hamt: Hamt[Any, None]) -> HamtSet[Any]:
        return self if hamt is self._hamt else _of(hamt)


@published
@final
class HamtSetMutation(Sealed, Generic[T]):
    """Makes one new set of many changes; `HamtSet.mutate` returns it.

    It reads and changes like a builtin set; an iterator shows what it held when it began. A change takes O(log n), and
    is one step, as a `HamtMutation`'s. After `finish` every change is a ValueError.

    >>> mutation = HamtSet([1]).mutate()
    >>> mutation.add(2)
    >>> mutation.discard(1)
    >>> mutation.finish()
    HamtSet({2})
    """

    __slots__ = ("__weakref__", "_elements", "_mutation")

    _elements: HamtSet[T]
    _mutation: HamtMutation[T, None]

    if TYPE_CHECKING:

        def __new__(cls, refused: NoReturn, /) -> HamtSetMutation[T]: ...

    else:
        __new__ = made_elsewhere("HamtSetMutation", "HamtSet.mutate gives them")

    def add(self, element: T, /) -> None:
        """Add the element. O(log n).

        >>> mutation = HamtSet().mutate()
        >>> mutation.add(1)
        >>> 1 in mutation
        True
        """
        self._mutation[element] = None

    def remove(self, element: Any, /) -> None:
        """Remove the element; KeyError if it is missing. O(log n).

        >>> mutation = HamtSet([1]).mutate()
        >>> mutation.remove(1)
        >>> len(mutation)
        0
        """
        if self._mutation.pop(_hashable(element), MISSING) is MISSING:
            raise KeyError(element)

    def discard(self, element: Any, /) -> None:
        """Remove the element, if it is there. O(log n).

        >>> HamtSet([1]).mutate().discard(2)
        """
        self._mutation.pop(_hashable(element), None)

    def update(self, *others: Iterable[T]) -> None:
        """Add all elements of each of the others, any iterables, or none of it on an error. O(m log n).

        >>> mutation = HamtSet([1]).mutate()
        >>> mutation.update([2, 3])
        >>> mutation.finish() == {1, 2, 3}
        True
        """
        self._mutation.update(_hamt_of(*others) if len(others) == 1 else HamtSet[T]().union(*others)._hamt)

    def finish(self) -> HamtSet[T]:
        """Return the new set, or the old set itself if nothing was changed. The mutation takes no further change.

        >>> elements = HamtSet([1])
        >>> elements.mutate().finish() is elements
        True
        """
        # The same set each time.
        self._elements = self._elements._with(self._mutation.finish())
        return self._elements

    def __contains__(self, element: object, /) -> bool:
        return _hashable(element) in self._mutation

    def __len__(self) -> int:
        return len(self._mutation)

    def __iter__(self) -> Iterator[T]:
        return iter(self._mutation)

    def __enter__(self) -> HamtSetMutation[T]:
        self._mutation.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.finish()

    def __eq__(self, other: object, /) -> bool:
        return self._mutation == other._mutation if type(other) is HamtSetMutation else NotImplemented

    @recursive_repr("HamtSetMutation({...})")
    def __repr__(self) -> str:
        return f"HamtSetMutation({{{', '.join(map(repr, self))}}})" if self else "HamtSetMutation()"

    __hash__ = None  # type: ignore[assignment]

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)


def _is_set(other: object) -> TypeGuard[Set[Any]]:
    # An abstract base class takes several times as long to ask, and no longer works when the interpreter has ended.
    return type(other) in _SETS or isinstance(other, Set)


_SETS = (HamtSet, frozenset, set)


def _hamt_of(elements: Iterable[T]) -> Any:
    return elements._hamt if type(elements) is HamtSet else dict.fromkeys(elements)


def _like(other: Set[Any], elements: Iterable[Any]) -> Set[Any]:
    """The elements as a set of the other's kind; of one that is not builtin, as ours."""
    if isinstance(other, set):
        return set(elements)
    return frozenset(elements) if isinstance(other, frozenset) else HamtSet(elements)


def _hashable(element: Any) -> Any:
    """As builtin sets have it: a set, which has no hash, stands for an equal frozenset."""
    return frozenset(element) if isinstance(element, set) and type(element).__hash__ is None else element


def _of(hamt: Hamt[Any, None]) -> HamtSet[Any]:
    elements: HamtSet[Any] = object.__new__(HamtSet)
    elements._hamt = hamt
    return elements
