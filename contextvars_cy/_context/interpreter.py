"""The interpreter's own contexts, as far as Python code can reach them: for the pure backend on the native host.

Python can run a function in a native Context, but has no call for three things that this module does: learning in which
Context a native token was made, entering a Context, and leaving it. CPython's call to read a variable is unsafe when a
thread ends; and PyPy's calls to set one and to run a function fall short of CPython's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from gc import get_referents
from itertools import compress
from operator import is_, methodcaller
from typing import TYPE_CHECKING, Any, TypeVar

from .collector import while_none_is_collected
from .standard_library import NativeContext, NativeContextVar, NativeToken, copy_native_context

T = TypeVar("T")

# Whether every asyncio task takes only native Contexts; before, only eagerly started tasks in C do.
TASKS_ARE_NATIVE = sys.version_info >= (3, 15)

if TYPE_CHECKING or sys.implementation.name != "pypy":

    def context_of(token: NativeToken[Any]) -> NativeContext:
        """The Context that made the token; a token has no public reference to it, but shows it to the collector."""
        for referent in get_referents(token):
            if type(referent) is NativeContext:
                return referent
        raise RuntimeError("this interpreter's tokens do not show their Context; please report it")

    def reader(variable: NativeContextVar[T], default: T) -> Callable[[], T]:
        """A function that reads the variable in the current Context.

        `variable.get` trusts what CPython remembers of the Context that it last read. While a thread ends, that is
        freed memory: the thread's values are finalised after its Context is gone, and setting a variable then makes
        another Context, which CPython mistakes for the first. Reading a copy uses no such memory.
        """

        def read() -> T:
            return copy_current().get(variable, default)

        return read

    # The method itself: a wrapper would show in every traceback.
    run = NativeContext.run
    if sys.version_info >= (3, 12):
        copy, copy_current, _extend = NativeContext.copy, copy_native_context, list.extend
    else:

        def _extend(values: list[Any], more: Iterable[Any]) -> None:
            while_none_is_collected(values.extend, more)

        def copy(context: NativeContext) -> NativeContext:
            return while_none_is_collected(context.copy)

        def copy_current() -> NativeContext:
            return while_none_is_collected(copy_native_context)

    def exchanger(variable: NativeContextVar[T], default: T) -> Callable[[list[NativeToken[T]], T, T], None]:
        """A function that sets the variable in the current Context if it still has the expected value.

        It adds the token to the list, or nothing. It is one step in C, so that no signal handler, finaliser or other
        thread can run between the test and the set.
        """
        # As in `reader`.
        get, copies, set_value = methodcaller("get", variable, default), (copy_native_context,), variable.set

        def exchange(tokens: list[NativeToken[T]], expected: T, value: T) -> None:
            is_there = map(is_, (expected,), map(get, map(_CALLED, copies)))
            _extend(tokens, map(set_value, compress((value,), is_there)))

        return exchange

    _CALLED: Any = methodcaller("__call__")

    # Imported now: it may first be needed in a finaliser, in the middle of this import, or when the interpreter ends
    # and imports fail.
    try:
        import ctypes
    except ImportError as error:
        _no_ctypes: ImportError | None = error
    else:
        _no_ctypes = None
        # Our own prototype, because all code shares ctypes.pythonapi's functions. It raises the function's error.
        _prototype = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object)
        _enter = _prototype(("PyContext_Enter", ctypes.pythonapi))
        _leave = _prototype(("PyContext_Exit", ctypes.pythonapi))
        _Refusal = ctypes.ArgumentError
        # A class's memory up to its flags, the 22nd word, or the 24th without the GIL.
        _Class = ctypes.c_size_t * 24

    def replace_init(cls: Any, init: Callable[..., None]) -> bool:
        """Set the `__init__` of a class, even of a C class, which Python allows while a flag is not set. Without
        ctypes, do nothing and return False."""
        if _no_ctypes is not None:
            return False
        words = _Class.from_address(id(cls))
        flags = list(words).index(cls.__flags__)
        was_immutable = words[flags] & _IMMUTABLE
        words[flags] &= ~_IMMUTABLE
        try:
            cls.__init__ = init
        finally:
            # The other flags may have changed.
            words[flags] |= was_immutable
        return True

    # Py_TPFLAGS_IMMUTABLETYPE.
    _IMMUTABLE = 1 << 8

    def enter(context: NativeContext) -> None:
        if _no_ctypes is not None:
            raise RuntimeError(
                "entering a Context with `with` needs ctypes on the pure backend and native host, and this Python has "
                "none; use Context.run, or the compiled backend, or CONTEXTVARS_CY_HOST=thread"
            ) from _no_ctypes
        _call(_enter, context)

    def leave(context: NativeContext) -> None:
        try:
            _call(_leave, context)
        except (MemoryError, RecursionError):
            # Try again, since a Context that is not left stays current.
            _call(_leave, context)

    def _call(function: Callable[..., Any], context: NativeContext) -> None:
        try:
            # `map` makes the call within an assignment: after a plain call the interpreter checks for signals, and an
            # exception there would leave the Context entered, unnoticed.
            (_,) = map(function, (context,))
        except _Refusal as error:
            # This fails only for lack of memory, or of room on the stack before Python 3.12.
            raise (RecursionError if "RecursionError" in str(error) else MemoryError) from error

else:
    from threading import local

    from __pypy__ import get_contextvar_context, set_contextvar_context

    def reader(variable: NativeContextVar[T], default: T) -> Callable[[], T]:
        return partial(variable.get, default)

    # Each thread's Context for variables set while it runs in none.
    _first = local()

    def context_of(token: NativeToken[Any]) -> NativeContext:
        return token._context

    def enter(context: NativeContext) -> None:
        # One step, so that only one of two threads enters. PyPy's own `run` tests only the flag.
        before = [get_contextvar_context()]
        if context._is_entered or context.__dict__.setdefault("_before_contextvars_cy", before) is not before:
            raise RuntimeError(f"cannot enter context: {context!r} is already entered")
        context._is_entered = True
        set_contextvar_context(context)

    def leave(context: NativeContext) -> None:
        if not context._is_entered:
            raise RuntimeError(f"cannot exit context: {context!r} has not been entered")
        if get_contextvar_context() is not context:
            raise RuntimeError("cannot exit context: thread state references a different context object")
        set_contextvar_context(*context._before_contextvars_cy)
        context._is_entered = False
        # Last, because from here on another thread may enter.
        del context._before_contextvars_cy

    def abandon(context: NativeContext) -> bool:
        """Leave a Context that is no longer the current one, if it is still entered."""
        is_entered = "_before_contextvars_cy" in context.__dict__
        if is_entered:
            context._is_entered = False
            del context._before_contextvars_cy
        return is_entered

    def run(context: NativeContext, callable: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        # PyPy's own mistakes some keywords for its parameters.
        enter(context)
        try:
            return callable(*args, **kwargs)
        finally:
            leave(context)
            # As in `Context.run`: a kept exception keeps this frame.
            del context, callable, args, kwargs

    def replace_init(cls: Any, init: Callable[..., None]) -> bool:
        cls.__init__ = init
        return True

    copy, copy_current = NativeContext.copy, copy_native_context

    def exchanger(variable: NativeContextVar[T], default: T) -> Callable[[list[NativeToken[T]], T, T], None]:
        def exchange(tokens: list[NativeToken[T]], expected: T, value: T) -> None:
            context = get_contextvar_context()
            if context is None:
                # One step, so that if a finaliser in between makes another, the first stays.
                context = _first.__dict__.setdefault("context", NativeContext())
                set_contextvar_context(context)
            data = context._data
            if data.get(variable, default) is not expected:
                return
            changed = data.set(variable, value)
            # PyPy's own set is Python code, and loses what a signal handler sets in the middle of it.
            if context._data is data:
                context._data = changed
                tokens.append(NativeToken(context, variable, data.get(variable, NativeToken.MISSING)))

        return exchange
