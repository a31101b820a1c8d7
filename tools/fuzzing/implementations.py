"""The implementations that programs run on: our two twins, and the oracle, this interpreter's own `contextvars`.

All have the names of `contextvars`, and the few of ours that the standard library lacks. For those the oracle makes do
with what the interpreter offers.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import importlib
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from contextvars_cy import host
from contextvars_cy._backend import obstacle
from contextvars_cy._context import interpreter


class Twin:
    def __init__(self, name: str, module: str) -> None:
        self.name = name
        self.module = importlib.import_module(module)
        self.ContextVar: Any = self.module.ContextVar
        self.Context: Any = self.module.Context
        self.Token: Any = self.module.Token
        self.copy_context: Any = self.module.copy_context
        self.current_context: Any = self.module.current_context
        self.assign: Any = self.module.assign
        self.reset: Any = self.ContextVar.reset
        self.unset: Any = self.ContextVar.unset
        self.is_set: Any = self.ContextVar.is_set
        self.try_reset: Any = self.ContextVar.try_reset

    def enter(self, context: Any) -> None:
        self.module.thread_state().enter(context)

    def leave(self, context: Any) -> None:
        self.module.thread_state().exit(context)

    def entered(self, context: Any) -> Any:
        """What `with` enters and leaves the Context by."""
        return context

    def undoing(self, token: Any) -> Any:
        """What `with` undoes the set by."""
        return token

    def native(self, context: Any) -> contextvars.Context:
        """For what insists on the interpreter's own type."""
        return context.native if host == "native" else contextvars.Context()

    def difference(self, one: Any, other: Any) -> tuple[Any, Any, Any]:
        found = one.diff(other)
        return found.added, found.removed, found.changed

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Makes the engine report each change to a watcher that ignores it."""
        self.module.tell_changes_to(lambda kind, var, old_value, value: None)
        try:
            yield
        finally:
            self.module.tell_changes_to(None)


@contextlib.contextmanager
def entered(context: contextvars.Context) -> Iterator[contextvars.Context]:
    """The standard library has no `with context:`, but C code can enter a Context."""
    interpreter.enter(context)
    try:
        yield context
    finally:
        interpreter.leave(context)


@contextlib.contextmanager
def undoing(token: contextvars.Token[Any]) -> Iterator[contextvars.Token[Any]]:
    """`with token:` as Python 3.14 defines it, for those before; and like `StandardLibrary.reset`."""
    try:
        yield token
    finally:
        with unless_already_unset(token):
            if sys.version_info >= (3, 14):
                token.__exit__(None, None, None)
            else:
                token.var.reset(token)


@contextlib.contextmanager
def unless_already_unset(token: contextvars.Token[Any]) -> Iterator[None]:
    """The standard library never takes away a value that is gone already, since nothing but that token can."""
    try:
        yield
    except LookupError as error:
        if error.args != (token.var,):
            raise


class Assigned:
    """What `assign` returns, by as many tokens."""

    def __init__(self, library: StandardLibrary, values: Any) -> None:
        values = dict(values)
        for key in values:
            if type(key) is not contextvars.ContextVar:
                raise TypeError(f"a ContextVar key was expected, got {key!r}")
        self.library, self.context = library, library.current_context()
        self.tokens = [var.set(value) for var, value in values.items()]
        self.undone = False

    def undo(self) -> None:
        if self.undone:
            raise RuntimeError(f"{self!r} has already been undone")
        if self.library.current_context() is not self.context:
            raise ValueError(f"{self!r} was made in a different Context")
        self.undone = True
        for token in reversed(self.tokens):
            self.library.reset(token.var, token)

    def __enter__(self) -> Assigned:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        names = ", ".join(sorted(token.var.name for token in self.tokens))
        return f"<Assignment{' undone' if self.undone else ''} of {{{names}}} at {id(self):#x}>"


class StandardLibrary:
    name = "stdlib"
    ContextVar = contextvars.ContextVar
    Context = contextvars.Context
    Token = contextvars.Token
    copy_context = staticmethod(contextvars.copy_context)
    enter = staticmethod(interpreter.enter)
    leave = staticmethod(interpreter.leave)
    entered = staticmethod(entered)
    undoing = staticmethod(undoing)
    watched = contextlib.nullcontext

    def __init__(self) -> None:
        # A variable that no program sees: it is unset again before any program looks.
        self.probe: contextvars.ContextVar[None] = contextvars.ContextVar("probe")

    def current_context(self) -> contextvars.Context:
        token = self.probe.set(None)
        context = interpreter.context_of(token)
        self.probe.reset(token)
        return context

    def native(self, context: contextvars.Context) -> contextvars.Context:
        return context

    def assign(self, values: Any) -> Assigned:
        return Assigned(self, values)

    def unset(self, var: contextvars.ContextVar[Any]) -> contextvars.Token[Any]:
        token = var.set(None)
        forged = var.set(None)
        # Behind the Context and the variable it has the old value, None now. Without one, reset takes the value away.
        address = id(forged) + object.__basicsize__ + 2 * ctypes.sizeof(ctypes.c_void_p)
        ctypes.c_void_p.from_address(address).value = None
        var.reset(forged)
        return token

    def is_set(self, var: contextvars.ContextVar[Any]) -> bool:
        return var in contextvars.copy_context()

    def reset(self, var: contextvars.ContextVar[Any], token: contextvars.Token[Any]) -> None:
        with unless_already_unset(token):
            var.reset(token)

    def try_reset(self, var: contextvars.ContextVar[Any], token: contextvars.Token[Any]) -> bool:
        try:
            self.reset(var, token)
        except ValueError:
            if token.var is not var:
                raise
            return False
        return True

    def difference(self, one: contextvars.Context, other: contextvars.Context) -> tuple[Any, Any, Any]:
        added = {var: other[var] for var in other if var not in one}
        removed = {var: one[var] for var in one if var not in other}
        both = {var: (one[var], other[var]) for var in one if var in other}
        return (
            added,
            removed,
            {var: pair for var, pair in both.items() if pair[0] is not pair[1] and pair[0] != pair[1]},
        )


Implementation = Any  # Twin | StandardLibrary, which programs use as they would use a module


def implementations() -> tuple[list[Implementation], str]:
    """Those that run here, the oracle last, and why one is left out, or an empty text."""
    found = [Twin("pure", "contextvars_cy._context.context_py")]
    why_not, _ = obstacle()
    if not why_not:
        found.append(Twin("cython", "contextvars_cy._context.context_cy"))
    return [*found, StandardLibrary()], why_not
