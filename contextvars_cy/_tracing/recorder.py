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

from .. import MISSING, Context, ContextVar, Hamt, WatchEvent, backend, current_context, host, watch
from .._places import Place, place_of
from .._sealed import PACKAGE
from .contexts import IS_NATIVE, is_anchor, kept
from .entry_points import listen, stop_listening
from .recording import CHANGES, Event, RecordedContext, Recording
from .secrets import is_secret
from .texts import SECRET, cut, shown

# Events that are kept, unless more or fewer are asked for.
LIMIT = 100_000

_EXECUTORS = f"{PACKAGE}.executors"
# Whose frames are passed over on the way to the program's own, and what their functions make.
_WAYS = {
    f"{PACKAGE}._features.bind": "bind",
    f"{PACKAGE}._features.isolated": "isolated",
    f"{PACKAGE}._features.processes": "capsule",
    f"{PACKAGE}.travel": "capsule",
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


class _Seen(NamedTuple):
    """Where a thread was started: the number of a Context, a line of the program, and how many events came before."""

    context: int
    place: Place | None
    number: int


_MANY_CODES = 10_000
_recorders: list[Recorder] = []


def _forget_other_threads() -> None:
    """In a child process: the thread that held a lock is gone."""
    for recorder in _recorders:
        recorder._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)


