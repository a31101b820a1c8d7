"""What the views of both twins' maps do beside a set's own methods, in the time of the smaller of the two."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any


def common(view: Any, other: Any) -> Any:
    """The elements of both, as a builtin set."""
    if not isinstance(other, Iterable):
        return NotImplemented
    smaller, larger = by_size(view, other)
    return {element for element in smaller if element in larger}


def is_disjoint(view: Any, other: Iterable[Any]) -> bool:
    smaller, larger = by_size(view, other)
    return not any(element in larger for element in smaller)


def symmetric_difference(view: Any, other: Any) -> Any:
    # Set's own method unites two results, and the second has the other's type.
    return set(view) ^ set(other) if isinstance(other, Iterable) else NotImplemented


def are_within(items: Any, other: Any) -> bool:
    """Whether one map's items are all among another map's."""
    if len(items) > len(other):
        return False
    if 2 * len(items) < len(other):
        return all(item in other for item in items)
    _, removed, changed = items.mapping.diff(other.mapping)
    return not removed and not changed


def by_size(view: Any, other: Any) -> tuple[Any, Any]:
    """The smaller one first; an iterable that is no set cannot be asked for an element."""
    return (view, other) if isinstance(other, Set) and len(view) < len(other) else (other, view)
