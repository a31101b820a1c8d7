"""What both twins add to CPython's error messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from .standard_library import NativeContext, NativeContextVar, NativeToken

F = TypeVar("F", bound=Callable[..., Any])

ASSIGNS = "assign() takes one mapping from ContextVar to value, as in assign({variable: value}), or pairs of both"
ELSEWHERE = (
    "A token is for the Context where it was made. In another one variable.try_reset(token) returns False and changes "
    "nothing."
)
# CPython's own words, by which the native host knows its refusals.
ENTERED = "cannot enter context: {} is already entered"
NOT_ENTERED = "cannot exit context: {} has not been entered"
# As CPython's: an error shows no values.
CONTEXT = "<contextvars_cy.Context object at {:#x}>"
DIFFERENT = "cannot exit context: thread state references a different context object"
LEAK = (
    "a context variable was set under a running asyncio event loop, in the thread's base Context: on the thread host "
    "every task would see it. Use the native host, which follows event loops (CONTEXTVARS_CY_HOST=native), or set it "
    "in a Context of your own (Context.run)"
)
UNSET = "Set the variable first, ask variable.get(default), or create it with a default or a default_factory."


def whose(thing: object) -> str:
    """A hint about an object of the right name from the wrong module."""
    kind = type(thing)
    if kind not in (NativeContext, NativeContextVar, NativeToken):
        return ""
    return (
        f"; that is a {kind.__name__} of the standard library: import ContextVar and copy_context from contextvars_cy, "
        "or call contextvars_cy.install() before they are imported"
    )


def has_pairs(values: object) -> bool:
    """For `assign`: whether this may be a mapping, or an iterable of pairs."""
    return not isinstance(values, str) and (hasattr(type(values), "keys") or hasattr(type(values), "__iter__"))


def shown_as(shape: Callable[..., None]) -> Callable[[F], F]:
    """Make `inspect.signature` show this shape: the function's other parameters only serve error messages."""

    def mark(function: F) -> F:
        function.__wrapped__ = shape  # type: ignore[attr-defined]
        return function

    return mark


def refuse_arguments(given: int, unknown: dict[str, object]) -> NoReturn:
    """For ContextVar(), which has one positional argument and two names."""
    if given != 1:
        hint = "; a default is named: default=" if given == 2 else ""
        raise TypeError(f"ContextVar() takes exactly 1 positional argument ({given} given){hint}")
    name = next(iter(unknown))
    raise TypeError(f"ContextVar() got an unexpected keyword argument {name!r}; it has default and default_factory")