class Recorder:
    """Records from `__enter__` to `__exit__`, once."""

    def __init__(self, only: Iterable[ContextVar[Any] | str] | None, limit: int) -> None:
        self._only = None if only is None else frozenset(only)
        self._limit = limit
        # Reentrant, because a finaliser or a signal handler may run anywhere. No code of the program's is called while
        # it is held: a repr may wait for another thread, whose next event waits for the lock.
        self._lock = threading.RLock()
        # By address, because the hash of code takes the time of its length.
        self._codes: dict[int, _Code] = {}
        self._variables: dict[ContextVar[Any], int | None] = {}
        self._contexts: dict[int, RecordedContext] = {}
        self._threads: dict[int, int] = {}
        self._tasks: dict[int, tuple[Any, int]] = {}
        self._started_threads: dict[int, tuple[threading.Thread, _Seen]] = {}
        # By the address of a snapshot: the Context that changed to it, and the number of the event after that.
        self._snapshots: dict[int, tuple[Any, int, int]] = {}
        self._clock = 0.0
        self._contexts_made = self._tasks_seen = 0
        # How many are remembered before those are forgotten that nothing refers to.
        self._room_for_contexts = self._room_for_tasks = 2 * limit
        self._recording: Recording | None = None

    def __enter__(self) -> Recording:
        if self._recording is not None:
            raise RuntimeError("this recording was made already; call record() again for another one")
        about = {
            "program": " ".join(map(str, sys.argv)),
            "python": ".".join(map(str, sys.version_info[:3])),
            "backend": backend,
            "host": host,
        }
        recording = self._recording = Recording(self._limit, datetime.now(timezone.utc), about)
        recording._number_of = self._known_number
        self._clock = perf_counter()
        self._first_seen("start", current_context(), None, None)
        _recorders.append(self)
        listen(self)
        self._watcher = watch(self._tell)
        return recording

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watcher.cancel()
        _recorders.remove(self)
        stop_listening(self)
        self._its.seconds = perf_counter() - self._clock
        # Else what it knows of tasks and threads would keep them alive.
        self._tasks.clear()
        self._started_threads.clear()
        self._snapshots.clear()

    @property
    def _its(self) -> Recording:
        assert self._recording is not None
        return self._recording

    # ---- what happens ----

    def _tell(self, event: WatchEvent) -> None:
        kind, var, old_value, new_value, its_context = event
        variable = value = old = None
        if var is not None:
            variable = self._variable(var)
            if variable is None:
                return
            if kind != "refuse":
                value = None if new_value is MISSING else self._shown(variable, new_value)
                old = None if old_value is MISSING else self._shown(variable, old_value)
        context = self._context(its_context, variable, old)
        if kind == "refuse" and new_value is not MISSING:
            value = self._context(new_value).number
        # Between here and the engine are only functions of `watch`.
        place, way = self._place(sys._getframe(3))
        who = self._who()
        with self._lock:
            if kind == "copy":
                value = self._new(way or "copy_context", context.number, True, place, new_value, who).number
            self._note(kind, context, who, variable, value, old, place)
        if kind in CHANGES:
            self._keep_snapshot(its_context, context)

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
        recording = self._its
        time = context.seen_until = perf_counter() - self._clock
        number = recording.count
        recording.count = number + 1
        event = number, time, kind, context.number, *who, variable, value, old, place
        # Twice as fast as a call of the class.
        recording.events.append(tuple.__new__(Event, event))

    def _shown(self, variable: int, value: Any) -> Any:
        return SECRET if self._its.secret[variable] else shown(value)

    # ---- for the entry points ----

    def knows(self, context: Any) -> bool:
        """Whether it has seen this native Context, or this one of ours on the thread host."""
        return id(context) in self._contexts

    def may_be_copied(self, copy: Any, way: str, task: Any) -> None:
        """This Context, native or ours, is a copy of the current one, which this way has made, for a task if there is
        one; or it is the caller's own."""
        current = current_context()
        if not _is_copy(copy, current):
            return
        context, who = self._context(current), self._who()
        place, _ = self._place(sys._getframe(2))
        with self._lock:
            made = self._new(way, context.number, True, place, copy, who)
            made._task = None if task is None else ref(task)
            self._note("copy", context, who, None, made.number, None, place)

    def thread_starts(self, thread: threading.Thread) -> None:
        context = self._context(current_context())
        place, _ = self._place(sys._getframe(2))
        self._started_threads[id(thread)] = thread, _Seen(context.number, place, self._its.count)

    def thread_began(self, thread: threading.Thread) -> None:
        """In the thread itself, before any of the program's code."""
        # It is not known to `threading` yet; and another one may have had its number.
        self._new_thread(get_ident(), thread.name)
        _, seen = self._started_threads.pop(id(thread), (None, None))
        if seen is not None:
            # From Python 3.14 on.
            its_own = getattr(thread, "_context", None) if IS_NATIVE else None
            inherits = its_own is not None and bool(getattr(sys.flags, "thread_inherit_context", False))
            who = self._who()
            with self._lock:
                context = current_context() if its_own is None else its_own
                self._new("thread", seen.context, inherits, seen.place, context, who, seen.number)

    # ---- numbers ----

    def _known_number(self, context: Context | None) -> int | None:
        known = self._contexts.get(id(kept(current_context() if context is None else context)))
        return None if known is None else known.number

    def _context(self, context: Context, variable: int | None = None, old: str | None = None) -> RecordedContext:
        """What is known of it; of one that nobody saw being made, from now on. The variable is the one that an event
        has just changed there."""
        known = self._contexts.get(id(kept(context)))
        return self._first_seen("unknown", context, variable, old) if known is None else known

    def _first_seen(self, way: str, context: Context, variable: int | None, old: str | None) -> RecordedContext:
        _, parent, born = self._snapshots.get(id(_anchor_in(context)), (None, None, None))
        inherited: dict[int, str] = {}
        for var, value in context.items() if parent is None else ():
            number = self._variable(var) if type(var) is ContextVar else None
            if number is not None and number != variable:
                inherited[number] = self._shown(number, value)
        if parent is None and variable is not None and old is not None:
            inherited[variable] = old
        who = self._who()
        with self._lock:
            # Another thread may have been faster.
            known = self._contexts.get(id(kept(context)))
            if known is None:
                known = self._new(way, parent, parent is not None, None, context, who, born)
                known.inherited = inherited
                if way == "start":
                    self._keep_snapshot(context, known)
            return known

    def _keep_snapshot(self, context: Context, known: RecordedContext) -> None:
        """A Context that is first seen with the same snapshot has it from this one, whatever copied it."""
        snapshot = _anchor_in(context)
        if snapshot is not None:
            # It may be known: the compiled engine changes a snapshot in place as long as nothing else has it.
            snapshots, address = self._snapshots, id(snapshot)
            gone = ref(snapshot, lambda _: snapshots.pop(address, None))
            snapshots[address] = gone, known.number, self._its.count

    def _new(
        self,
        way: str,
        maker: int | None,
        is_copy: bool,
        place: Place | None,
        context: Any,
        who: tuple[int, int | None],
        born: int | None = None,
    ) -> RecordedContext:
        number = self._contexts_made
        self._contexts_made = number + 1
        recording = self._its
        time = perf_counter() - self._clock
        its_own, contexts = kept(context), self._contexts
        address = id(its_own)
        # Another one may come to lie at this address.
        alive = ref(its_own, lambda _: contexts.pop(address, None))
        made = RecordedContext(
            number, way, maker, is_copy, place, time, recording.count if born is None else born, *who, alive
        )
        recording.contexts[number] = contexts[address] = made
        if len(recording.contexts) > self._room_for_contexts:
            self._forget_contexts()
        return made

    def _forget_contexts(self) -> None:
        contexts = self._its.contexts
        for number in [number for number, context in contexts.items() if not context.is_alive][: -self._limit]:
            del contexts[number]
        # If most are alive, it is not tried again for each.
        self._room_for_contexts = max(2 * self._limit, 2 * len(contexts))

    def _forget_tasks(self) -> None:
        recording = self._its
        used = {event.task for event in recording.events} | {each.task for each in recording.contexts.values()}
        self._tasks = {key: known for key, known in self._tasks.items() if known[0]() is not None}
        used |= {number for _, number in self._tasks.values()}
        for number in [number for number in recording.tasks if number not in used]:
            del recording.tasks[number]
        self._room_for_tasks = max(2 * self._limit, 2 * len(recording.tasks))

    def _variable(self, var: ContextVar[Any]) -> int | None:
        """Its number; None for one that is not asked for."""
        if var in self._variables:
            return self._variables[var]
        is_asked_for = self._only is None or var in self._only or var.name in self._only
        is_kept_secret = is_secret(var)
        default = None if is_kept_secret or not is_asked_for else _default_of(var)
        recording = self._its
        with self._lock:
            if var not in self._variables:
                self._variables[var] = len(recording.variables) if is_asked_for else None
                if is_asked_for:
                    recording.variables.append(var)
                    recording.secret.append(is_kept_secret)
                    recording.defaults.append(default)
            return self._variables[var]

    def _new_thread(self, ident: int, name: str) -> int:
        with self._lock:
            number = self._threads[ident] = len(self._its.threads)
            self._its.threads.append(name)
        return number

    def _who(self) -> tuple[int, int | None]:
        """The numbers of the thread and the task."""
        ident = get_ident()
        thread = self._threads.get(ident)
        if thread is None:
            thread = self._new_thread(ident, threading.current_thread().name)
        task = _current_task()
        if task is None:
            return thread, None
        known, number = self._tasks.get(id(task), (None, 0))
        if known is None or known() is not task:
            name = task.get_name()
            with self._lock:
                number = self._tasks_seen
                self._tasks_seen = number + 1
                self._its.tasks[number] = name, thread
                self._tasks[id(task)] = ref(task), number
                if len(self._its.tasks) > self._room_for_tasks:
                    self._forget_tasks()
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
        if len(self._codes) > _MANY_CODES:
            # As of a program that makes code all the time.
            self._codes.clear()
        code, module = frame.f_code, str(frame.f_globals.get("__name__"))
        makes = _WAYS.get(module)
        if module == _EXECUTORS:
            # By `submit`, `map` and `run_in_executor`, and by `Thread.start`.
            makes = "thread" if code.co_name == "start" else code.co_name
        places: dict[int, Place] | None = None if f"{module}.".startswith(_PASSED) else {}
        is_loop = module == "asyncio.base_events" and code.co_name == "_run_once"
        known = self._codes[id(code)] = _Code(code, places, makes, is_loop)
        return known


