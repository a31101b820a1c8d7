"""The implementations that programs run on: our two twins, and the oracle, this interpreter's own `contextvars`.

All have the names of `contextvars`, and the few of ours that the standard library lacks. For those the oracle makes do
with what the interpreter offers.
"""

from __future__ import annotations

import contextvars
import importlib
import sys
from types import TracebackType
from typing import Any

from contextvars_cy import _native, host
from contextvars_cy._backend import obstacle


class Twin:
    def __init__(self, name: str, module: str) -> None:
        self.name = name
        self.module = importlib.import_module(module)
        self.ContextVar: Any = self.module.ContextVar
        self.Context: Any = self.module.Context
        self.Token: Any = self.module.Token
        self.copy_context: Any = self.module.copy_context
        self.current_context: Any = self.module.current_context

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


class Entered:
    """The standard library has no `with context:`, but C code can enter a Context."""

    def __init__(self, context: contextvars.Context) -> None:
        self.context = context

    def __enter__(self) -> contextvars.Context:
        _native.enter(self.context)
        return self.context

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None):
        _native.leave(self.context)


class Undoing:
    """`with token:` as Python 3.14 defines it, for those before."""

    def __init__(self, token: contextvars.Token[Any]) -> None:
        self.token = token

    def __enter__(self) -> contextvars.Token[Any]:
        return self.token

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None):
        self.token.var.reset(self.token)


class StandardLibrary:
    name = "stdlib"
    ContextVar = contextvars.ContextVar
    Context = contextvars.Context
    Token = contextvars.Token
    copy_context = staticmethod(contextvars.copy_context)
    enter = staticmethod(_native.enter)
    leave = staticmethod(_native.leave)
    entered = Entered

    def __init__(self) -> None:
        # A variable that no program sees: it is unset again before anybody looks.
        self.probe: contextvars.ContextVar[None] = contextvars.ContextVar("probe")

    def current_context(self) -> contextvars.Context:
        token = self.probe.set(None)
        context = _native.context_of(token)
        self.probe.reset(token)
        return context

    def undoing(self, token: contextvars.Token[Any]) -> Any:
        return token if sys.version_info >= (3, 14) else Undoing(token)

    def native(self, context: contextvars.Context) -> contextvars.Context:
        return context


Implementation = Any  # Twin | StandardLibrary, which programs use as they would use a module


def implementations() -> tuple[list[Implementation], str]:
    """Those that run here, the oracle last, and why one of them is left out, or an empty text."""
    found = [Twin("pure", "contextvars_cy._context_py")]
    why_not, _ = obstacle()
    if not why_not:
        found.append(Twin("cython", "contextvars_cy._context_cy"))
    return [*found, StandardLibrary()], why_not
