"""Being told of what happens to variables and Contexts, on the one hook that the engine has for it.

The engine calls `_tell` while anybody watches, and pays one test of a flag where nobody does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, final

from . import Context, ContextVar, backend, current_context
from ._sentinels import ABSENT, MISSING

if TYPE_CHECKING or backend == "pure":
    from ._context_py import tell_changes_to
else:
    from ._context_cy import tell_changes_to


class WatchEvent(NamedTuple):
    """What a callback of `watch` is called with.

    >>> var = ContextVar("var")
    >>> with var.watch(lambda event: print(event.kind, event.old_value, event.value)):
    ...     token = var.set("red")
    ...     var.reset(token)
    set <Token.MISSING> red
    reset red <Token.MISSING>
    """

    kind: str
    """One of `set`, `reset`, `unset`, `enter`, `exit` and `switch`."""

    variable: ContextVar[Any] | None
    """The variable; None where it is about a Context as a whole."""

    old_value: Any
    """The value before, or `MISSING`."""

    value: Any
    """The value from now on, or `MISSING`."""

    context: Context
    """The Context in which a value has changed, or that was entered, left, or switched to."""


# By variable, and under None those for all. The tuples are replaced, never changed, so whoever reads one has it all.
_watchers: dict[ContextVar[Any] | None, tuple[Watcher, ...]] = {}
_lock = threading.Lock()


class _Busy(threading.local):
    """The watchers whose callbacks this thread is in the middle of."""

    def __init__(self) -> None:
        self.watchers: list[Watcher] = []


_busy = _Busy()


@final
class Watcher:
    """What `watch` and `ContextVar.watch` return: `cancel()`, or the end of a `with` block, ends the watching.

    >>> with watch(print) as watcher:
    ...     pass
    >>> watcher.cancel()
    """

    __slots__ = ("_callback", "_variable")

    def __init__(self, variable: ContextVar[Any] | None, callback: Callable[[WatchEvent], object]) -> None:
        if not callable(callback):
            raise TypeError(f"watch() takes a callable, not {callback!r}")
        self._variable = variable
        self._callback = callback
        with _lock:
            tell_changes_to(_tell)
            _watchers[variable] = (*_watchers.get(variable, ()), self)

    def cancel(self) -> None:
        """Call the callback no more. A second time it does nothing. O(m) for m watchers of the same."""
        with _lock:
            left = tuple(watcher for watcher in _watchers.get(self._variable, ()) if watcher is not self)
            if left:
                _watchers[self._variable] = left
            else:
                _watchers.pop(self._variable, None)
            if not _watchers:
                tell_changes_to(None)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.cancel()

    def __repr__(self) -> str:
        watched = "everything" if self._variable is None else repr(self._variable)
        return f"<Watcher of {watched} by {self._callback!r}>"


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


def _tell(kind: str, variable: ContextVar[Any] | None, old: Any, new: Any) -> None:
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
        _report(error)


def _tell_of_context(kind: str, left: Context | None, entered: Context) -> None:
    context = left if kind == "exit" and left is not None else entered
    _call(None, WatchEvent(kind, None, MISSING, MISSING, context))
    if left is None:
        return
    for variable in tuple(_watchers):
        if variable is not None:
            old, new = left.get(variable, MISSING), entered.get(variable, MISSING)
            if old is not new:
                _call(variable, WatchEvent(kind, variable, old, new, context))


def _tell_of_value(kind: str, variable: ContextVar[Any], old: Any, new: Any, context: Context) -> None:
    event = WatchEvent(kind, variable, MISSING if old is ABSENT else old, MISSING if new is ABSENT else new, context)
    _call(variable, event)
    _call(None, event)


def _call(key: ContextVar[Any] | None, event: WatchEvent) -> None:
    busy = _busy.watchers
    for watcher in _watchers.get(key, ()):
        if watcher not in busy:
            busy.append(watcher)
            try:
                watcher._callback(event)
            except BaseException as error:
                _report(error)
            finally:
                busy.remove(watcher)


class _Failure:
    """An error that nobody is there to catch: the interpreter gives what a `__del__` raises to `sys.unraisablehook`.

    At once where references are counted; on PyPy at the next collection.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error


def _report(error: BaseException) -> None:
    _Failure(error)


for _public in (WatchEvent, Watcher, watch):
    _public.__module__ = "contextvars_cy"
