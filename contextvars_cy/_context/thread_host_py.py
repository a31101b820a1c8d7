"""The thread host: every thread has a stack of our own Contexts, as in CPython's `context.c`; its ThreadState knows the
topmost one, and each Context the one below. `native_host_py` defines the same names for the other host.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, cast
from weakref import ref

from .._hamt.hamt_py import EMPTY
from .context_py import (
    Assignment,
    Context,
    ContextVar,
    Snapshot,
    ThreadState,
    Token,
    _states,
    _threads,
    checked_variable,
    refuse_to_leave,
    running_loop,
    thread_state,
    with_change,
)
from .messages import CONTEXT, DIFFERENT, ENTERED, LEAK, NOT_ENTERED
from .standard_library import NativeContextVar

R = TypeVar("R")

_IS_PYPY = sys.implementation.name == "pypy"

# When the interpreter ends, it would free these before it finalises the thread's values; the thread keeps them.
NativeContextVar[Any]("contextvars_cy threads").set((_threads, _states))


# ---- snapshots ----


def current_snapshot() -> Snapshot:
    try:
        return _threads.state()._current._snapshot  # type: ignore[no-any-return]
    except AttributeError:
        return thread_state()._current._snapshot


def snapshot_of(context: Context) -> Snapshot:
    return context._snapshot


def update(var: ContextVar[Any] | None, value: Any, made: Token[Any] | Assignment | None) -> Any:
    """Change the current snapshot and return the old value; store that and the place in `made`. On an error nothing has
    changed."""
    context = place_of_set()
    while True:
        snapshot = context._snapshot
        changed, old_value = with_change(snapshot, var, value)
        # Without a call between them, no signal handler or finaliser comes between the test and the store.
        if context._snapshot is snapshot:
            if made is not None:
                made._old_value, made._context = old_value, context
            context._snapshot = changed
            return old_value


def place_of_set(made: Token[Any] | Assignment | None = None) -> Any:
    """What a token made now remembers as its Context; an error if no variable may be set there."""
    context = current()
    # A token from elsewhere gets another error, for that.
    if context is thread_state()._base and (made is None or made._context is context):
        _refuse_event_loop()
    return context


def context_of_token(token: Token[Any]) -> Context:
    return cast("Context", token._context)


def _refuse_event_loop() -> None:
    """All tasks share the thread's base Context; a value that one sets there would silently leak to all."""
    if running_loop() is not None:
        raise RuntimeError(LEAK)


# ---- Contexts ----


def _with_snapshot(snapshot: Snapshot) -> Context:
    context: Context = object.__new__(Context)
    context._snapshot = snapshot
    context._before = context._home = None
    context._entry_permit = [None, None]
    return context


def new_context() -> Context:
    return _with_snapshot(EMPTY)


def copy_of(context: Context) -> Context:
    return _with_snapshot(context._snapshot)


def current_copy() -> Context:
    return _with_snapshot(current_snapshot())


def current() -> Context:
    return thread_state()._current


def native_of(context: Context) -> NoReturn:
    raise AttributeError("a Context of the thread host wraps no native one; set CONTEXTVARS_CY_HOST=native")


# The interpreter checks for signals, and for exceptions from other threads, when a function begins and after each call
# (before Python 3.10, and on PyPy, anywhere). So entering and leaving a Context make no call, and happen entirely or
# not at all; the branch to the error comes last, because Python 3.10 checks after a jump too.


def run_in(context: Context, callable: Callable[..., R], args: Any, kwargs: Any) -> R:
    state = thread_state()
    before = state._current
    _check_home(context, state)
    try:
        del context._entry_permit[1]
    except IndexError:
        raise RuntimeError(ENTERED.format(CONTEXT.format(id(context)))) from None
    context._before = before
    state._current = context
    try:
        return callable(*args, **kwargs)
    finally:
        del callable, args, kwargs
        if state._current is context and context._before is not None:
            state._current = context._before
            context._before = None
            context._entry_permit += (None,)
            del context, before
        else:
            raise _refusal_to_leave(context)


def enter_context(context: Context) -> None:
    state = thread_state()
    before = state._current
    _check_home(context, state)
    try:
        del context._entry_permit[1]
    except IndexError:
        raise RuntimeError(ENTERED.format(CONTEXT.format(id(context)))) from None
    context._before = before
    state._current = context


def leave_context(context: Context) -> None:
    state = thread_state()
    if state._current is context and context._before is not None:
        state._current = context._before
        context._before = None
        context._entry_permit += (None,)
    else:
        raise _refusal_to_leave(context)


def _check_home(context: Context, state: ThreadState) -> None:
    """Refuse another thread's base Context: that thread has it entered as long as it lives."""
    home = context._home and context._home()
    if home is not None and home is not state:
        raise RuntimeError(ENTERED.format(CONTEXT.format(id(context))))


def _refusal_to_leave(context: Context) -> RuntimeError:
    refusal = RuntimeError(NOT_ENTERED.format(CONTEXT.format(id(context))) if context._before is None else DIFFERENT)
    refuse_to_leave(context, refusal)
    return refusal


def contexts_of_threads() -> dict[int, Context] | None:
    """For `snapshot`: the current Contexts of this interpreter's threads, by the number that `get_ident` returns there;
    a thread without one has an empty one. None if only a thread itself can tell."""
    # PyPy finalises late what notices a thread's end: its state may be found under the number of a thread that began
    # meanwhile.
    return None if _IS_PYPY else {ident: state._current for ident, state in _states.copy().items()}


def prepare_thread(state: ThreadState) -> None:
    """Give the thread its base Context, which stays entered as long as the thread lives."""
    state._base = state._current = new_context()
    state._base._home = ref(state)


# ---- what a Context shows ----


def show_native_variables(shown: bool) -> None:
    """Does nothing: Contexts of this host have no native variables."""


shown_values = snapshot_of


def value_in(context: Context, key: Any) -> Any:
    var = checked_variable(key)
    return context._snapshot._find(var, var._folded, var._hash)
