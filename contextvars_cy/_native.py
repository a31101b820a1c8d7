"""The interpreter's own contexts, as far as Python code can reach them: for the pure backend on the native host.

Python has words for running a function in a native Context, but none for three things that this module finds ways to:
learning in which Context a native token was made, entering a Context, and leaving it. And PyPy's own words for setting
a variable and for running a function are not quite as good as CPython's.
"""

from __future__ import annotations

import contextvars
import functools
import gc
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

# What a native token says of a variable that had no value. Some of CPython's subinterpreters lack `Token.MISSING`.
MISSING = contextvars.Context().run(contextvars.ContextVar[None]("first").set, None).old_value

if TYPE_CHECKING or sys.implementation.name != "pypy":

    def context_of(token: contextvars.Token[Any]) -> contextvars.Context:
        """The Context that the token was made in; a token keeps no public reference, but shows it to the collector."""
        for referent in gc.get_referents(token):
            if type(referent) is contextvars.Context:
                return referent
        raise RuntimeError("this interpreter's tokens do not show their Context; please report it")

    # The methods themselves: a function around `run` would stand in every traceback.
    run = contextvars.Context.run
    set_value = contextvars.ContextVar.set

    def enter(context: contextvars.Context) -> None:
        enter, _, refusal = _enter_and_leave()
        _call(enter, context, refusal)

    def leave(context: contextvars.Context) -> None:
        _, leave, refusal = _enter_and_leave()
        try:
            _call(leave, context, refusal)
        except MemoryError:
            # Once more, since a Context that is not left stays the current one.
            _call(leave, context, refusal)

    def _call(function: Callable[..., Any], context: contextvars.Context, refusal: type[Exception]) -> None:
        try:
            # Called by an assignment: after a call of its own the interpreter looks for signals, and one that was
            # raised there would leave the Context entered, and nobody to know.
            (_,) = map(function, (context,))
        except refusal as error:
            # A Context is never refused but for a lack of memory.
            raise MemoryError from error

    @functools.cache
    def _enter_and_leave() -> tuple[Callable[..., Any], Callable[..., Any], type[Exception]]:
        # Imported here because few programs enter a Context with `with`, and some builds of Python lack ctypes. Both
        # functions at once, because a Context may be left when the interpreter ends and imports nothing more.
        try:
            import ctypes
        except ImportError as error:
            raise RuntimeError(
                "entering a Context with `with` needs ctypes on the pure backend and native host, and this Python has "
                "none; use Context.run, or the compiled backend, or CONTEXTVARS_CY_HOST=thread"
            ) from error
        # A prototype of our own: ctypes.pythonapi's functions belong to everybody. It raises what the function set.
        prototype = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object)
        enter, leave = (prototype((name, ctypes.pythonapi)) for name in ("PyContext_Enter", "PyContext_Exit"))
        return enter, leave, ctypes.ArgumentError

else:
    import threading

    from __pypy__ import get_contextvar_context, set_contextvar_context

    # Each thread's Context for what is set while it runs in none.
    _first = threading.local()

    def context_of(token: contextvars.Token[Any]) -> contextvars.Context:
        return token._context

    def enter(context: contextvars.Context) -> None:
        # One step, so that of two threads one enters. PyPy's own `run` looks at the flag alone.
        before = [get_contextvar_context()]
        if context._is_entered or context.__dict__.setdefault("_before_contextvars_cy", before) is not before:
            raise RuntimeError(f"cannot enter context: {context!r} is already entered")
        context._is_entered = True
        set_contextvar_context(context)

    def leave(context: contextvars.Context) -> None:
        if not context._is_entered:
            raise RuntimeError(f"cannot exit context: {context!r} has not been entered")
        if get_contextvar_context() is not context:
            raise RuntimeError("cannot exit context: thread state references a different context object")
        set_contextvar_context(*context._before_contextvars_cy)
        context._is_entered = False
        # Last, because from here on another thread may enter.
        del context._before_contextvars_cy

    def abandon(context: contextvars.Context) -> bool:
        """Leave a Context that is not the current one any more, if it is entered still."""
        is_entered = "_before_contextvars_cy" in context.__dict__
        if is_entered:
            context._is_entered = False
            del context._before_contextvars_cy
        return is_entered

    def run(context: contextvars.Context, callable: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        # PyPy's own takes some keywords for its parameters.
        enter(context)
        try:
            return callable(*args, **kwargs)
        finally:
            leave(context)
            # As in `Context.run`: a kept exception keeps this frame.
            del context, callable, args, kwargs

    def set_value(variable: contextvars.ContextVar[Any], value: object) -> contextvars.Token[Any]:
        # PyPy's own is Python code that forgets what a signal handler sets in the middle of it.
        context = get_contextvar_context()
        if context is None:
            # One step, so that of two, made here and by a finaliser in between, the first stays.
            context = _first.__dict__.setdefault("context", contextvars.Context())
            set_contextvar_context(context)
        while True:
            data = context._data
            changed = data.set(variable, value)
            if context._data is data:
                context._data = changed
                return contextvars.Token(context, variable, data.get(variable, MISSING))
