"""What reprs are made of: a guard against objects that hold themselves, and values in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from operator import itemgetter
from threading import get_ident
from typing import Any, TypeVar

T = TypeVar("T")
# Characters of a value, and of all values.
VALUE_WIDTH = 40
LINE_WIDTH = 100


def recursive_repr(shown: str) -> Callable[[Callable[[T], str]], Callable[[T], str]]:
    """Make a `__repr__` that comes back to its object show this there. Like reprlib's, which is gone when the
    interpreter's last objects call it."""

    def decorate(function: Callable[[T], str]) -> Callable[[T], str]:
        running: set[tuple[int, int]] = set()

        @wraps(function)
        def guarded(self: T) -> str:
            key = id(self), get_ident()
            if key in running:
                return shown
            running.add(key)
            try:
                return function(self)
            finally:
                running.discard(key)

        return guarded

    return decorate


@recursive_repr("<contextvars_cy.Context {...}>")
def context_repr(context: Any) -> str:
    values = values_in_a_line([(variable.name, value) for variable, value in context.items()])
    return f"<contextvars_cy.Context {values} at {id(context):#x}>"


def values_in_a_line(values: Iterable[tuple[str, object]]) -> str:
    """`{user='ada', ...}`: by name, each value cut, and as many as a line holds."""
    ordered = sorted(values, key=itemgetter(0))
    return f"{{{in_a_line(map(_shown, ordered), len(ordered))}}}"


def in_a_line(texts: Iterable[str], count: int) -> str:
    """As many of these texts as a line holds, and how many there are beside them."""
    shown: list[str] = []
    length = 0
    for text in texts:
        if shown and length + len(text) > LINE_WIDTH:
            shown.append(f"and {count - len(shown)} more")
            break
        shown.append(text)
        length += len(text) + 2
    return ", ".join(shown)


def _shown(pair: tuple[str, object]) -> str:
    name, value = pair
    text = " ".join(repr(value).split())
    return f"{name}={text}" if len(text) <= VALUE_WIDTH else f"{name}={text[: VALUE_WIDTH - 3]}..."
