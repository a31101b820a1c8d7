"""Watching what happens to variables and Contexts, by the one hook that the engine has for it.

The engine calls `_tell` while there are watchers; without any it only tests a flag.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, NamedTuple, final

from .._backend import backend, host
from .._context.twin import Context, ContextVar, current_context, implement, tell_changes_to
from .._sealed import Sealed, published
from .._sentinels import ABSENT, MISSING

_Kind = Literal["set", "reset", "unset", "enter", "exit", "switch", "copy", "read", "refuse"]

# Whether the engine tells of a switch: from 3.14 on the interpreter reports switches to C code.
_SWITCHES_ARE_TOLD = backend == "cython" and host == "native" and sys.version_info >= (3, 14)


@published
class WatchEvent(NamedTuple):
    """The argument of a `watch` callback.

    >>> var = ContextVar("var")
    >>> with var.watch(lambda event: print(event.kind, event.old_value, event.value)):
    ...     token = var.set("red")
    ...     var.reset(token)
    set <Token.MISSING> red
    reset red <Token.MISSING>
    """

    kind: _Kind
    """One of `set`, `reset`, `unset`, `enter`, `exit`, `switch`, `copy`, `read` and `refuse`."""

    variable: ContextVar[Any] | None
    """The variable; None if the event is about a whole Context."""

    old_value: Any
    """The value before, or `MISSING`; for a `switch` the last one that the watcher saw in this thread."""

    value: Any
    """The value from now on, or `MISSING`; for a `copy` the new Context, for a `read` what it got, or `MISSING` if that
    was a LookupError, for a `refuse` the Context in which the token was made."""

    context: Context
    """The Context whose value changed, was read or was not reset, or that was entered, left, switched to or copied."""


# By variable; None has those for all. Replaced, never changed, so a reader sees a whole one.
_watchers: dict[ContextVar[Any] | None, tuple[Watcher, ...]] = {}
# Reentrant: a finaliser or a signal handler may watch or cancel while its thread does so.
_lock = threading.RLock()


class _PerThread(threading.local):
    """What a watcher knows of each thread."""

    # Whether the callback is running.
    busy = False
    # The variable's value, only if switches are told: else it would be kept for a task that is long gone.
    value: Any = MISSING


@published
@final
class Watcher(Sealed):
    """What `watch` and `ContextVar.watch` return: `cancel()`, or the end of a `with` block, stops it.

    >>> with watch(print) as watcher:
    ...     pass
    >>> watcher.cancel()
    """

    __slots__ = ("_callback", "_per_thread", "_is_cancelled", "_variable")

    def __init__(self, variable: ContextVar[Any] | None, callback: Callable[[WatchEvent], object]) -> None:
        if not callable(callback):
            raise TypeError(f"watch() takes a callable, not {callback!r}")
        _check_arity(callback)
        self._variable = variable
        self._callback = callback
        self._is_cancelled = False
        self._per_thread = _PerThread()
        if variable is not None:
            self._remember(current_context().get(variable, MISSING))
        _change(self, added=True)

    def _remember(self, value: Any) -> None:
        if _SWITCHES_ARE_TOLD:
            self._per_thread.value = value

    def cancel(self) -> None:
        """Stop calling the callback; a second `cancel` does nothing. O(m) for m watchers of the same."""
        # Stops the event that is being told.
        self._is_cancelled = True
        _change(self, added=False)
        # The old one keeps values alive.
        self._per_thread = _PerThread()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.cancel()

    def __repr__(self) -> str:
        watched = "everything" if self._variable is None else repr(self._variable)
        return f"<Watcher of {watched} by {self._callback!r}>"


def _check_arity(callback: Callable[[WatchEvent], object]) -> None:
    try:
        # Imported here, because it takes long.
        from inspect import signature

        found = signature(callback)
    except RecursionError:
        # If the stack has no room for this, it has none to stop watching later.
        raise
    except Exception:
        # Its signature cannot be read: an annotation may name what does not exist. And at the interpreter's end imports
        # fail.
        return
    try:
        found.bind(None)
    except TypeError as error:
        raise TypeError(f"watch() takes a callable of one argument, the WatchEvent: {callback!r}, {error}") from None


def _change(watcher: Watcher, added: bool) -> None:
    # Needs no more stack than making a watcher, so that each one made can be cancelled at the end of the stack.
    global _watchers
    variable = watcher._variable
    with _lock:
        while True:
            before = _watchers
            watchers = before.get(variable, ())
            if added:
                watchers += (watcher,)
            elif watcher in watchers:
                index = watchers.index(watcher)
                watchers = watchers[:index] + watchers[index + 1 :]
            changed = {**before, variable: watchers}
            if not watchers:
                del changed[variable]
            # No call separates the test and the store, so no signal handler or finaliser can run between them.
            if _watchers is before:
                _watchers = changed
                break
        while True:
            current = _watchers
            tell_changes_to(_tell if current else None)
            if _watchers is current:
                break


def _forget_other_threads() -> None:
    """In a child process: the thread that held the lock is gone."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)


