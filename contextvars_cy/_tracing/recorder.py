"""Makes a recording, by `watch` and by the functions of asyncio and threading in which Contexts are copied unseen."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from threading import get_ident
from time import perf_counter
from types import CodeType, FrameType, TracebackType
from typing import Any, NamedTuple
from weakref import ref

from .. import MISSING, Context, ContextVar, WatchEvent, backend, current_context, host, watch
from .._places import Place, place_of
from .._sealed import PACKAGE
from .entry_points import Seen, entry_points
from .recording import Event, RecordedContext, Recording
from .secrets import is_secret
from .texts import SECRET, cut, shown

# Events that are kept, unless more or fewer are asked for.
LIMIT = 100_000

# Whose frames are passed over on the way to the program's own, and what their functions make.
_WAYS = {
    f"{PACKAGE}._features.bind": "bind",
    f"{PACKAGE}._features.isolated": "isolated",
    f"{PACKAGE}._features.processes": "capsule",
    f"{PACKAGE}.travel": "capsule",
    f"{PACKAGE}.executors": "thread",
    "asyncio.threads": "to_thread",
}
_PASSED = (f"{PACKAGE}.", "asyncio.", "concurrent.", "threading.", "contextlib.", "contextvars.")


class _Code(NamedTuple):
    """What is known of a function on the way to the program's own."""

    # Which keeps its address.
    code: CodeType
    # The program's own, by lines; None if it is passed over.
    places: dict[int, Place] | None
    makes: str | None
    is_loop: bool


_IS_NATIVE = host == "native"
_recorders: list[Recorder] = []


def _forget_other_threads() -> None:
    """In a child process: the thread that held a lock is gone."""
    for recorder in _recorders:
        recorder._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)


