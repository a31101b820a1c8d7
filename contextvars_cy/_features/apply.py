"""Bringing the values of another Context into the current one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._backend import host
from .._context.standard_library import NativeContext
from .._context.twin import Assignment, Context, ContextVar, assign
from .._sealed import published


@published
def apply(context: Context, /, only: Iterable[ContextVar[Any]] | None = None) -> Assignment:
    """Set every variable of the other Context in the current one, to its value there. O(m log n) for m of n.

    A task or thread often runs in a copy of the Context, and what it sets there is lost (Starlette issue 1081, FastAPI
    issue 953). Keep that copy, and this brings its values back: all, or none on an error.

    `only` names the variables to bring; the other Context may lack some. Without it this also brings the variables that
    the other Context merely inherited; `Context.diff` tells which it changed. A variable that the other Context lacks
    keeps its value here.

    Returns an `Assignment`, which undoes all at once, by `undo` or at the end of a `with` block. TypeError if the first
    is not a Context, or `only` names something other than a ContextVar.

    >>> user, tenant = ContextVar("user", default="nobody"), ContextVar("tenant", default="-")
    >>> child = copy_context()
    >>> _ = child.run(assign, {user: "ada", tenant: "acme"})
    >>> with apply(child, only=[user]):
    ...     user.get(), tenant.get()
    ('ada', '-')
    >>> user.get()
    'nobody'
    """
    if type(context) is not Context:
        hint = ""
        if host == "native" and type(context) is NativeContext:
            hint = "; of the standard library's, give it context.run(contextvars_cy.current_context)"
        raise TypeError(f"apply() takes a Context of contextvars_cy, not {context!r}{hint}")
    return assign(values_of(context, only, "apply"))


def values_of(context: Context, only: Iterable[ContextVar[Any]] | None, caller: str) -> dict[ContextVar[Any], Any]:
    """The Context's values of all variables, or of those in `only`; without native ones, which it shows while ours are
    installed."""
    if only is None:
        return {var: value for var, value in context.items() if type(var) is ContextVar}
    check_iterable(only, "only", caller)
    # A copy, because another thread, or `only` itself, may set variables in it.
    context = context.copy()
    return {var: context[var] for var in only if var in context and type(var) is ContextVar}


def check_iterable(given: object, argument: str, caller: str) -> None:
    if isinstance(given, str) or not hasattr(type(given), "__iter__"):
        hint = f"write {argument}=[variable]"
        raise TypeError(f"{caller}() takes an iterable of variables as {argument}, not {given!r}: {hint}")


def variables_in(given: Iterable[ContextVar[Any]], argument: str, caller: str) -> tuple[ContextVar[Any], ...]:
    check_iterable(given, argument, caller)
    variables = tuple(given)
    for var in variables:
        if type(var) is not ContextVar:
            raise TypeError(f"a ContextVar key was expected, got {var!r}")
    return variables
