"""The persistent set: a `Hamt` whose values do not matter, written once for both backends."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Set
from types import GenericAlias
from typing import TYPE_CHECKING, Any, TypeVar, final

from .._sealed import Sealed, published, recursive_repr
from .twin import Hamt

if TYPE_CHECKING:
    from typing_extensions import TypeGuard

T = TypeVar("T")


@published
@final
class HamtSet(Sealed, Set[T], Hashable):
    """A persistent set: like a `frozenset`, but a changed copy costs O(log n), since it shares what did not change.

    `HamtSet(iterable)` takes O(n). The operators and comparisons are frozenset's, with every `collections.abc.Set`;
    between a HamtSet and a builtin set, on either side, the result is a HamtSet. Elements need `__hash__` and `__eq__`,
    and are compared by identity first. If one set was made from the other, comparisons and operators take the time of
    their difference. The hash is that of an equal frozenset.

    >>> one = HamtSet([1, 2])
    >>> one.add(3) - one
    HamtSet({3})
    >>> one == {1, 2}
    True
    """

    __slots__ = ("__weakref__", "_hamt")

    _hamt: Hamt[T, None]

    def __new__(cls, elements: Iterable[T] = (), /) -> HamtSet[T]:
        if type(elements) is HamtSet:
            return elements
        return _of(Hamt.fromkeys(elements))

    def add(self, element: T, /) -> HamtSet[T]:
        """Return the set with the element; this set itself if it has it. O(log n).

        >>> HamtSet().add(1)
        HamtSet({1})
        """
        hamt = self._hamt.set(element, None)
        return self if hamt is self._hamt else _of(hamt)

    def remove(self, element: object, /) -> HamtSet[T]:
        """Return the set without the element; KeyError if it is missing. O(log n).

        >>> HamtSet([1, 2]).remove(1)
        HamtSet({2})
        """
        return _of(self._hamt.delete(element))

    def discard(self, element: object, /) -> HamtSet[T]:
        """Return the set without the element; this set itself if it is missing. O(log n).

        >>> HamtSet([1, 2]).discard(1)
        HamtSet({2})
        """
        hamt = self._hamt.discard(element)
        return self if hamt is self._hamt else _of(hamt)

    def union(self, *others: Iterable[T]) -> HamtSet[T]:
        """Return the set with all elements of the others, which may be any iterables. O(m) for m elements.

        >>> HamtSet([1]).union([2], "a") == {1, 2, "a"}
        True
        """
        hamt = self._hamt
        for other in others:
            hamt = hamt.update(HamtSet(other)._hamt)
        return self if hamt is self._hamt else _of(hamt)

    def intersection(self, *others: Iterable[Any]) -> HamtSet[T]:
        """Return the set of the elements that all the others, any iterables, have too. O(n + m).

        >>> HamtSet([1, 2]).intersection([2, 3])
        HamtSet({2})
        """
        result = self
        for other in others:
            result = result.difference(result.difference(other))
        return result

    def difference(self, *others: Iterable[Any]) -> HamtSet[T]:
        """Return the set of the elements that none of the others, any iterables, has. O(n + m).

        >>> HamtSet([1, 2]).difference([2, 3])
        HamtSet({1})
        """
        hamt = self._hamt
        for other in others:
            kept = hamt.diff(HamtSet(other)._hamt).removed
            hamt = hamt if len(kept) == len(hamt) else Hamt(kept)
        return self if hamt is self._hamt else _of(hamt)

    def symmetric_difference(self, other: Iterable[T], /) -> HamtSet[T]:
        """Return the set of the elements that only one of the two has. O(n + m).

        >>> HamtSet([1, 2]).symmetric_difference([2, 3]) == {1, 3}
        True
        """
        added, removed, _ = self._hamt.diff(HamtSet(other)._hamt)
        return _of(Hamt(added).update(removed))

    def issubset(self, other: Iterable[Any], /) -> bool:
        """Return whether every element is in the other, which may be any iterable. O(n + m).

        >>> HamtSet([1]).issubset([1, 2])
        True
        """
        return not self._hamt.diff(HamtSet(other)._hamt).removed

    def issuperset(self, other: Iterable[Any], /) -> bool:
        """Return whether every element of the other, which may be any iterable, is here. O(n + m).

        >>> HamtSet([1, 2]).issuperset([1])
        True
        """
        return not self._hamt.diff(HamtSet(other)._hamt).added

    def isdisjoint(self, other: Iterable[Any], /) -> bool:
        """Return whether no element is in the other, which may be any iterable. O(m).

        >>> HamtSet([1]).isdisjoint([2])
        True
        """
        for element in other:
            if element in self._hamt:
                return False
        return True

    def copy(self) -> HamtSet[T]:
        """Return this very set, which nothing can change. O(1).

        >>> one = HamtSet([1])
        >>> one.copy() is one
        True
        """
        return self

    __copy__ = copy

    def __contains__(self, element: object, /) -> bool:
        return element in self._hamt

    def __iter__(self) -> Iterator[T]:
        return iter(self._hamt)

    def __len__(self) -> int:
        return len(self._hamt)

    def __eq__(self, other: object, /) -> bool:
        return len(self) == len(other) and self.issubset(other) if _is_set(other) else NotImplemented

    def __le__(self, other: Set[Any], /) -> bool:
        return len(self) <= len(other) and self.issubset(other) if _is_set(other) else NotImplemented

    def __ge__(self, other: Set[Any], /) -> bool:
        return len(self) >= len(other) and self.issuperset(other) if _is_set(other) else NotImplemented

    def __lt__(self, other: Set[Any], /) -> bool:
        return len(self) < len(other) and self.issubset(other) if _is_set(other) else NotImplemented

    def __gt__(self, other: Set[Any], /) -> bool:
        return len(self) > len(other) and self.issuperset(other) if _is_set(other) else NotImplemented

    def __or__(self, other: Set[Any], /) -> HamtSet[Any]:
        return self.union(other) if _is_set(other) else NotImplemented

    def __and__(self, other: Set[Any], /) -> HamtSet[T]:
        return self.intersection(other) if _is_set(other) else NotImplemented

    def __sub__(self, other: Set[Any], /) -> HamtSet[T]:
        return self.difference(other) if _is_set(other) else NotImplemented

    def __xor__(self, other: Set[Any], /) -> HamtSet[Any]:
        return self.symmetric_difference(other) if _is_set(other) else NotImplemented

    def __ror__(self, other: Set[Any], /) -> HamtSet[Any]:
        return HamtSet(other).union(self) if _is_set(other) else NotImplemented

    def __rand__(self, other: Set[Any], /) -> HamtSet[Any]:
        return HamtSet(other).intersection(self) if _is_set(other) else NotImplemented

    def __rsub__(self, other: Set[Any], /) -> HamtSet[Any]:
        return HamtSet(other).difference(self) if _is_set(other) else NotImplemented

    def __rxor__(self, other: Set[Any], /) -> HamtSet[Any]:
        return HamtSet(other).symmetric_difference(self) if _is_set(other) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self))

    @recursive_repr("HamtSet({...})")
    def __repr__(self) -> str:
        return f"HamtSet({{{', '.join(map(repr, self))}}})" if self else "HamtSet()"

    def __reduce__(self) -> tuple[type[HamtSet[T]], tuple[list[T]]]:
        return HamtSet, (list(self),)

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)


def _is_set(other: object) -> TypeGuard[Set[Any]]:
    # An abstract base class takes several times as long to ask, and no longer works when the interpreter has ended.
    return type(other) in _SETS or isinstance(other, Set)


_SETS = (HamtSet, frozenset, set)


def _of(hamt: Hamt[Any, None]) -> HamtSet[Any]:
    elements: HamtSet[Any] = object.__new__(HamtSet)
    elements._hamt = hamt
    return elements
