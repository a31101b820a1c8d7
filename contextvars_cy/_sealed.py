"""Makes the reference twin's types like C types: not a base for others, and pickled only if they define how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

C = TypeVar("C", bound=Callable[..., Any])
E = TypeVar("E", bound=BaseException)

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


def made_elsewhere(name: str, hint: str) -> Any:
    """The `__new__` of a class that nobody calls. Type checkers see one whose argument no value can be."""

    def __new__(*arguments: NoReturn, **named: NoReturn) -> NoReturn:
        raise TypeError(f"cannot create 'contextvars_cy.{name}' instances; {hint}")

    return __new__


WAYS_OUT = {
    "ContextVar": (
        "; register it in a module that both sides import, and it travels by its name: "
        'contextvars_cy.travel.register(variable, "its-name")'
    ),
    "Context": "; contextvars_cy.travel.capture(context) has its registered values in a Capsule, which pickles",
    "Token": "; it serves in its process alone. contextvars_cy.travel.capture() has values in a Capsule, which pickles",
}


def refuse_to_pickle(name: str) -> NoReturn:
    raise TypeError(f"cannot pickle 'contextvars_cy.{name}' object{WAYS_OUT.get(name, '')}")


def refuse_unregistered(var: object) -> NoReturn:
    refuse_to_pickle("ContextVar")


def noted(error: E, note: str) -> E:
    """The error with a hint as a note, on Python 3.11 and later: `str(error)` stays CPython's."""
    if hasattr(error, "add_note"):
        error.add_note(note)
    return error