class Recorder:
    """Records from `__enter__` to `__exit__`."""

    def __init__(self, only: Iterable[ContextVar[Any] | str] | None, limit: int) -> None:
        self._only = None if only is None else frozenset(only)
        self._limit = limit
        # Reentrant, because a repr of the program's may do anything.
        self._lock = threading.RLock()
        # By address, because the hash of code takes the time of its length.
        self._codes: dict[int, _Code] = {}
        self._variables: dict[ContextVar[Any], int | None] = {}
        self._contexts: dict[int, RecordedContext] = {}
        self._threads: dict[int, int] = {}
        self._tasks: dict[int, tuple[Any, int]] = {}
        self._started_threads: dict[int, tuple[Any, Seen]] = {}
        self._clock = 0.0
        self._made = 0

    def __enter__(self) -> Recording:
        about = {
            "program": " ".join(sys.argv),
            "python": ".".join(map(str, sys.version_info[:3])),
            "backend": backend,
            "host": host,
        }
        recording = self._recording = Recording(self._limit, datetime.now(timezone.utc), about)
        recording._number_of = self._known_number
        self._clock = perf_counter()
        self._new("start", None, False, None, current_context(), self._who())
        _recorders.append(self)
        self._undo = entry_points(self)
        self._watcher = watch(self._tell)
        return recording

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watcher.cancel()
        _recorders.remove(self)
        for undo in reversed(self._undo):
            undo()
        self._recording.seconds = perf_counter() - self._clock
        # Else what it knows of tasks and threads would keep them alive.
        self._tasks.clear()
        self._started_threads.clear()

    # ---- what happens ----

    def _tell(self, event: WatchEvent) -> None:
        kind, var, old_value, new_value, its_context = event
        variable = value = old = None
        with self._lock:
            context = self._context(its_context)
            if var is not None:
                variable = self._variable(var)
                if variable is None:
                    return
                value = None if new_value is MISSING else self._shown(variable, new_value)
                old = None if old_value is MISSING else self._shown(variable, old_value)
            # Between here and the engine are only functions of `watch`.
            place, way = self._place(sys._getframe(3))
            who = self._who()
            if kind == "copy":
                value = self._new(way or "copy_context", context.number, True, place, new_value, who).number
            self._note(kind, context, who, variable, value, old, place)

    def _note(
        self,
        kind: str,
        context: RecordedContext,
        who: tuple[int, int | None],
        variable: int | None,
        value: Any,
        old: str | None,
        place: Place | None,
    ) -> None:
        recording = self._recording
        time = context.seen_until = perf_counter() - self._clock
        number = recording.count
        recording.count = number + 1
        event = number, time, kind, context.number, *who, variable, value, old, place
        # Twice as fast as a call of the class.
        recording.events.append(tuple.__new__(Event, event))

    def _shown(self, variable: int, value: Any) -> Any:
        return SECRET if self._recording.secret[variable] else shown(value)

    # ---- for the entry points ----

    def seen_here(self) -> Seen:
        """Where the program is now, and in which Context."""
        with self._lock:
            return Seen(self._context(current_context()).number, self._place(sys._getframe(2))[0])

    def knows(self, context: Any) -> bool:
        """Whether it has seen this native Context, or this one of ours on the thread host."""
        return id(context) in self._contexts

    def copied(self, copy: Any, way: str) -> None:
        """This Context, native or ours, is a copy of the current one, which this way has made."""
        with self._lock:
            context = self._context(current_context())
            place, _ = self._place(sys._getframe(2))
            who = self._who()
            number = self._new(way, context.number, True, place, copy, who).number
            self._note("copy", context, who, None, number, None, place)

    def thread_starts(self, thread: threading.Thread) -> None:
        self._started_threads[id(thread)] = thread, self.seen_here()

    # ---- numbers ----

    def _known_number(self, context: Context | None) -> int | None:
        known = self._contexts.get(id(_kept(current_context() if context is None else context)))
        return None if known is None else known.number

    def _context(self, context: Context) -> RecordedContext:
        return self._contexts.get(id(context.native if _IS_NATIVE else context)) or self._found(context)

    def _found(self, context: Context) -> RecordedContext:
        """One that nobody saw being made."""
        is_new_thread = get_ident() not in self._threads
        _, seen = self._started_threads.pop(id(threading.current_thread()), (None, None))
        if seen is not None and is_new_thread:
            inherits = bool(getattr(sys.flags, "thread_inherit_context", False))
            return self._new("thread", seen.context, inherits, seen.place, context, self._who())
        way = "unknown" if len(context) else "start" if is_new_thread else "Context"
        found = self._new(way, None, False, None, context, self._who())
        for var, value in context.items():
            variable = self._variable(var) if type(var) is ContextVar else None
            if variable is not None:
                found.inherited[variable] = self._shown(variable, value)
        return found

    def _new(
        self,
        way: str,
        maker: int | None,
        is_copy: bool,
        place: Place | None,
        context: Any,
        who: tuple[int, int | None],
    ) -> RecordedContext:
        number = self._made
        self._made = number + 1
        recording = self._recording
        time = perf_counter() - self._clock
        kept, contexts = _kept(context), self._contexts
        address = id(kept)
        # Another one may come to lie at this address.
        alive = ref(kept, lambda _: contexts.pop(address, None))
        made = RecordedContext(number, way, maker, is_copy, place, time, recording.count, *who, alive)
        recording.contexts[number] = contexts[address] = made
        if len(recording.contexts) > 2 * self._limit:
            self._forget_the_dead()
        return made

    def _forget_the_dead(self) -> None:
        contexts = self._recording.contexts
        for number in [number for number, context in contexts.items() if not context.is_alive][: self._limit]:
            del contexts[number]

    def _variable(self, var: ContextVar[Any]) -> int | None:
        """Its number; None for one that is not asked for."""
        if var in self._variables:
            return self._variables[var]
        recording = self._recording
        number = None
        if self._only is None or var in self._only or var.name in self._only:
            number = len(recording.variables)
            recording.variables.append(var)
            recording.secret.append(is_secret(var))
            recording.defaults.append(None if is_secret(var) else _default_of(var))
        self._variables[var] = number
        return number

    def _who(self) -> tuple[int, int | None]:
        """The numbers of the thread and the task."""
        ident = get_ident()
        thread = self._threads.get(ident)
        if thread is None:
            thread = self._threads[ident] = len(self._recording.threads)
            self._recording.threads.append(threading.current_thread().name)
        task = _current_task()
        if task is None:
            return thread, None
        known, number = self._tasks.get(id(task), (None, 0))
        if known is None or known() is not task:
            number = len(self._recording.tasks)
            self._recording.tasks.append((task.get_name(), thread))
            self._tasks[id(task)] = ref(task), number
        return thread, number

    def _place(self, frame: Any) -> tuple[Place | None, str | None]:
        """The program's line that called this, and what is made by the functions between here and there."""
        codes = self._codes
        way = None
        while frame is not None:
            _, places, makes, is_loop = codes.get(id(frame.f_code)) or self._code(frame)
            if places is not None:
                line = frame.f_lineno
                place = places.get(line)
                if place is None:
                    place = places[line] = place_of(frame)
                return place, way
            if is_loop:
                # What called the loop did not call what happens in it.
                break
            way = makes or way
            frame = frame.f_back
        return None, way

    def _code(self, frame: FrameType) -> _Code:
        code, name = frame.f_code, f"{frame.f_globals.get('__name__')}."
        known = self._codes[id(code)] = _Code(
            code,
            None if name.startswith(_PASSED) else {},
            _WAYS.get(name[:-1]),
            name == "asyncio.base_events." and code.co_name == "_run_once",
        )
        return known


def _default_of(var: ContextVar[Any]) -> str | None:
    """The repr of its default, which only its own repr tells."""
    start, end = f"<ContextVar name={var.name!r} default=", f" at {id(var):#x}>"
    try:
        text = repr(var)
    except Exception:
        return None
    return cut(text[len(start) : -len(end)]) if text.startswith(start) and text.endswith(end) else None


def _kept(context: Any) -> Any:
    """What stays the same object as long as code can run in the Context, which may be a native one already."""
    return context.native if _IS_NATIVE and type(context) is Context else context


def _current_task() -> Any:
    # As long as asyncio is being imported, it may have no such function yet.
    running_loop: Callable[[], Any] | None = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    loop = None if running_loop is None else running_loop()
    return None if loop is None else sys.modules["asyncio.tasks"].current_task(loop)
