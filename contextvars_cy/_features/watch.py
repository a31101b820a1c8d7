"""Being told of what happens to variables and Contexts, on the one hook that the engine has for it.

The engine calls `_tell` while anybody watches, and pays one test of a flag where nobody does.
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

_Kind = Literal["set", "reset", "unset", "enter", "exit", "switch"]

# Whether the engine tells of a switch, which the interpreter tells to C code from then on.
_SWITCHES_ARE_TOLD = backend == "cython" and host == "native" and sys.version_info >= (3, 14)


@published
class WatchEvent(NamedTuple):
    """What a callback of `watch` is called with.

    >>> var = ContextVar("var")
    >>> with var.watch(lambda event: print(event.kind, event.old_value, event.value)):
    ...     token = var.set("red")
    ...     var.reset(token)
    set <Token.MISSING> red
    reset red <Token.MISSING>
    """

    kind: _Kind
    """One of `set`, `reset`, `unset`, `enter`, `exit` and `switch`."""

    variable: ContextVar[Any] | None
    """The variable; None where it is about a Context as a whole."""

    old_value: Any
    """The value before, or `MISSING`; of a `switch` the one that the watcher was last told of in the thread."""

    value: Any
    """The value from now on, or `MISSING`."""

    context: Context
    """The Context in which a value has changed, or that was entered, left, or switched to."""


# By variable, and under None those for all. Replaced, never changed, so whoever reads it has it all.
_watchers: dict[ContextVar[Any] | None, tuple[Watcher, ...]] = {}
# Reentrant, because a finaliser or a signal handler may watch or cancel while its thread does.
_lock = threading.RLock()


class _Here(threading.local):
    """What a watcher knows of each thread."""

    # Whether it is in the middle of the callback.
    busy = False
    # That of its variable, where switches are told: elsewhere it would be kept for a task that is long gone.
    value: Any = MISSING


@published
@final
class Watcher(Sealed):
    """What `watch` and `ContextVar.watch` return: `cancel()`, or the end of a `with` block, ends the watching.

    >>> with watch(print) as watcher:
    ...     pass
    >>> watcher.cancel()
    """

    __slots__ = ("_callback", "_here", "_is_cancelled", "_variable")

    def __init__(self, variable: ContextVar[Any] | None, callback: Callable[[WatchEvent], object]) -> None:
        if not callable(callback):
            raise TypeError(f"watch() takes a callable, not {callback!r}")
        _check_arity(callback)
        self._variable = variable
        self._callback = callback
        self._is_cancelled = False
        self._here = _Here()
        if variable is not None:
            self._remember(current_context().get(variable, MISSING))
        _change(self, added=True)

    def _remember(self, value: Any) -> None:
        if _SWITCHES_ARE_TOLD:
            self._here.value = value

    def cancel(self) -> None:
        """Call the callback no more. A second time it does nothing. O(m) for m watchers of the same."""
        # For the event that is being told.
        self._is_cancelled = True
        _change(self, added=False)
        # It keeps values.
        self._here = _Here()

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
        # Here, because importing it takes long.
        from inspect import signature

        found = signature(callback)
    except RecursionError:
        # Where there is no room for this, there is none for the end of the watching.
        raise
    except Exception:
        # It has none that can be read: an annotation may name what is not there. And at the interpreter's end nothing
        # is to be imported.
        return
    try:
        found.bind(None)
    except TypeError as error:
        raise TypeError(f"watch() takes a callable of one argument, the WatchEvent: {callback!r}, {error}") from None


def _change(watcher: Watcher, added: bool) -> None:
    # No deeper than a watcher is made, so that where the stack ends each that was made is cancelled.
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
            # Without a call between them, no signal handler or finaliser comes between the test and the store.
            if _watchers is before:
                _watchers = changed
                break
        while True:
            current = _watchers
            tell_changes_to(_tell if current else None)
            if _watchers is current:
                break


def _forget_other_threads() -> None:
    """In a child process: the thread that held the lock is not there."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)


def _end() -> None:
    """What follows takes modules apart; and the interpreter keeps this one for a fork, with all that is watched by."""
    global _watchers
    _watchers = {}
    tell_changes_to(None)


atexit.register(_end)
implement("watch", Watcher)


@published
def watch(callback: Callable[[WatchEvent], object], /) -> Watcher:
    """Call `callback(event)` after each change of any variable, and after each Context that is entered or left. O(1).

    Returns a `Watcher`, whose `cancel()`, or a `with` block, ends it. The kinds of events are

    - `set`, `reset` and `unset`, by whichever way: `assign` and its `undo`, and a `default_factory`, are such too;
    - `enter` and `exit`: of `Context.run`, of `with context:` and of `ThreadState`, with no variable;
    - `switch`: the interpreter has switched to another Context, as an event loop has it do at each step of a task.
      Only CPython from 3.14 on tells, and the compiled backend on the native host hears it.

    The callback runs in the current Context of the thread in which it happened, so `exit` after the Context was left.
    What it does itself is not told to it, but to the others. What it raises goes to `sys.unraisablehook`.

    >>> colour = ContextVar("colour")
    >>> with watch(lambda event: print(event.kind, event.variable is colour)):
    ...     copy_context().run(colour.set, "red") is None
    enter False
    set True
    exit False
    False
    """
    return Watcher(None, callback)


def _tell(kind: Any, variable: ContextVar[Any] | None, old: Any, new: Any) -> None:
    """For the engine: after the change, which no error here may undo. Without a variable, old and new are dicts of
    values; and for `enter`, `exit` and `switch` the Contexts that were left and entered, None for the current one."""
    try:
        if kind in ("enter", "exit", "switch"):
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
    event = WatchEvent(kind, None, MISSING, MISSING, context)
    for watcher in _watchers.get(None, ()):
        _call(watcher, event)
    for variable in _watchers:
        if variable is None:
            continue
        value = entered.get(variable, MISSING)
        for watcher in _watchers.get(variable, ()):
            # Of a switch, the interpreter does not tell what was left.
            old_value = watcher._here.value if left is None else left.get(variable, MISSING)
            watcher._remember(value)
            if old_value is not value:
                _call(watcher, WatchEvent(kind, variable, old_value, value, context))


def _tell_of_value(kind: _Kind, variable: ContextVar[Any], old: Any, new: Any, context: Context) -> None:
    event = WatchEvent(kind, variable, MISSING if old is ABSENT else old, MISSING if new is ABSENT else new, context)
    for watcher in _watchers.get(variable, ()):
        watcher._remember(event.value)
        _call(watcher, event)
    for watcher in _watchers.get(None, ()):
        _call(watcher, event)


def _call(watcher: Watcher, event: WatchEvent) -> None:
    here = watcher._here
    if here.busy or watcher._is_cancelled:
        return
    here.busy = True
    try:
        watcher._callback(event)
    except BaseException as error:
        Failure().error = error
    finally:
        here.busy = False


class Failure:
    """An error that nobody is there to catch: the interpreter gives what a `__del__` raises to `sys.unraisablehook`.

    At once where references are counted; on PyPy at the next collection.
    """

    # Made without a call of a function of ours, for which there may be no room left on the stack.
    error: BaseException

    def __del__(self) -> None:
        error = self.error
        # The traceback keeps this frame.
        del self.error
        try:
            raise error
        finally:
            del error
