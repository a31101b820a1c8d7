"""While a recording runs: the functions of asyncio and threading in which a Context is copied, or a thread begins.

asyncio copies native Contexts in C, where no watcher is told. Its event loops in Python pass each copy on by one of a
few methods; those of a loop in C, such as uvloop's, nobody sees.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, Protocol

from .._install.when_imported import when_imported
from .._places import Place


class Seen(NamedTuple):
    """Where something began: the number of a Context, and a line of the program."""

    context: int
    place: Place | None


class Listener(Protocol):
    def knows(self, context: Any) -> bool: ...

    def copied(self, copy: Any, way: str) -> None: ...

    def thread_starts(self, thread: threading.Thread) -> None: ...


# The methods that return a handle, which has the Context that its callback will run in.
_METHODS = {
    "call_soon": "call_soon",
    "call_soon_threadsafe": "call_soon",
    "call_at": "call_later",
    "_add_reader": "reader",
    "_add_writer": "reader",
}


def entry_points(listener: Listener) -> list[Callable[[], None]]:
    """Tell the listener of copies and starts from now on; return what ends that."""
    undo: list[Callable[[], None]] = []
    ended: list[bool] = []

    def adapt(asyncio: Any) -> None:
        if not ended:
            _adapt_loops(asyncio, listener, undo)

    when_imported("asyncio", "BaseEventLoop", adapt)
    start = threading.Thread.start

    @wraps(start)
    def start_and_tell(self: threading.Thread) -> None:
        listener.thread_starts(self)
        start(self)

    _replace(threading.Thread, "start", start_and_tell, undo)
    undo.append(lambda: ended.append(True))
    return undo


def _adapt_loops(asyncio: Any, listener: Listener, undo: list[Callable[[], None]]) -> None:
    classes = [
        asyncio.BaseEventLoop,
        getattr(sys.modules.get("asyncio.selector_events"), "BaseSelectorEventLoop", None),
    ]
    for cls in filter(None, classes):
        for name, way in _METHODS.items():
            if name in vars(cls):
                _replace(cls, name, _telling(vars(cls)[name], way, listener), undo)


def _telling(method: Any, way: str, listener: Listener) -> Any:
    @wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        handle = method(self, *args, **options)
        copy = getattr(handle, "_context", None)
        if copy is not None and not listener.knows(copy):
            # Of a new task, its first step.
            callback = getattr(args[0] if args else None, "__self__", None)
            listener.copied(copy, "create_task" if hasattr(callback, "get_coro") else way)
        return handle

    return call


def _replace(owner: Any, name: str, function: Any, undo: list[Callable[[], None]]) -> None:
    before = vars(owner)[name]
    setattr(owner, name, function)

    def put_back() -> None:
        # Somebody may have replaced it since, and calls this one.
        if vars(owner).get(name) is function:
            setattr(owner, name, before)

    undo.append(put_back)
