"""Makes the reference twin's types like C types: not a base for others, and pickled only if they define how."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import get_ident
from typing import Any, NoReturn, TypeVar

C = TypeVar("C", bound=Callable[..., Any])
E = TypeVar("E", bound=BaseException)
T = TypeVar("T")

# Where users find the public names: a copy of the package may have another name.
PACKAGE = __name__.rpartition(".")[0]


def published(thing: C) -> C:
    """A class or function, under the name that users import it by."""
    thing.__module__ = PACKAGE
    return thing


class Sealed:
    """The base of every public class."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for base in cls.__bases__:
            if issubclass(base, Sealed) and base is not Sealed:
                raise TypeError(f"type 'contextvars_cy.{base.__name__}' is not an acceptable base type")

    def __reduce__(self) -> Any:
        refuse_to_pickle(type(self).__name__)


def refuse_to_pickle(name: str) -> NoReturn:
    error = TypeError(f"cannot pickle 'contextvars_cy.{name}' object")
    if name in ("Context", "ContextVar", "Token"):
        raise noted(error, "It stays in its process. Send the values, by names of your own, and set them there.")
    raise error


def noted(error: E, note: str) -> E:
    """The error with a hint as a note, on Python 3.11 and later: `str(error)` stays CPython's."""
    if hasattr(error, "add_note"):
        error.add_note(note)
    return error


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