def _end() -> None:
    """The modules are about to be cleared; and the interpreter keeps this one, with its watchers, for a fork."""
    global _watchers
    _watchers = {}
    tell_changes_to(None)


atexit.register(_end)
implement("watch", Watcher)


@published
def watch(callback: Callable[[WatchEvent], object], /) -> Watcher:
    """Call `callback(event)` after each change of any variable, and whatever is done to any Context. O(1).

    Returns a `Watcher`; its `cancel()` or the end of its `with` block stops it. The kinds of events:

    - `set`, `reset` and `unset`, including those by `assign` and its `undo`, and by a `default_factory`;
    - `enter` and `exit`, by `Context.run`, `with context:` and `ThreadState`, without a variable;
    - `switch`: the interpreter switched to another Context, as it does for an event loop at each step of a task. Only
      on CPython from 3.14 on, with the compiled backend on the native host;
    - `copy`, by `copy_context` and `Context.copy`, also those that this package makes, such as `bind`; not those that
      an event loop makes of native Contexts;
    - `read`, by a `get` that finds the variable unset;
    - `refuse`, by a `reset` or `try_reset` of a token that was made in another Context.

    The callback runs in the thread's current Context, for `exit` after the Context was left. Its own changes go only to
    other watchers. Its errors go to `sys.unraisablehook`.

    >>> colour = ContextVar("colour")
    >>> with watch(lambda event: print(event.kind, event.variable is colour)):
    ...     copy_context().run(colour.set, "red") is None
    copy False
    enter False
    set True
    exit False
    False
    """
    return Watcher(None, callback)


def _tell(kind: Any, variable: ContextVar[Any] | None, old: Any, new: Any) -> None:
    """For the engine: runs after the change, which no error here may undo. Without a variable, old and new are dicts of
    values; for `enter`, `exit` and `switch`, the Contexts left and entered, for `copy` the old and the new one, None
    for the current one."""
    try:
        if kind == "copy":
            _call_all(WatchEvent(kind, None, MISSING, new, current_context() if old is None else old))
        elif kind in ("read", "refuse"):
            # What watches one variable follows its changes.
            _call_all(WatchEvent(kind, variable, MISSING, MISSING if new is ABSENT else new, current_context()))
        elif kind in ("enter", "exit", "switch"):
            _tell_of_context(kind, old, current_context() if new is None else new)
        elif variable is None:
            context = current_context()
            for changed, value in new.items():
                _tell_of_value(kind, changed, old[changed], value, context)
        else:
            _tell_of_value(kind, variable, old, new, current_context())
    except BaseException as error:
        Failure().error = error


def _tell_of_context(kind: _Kind, left: Context | None, entered: Context) -> None:
    context = left if kind == "exit" and left is not None else entered
    _call_all(WatchEvent(kind, None, MISSING, MISSING, context))
    for variable in _watchers:
        if variable is None:
            continue
        value = entered.get(variable, MISSING)
        for watcher in _watchers.get(variable, ()):
            # At a switch the interpreter does not tell which Context was left.
            old_value = watcher._per_thread.value if left is None else left.get(variable, MISSING)
            watcher._remember(value)
            if old_value is not value:
                _call(watcher, WatchEvent(kind, variable, old_value, value, context))


def _tell_of_value(kind: _Kind, variable: ContextVar[Any], old: Any, new: Any, context: Context) -> None:
    event = WatchEvent(kind, variable, MISSING if old is ABSENT else old, MISSING if new is ABSENT else new, context)
    for watcher in _watchers.get(variable, ()):
        watcher._remember(event.value)
        _call(watcher, event)
    _call_all(event)


def _call_all(event: WatchEvent) -> None:
    for watcher in _watchers.get(None, ()):
        _call(watcher, event)


def _call(watcher: Watcher, event: WatchEvent) -> None:
    thread = watcher._per_thread
    if thread.busy or watcher._is_cancelled:
        return
    thread.busy = True
    try:
        watcher._callback(event)
    except BaseException as error:
        Failure().error = error
    finally:
        thread.busy = False


class Failure:
    """An error without a caller to catch it: the interpreter passes what a `__del__` raises to `sys.unraisablehook`.

    At once on CPython; on PyPy at the next collection.
    """

    # Set without a call of a Python function, for which the stack may have no room.
    error: BaseException

    def __del__(self) -> None:
        error = self.error
        # The traceback keeps this frame.
        del self.error
        try:
            raise error
        finally:
            del error