def _default_of(var: ContextVar[Any]) -> str | None:
    """The repr of its default, which only its own repr tells."""
    start, end = f"<ContextVar name={var.name!r} default=", f" at {id(var):#x}>"
    try:
        text = repr(var)
    except Exception:
        return None
    return cut(text[len(start) : -len(end)]) if text.startswith(start) and text.endswith(end) else None


def _is_copy(copy: Any, of: Context) -> bool:
    """Whether this Context, native or ours, has the same values as the other one."""
    if IS_NATIVE:
        return _anchor_in(copy) is _anchor_in(of)
    if type(copy) is not Context:
        # On the thread host nothing of ours happens in a native one.
        return False
    return len(copy) == len(of) and all(copy.get(var, MISSING) is value for var, value in of.items())


def _anchor_in(context: Any) -> Hamt[ContextVar[Any], Any] | None:
    """On the native host, the values of our variables, if there are any: all are one value of one of the
    interpreter's."""
    if not IS_NATIVE:
        return None
    found = (value for var, value in kept(context).items() if is_anchor(var, value))
    return next(found, None) or None


def _current_task() -> Any:
    # As long as asyncio is being imported, it may have no such function yet.
    running_loop: Callable[[], Any] | None = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    loop = None if running_loop is None else running_loop()
    return None if loop is None else sys.modules["asyncio.tasks"].current_task(loop)
