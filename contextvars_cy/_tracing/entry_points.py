"""While a recording runs: the functions of asyncio and threading in which a Context is copied, or a thread begins.

asyncio copies native Contexts in C, where no watcher is told. Its event loops in Python pass each copy on by one of a
few methods; those of a loop in C, such as uvloop's, nobody sees.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

from .._install.when_imported import when_imported


class Listener(Protocol):
    def knows(self, context: Any) -> bool: ...

    def may_be_copied(self, copy: Any, way: str, task: Any) -> None: ...

    def thread_starts(self, thread: threading.Thread) -> None: ...

    def thread_began(self, thread: threading.Thread) -> None: ...


# Replaced, never changed, so a reader sees a whole one.
_listeners: tuple[Listener, ...] = ()
_undo: list[Callable[[], None]] = []
# Reentrant, because a signal handler may begin a recording.
_lock = threading.RLock()


def _forget_other_threads() -> None:
    """In a child process: the thread that held the lock is gone."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)


def listen(listener: Listener) -> None:
    """Tell it of copies and starts from now on. The functions are replaced once, for all that listen."""
    global _listeners
    with _lock:
        if not _listeners:
            _adapt_threads(threading)
            _undo.append(when_imported("asyncio", "BaseEventLoop", _adapt_loops))
        _listeners = (*_listeners, listener)


def stop_listening(listener: Listener) -> None:
    global _listeners
    with _lock:
        _listeners = tuple(each for each in _listeners if each is not listener)
        if not _listeners:
            while _undo:
                _undo.pop()()


# The methods that return a handle, which has the Context that its callback will run in.
_METHODS = {
    "call_soon": "call_soon",
    "call_soon_threadsafe": "call_soon",
    "call_at": "call_later",
    "_add_reader": "reader",
    "_add_writer": "reader",
}


def _adapt_threads(threads: Any) -> None:
    start, begin = threads.Thread.start, threads.Thread._bootstrap_inner

    @wraps(start)
    def start_and_tell(self: threading.Thread) -> None:
        # From Python 3.14 on, a thread may be given its Context.
        if getattr(self, "_context", None) is None:
            for listener in _listeners:
                listener.thread_starts(self)
        start(self)

    @wraps(begin)
    def tell_and_begin(self: threading.Thread) -> None:
        for listener in _listeners:
            listener.thread_began(self)
        begin(self)

    _replace(threads.Thread, "start", start_and_tell)
    # What a thread runs first of all: a subclass may have its own `run`.
    _replace(threads.Thread, "_bootstrap_inner", tell_and_begin)


def _adapt_loops(asyncio: Any) -> None:
    classes = [
        asyncio.BaseEventLoop,
        getattr(sys.modules.get("asyncio.selector_events"), "BaseSelectorEventLoop", None),
    ]
    for cls in filter(None, classes):
        for name, way in _METHODS.items():
            if name in vars(cls):
                _replace(cls, name, _telling(vars(cls)[name], way))


def _telling(method: Any, way: str) -> Any:
    @wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        handle = method(self, *args, **options)
        copy = getattr(handle, "_context", None)
        for listener in _listeners:
            if copy is not None and not listener.knows(copy):
                # Of a new task, its first step.
                caller = getattr(args[0] if args else None, "__self__", None)
                task = caller if hasattr(caller, "get_coro") else None
                listener.may_be_copied(copy, way if task is None else "create_task", task)
        return handle

    return call


def _replace(owner: Any, name: str, function: Any) -> None:
    before = vars(owner)[name]
    setattr(owner, name, function)

    def put_back() -> None:
        # Somebody may have replaced it since, and calls this one, which then has nobody to tell.
        if vars(owner).get(name) is function:
            setattr(owner, name, before)

    _undo.append(put_back)
