"""Looks into a running program: its threads and tasks, where they are, and the values in their Contexts."""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from itertools import compress
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, NamedTuple

from .. import Context, ContextVar, backend, host
from .._context.standard_library import NativeContext
from .._context.twin import contexts_of_threads
from .._places import Place, place_of
from .contexts import is_anchor, kept
from .here import Here
from .texts import printable, shown_of

FORMAT = 1
_HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
OTHER_THREAD = (
    "only the compiled backend sees another thread's Context, on a CPython whose layout it knows"
    if _HAS_GIL
    else "without the GIL, another thread's Context cannot be read while that thread runs"
)
THREAD_HOST = "on the thread host tasks share their thread's Context"
HIDDEN = "this kind of task does not show its Context"

_STANDARD_LIBRARY = os.path.dirname(os.__file__)
_STEPS = (CoroutineType, GeneratorType, AsyncGeneratorType)


class SeenContext(NamedTuple):
    """The values in a Context, by the names of their variables, as reprs cut to 200 characters.

    A second variable of the same name is `name (2)`. A secret one has the value `<secret>`.

    >>> user = ContextVar("user")
    >>> with user.set("ada"):
    ...     snapshot().here.context.values["user"]
    "'ada'"
    """

    values: dict[str, str]
    """Of this package's variables."""

    native_values: dict[str, str]
    """Of the standard library's, on the native host: decimal's and numpy's too."""


class SeenThread(NamedTuple):
    """A thread, where it is, and its current Context.

    >>> import threading
    >>> snapshot().here.ident == threading.get_ident()
    True
    """

    name: str | None
    """None for a thread that `threading` did not start and does not know."""

    ident: int
    """Its `threading.get_ident()`."""

    places: list[Place]
    """Its stack, from the outermost frame to the innermost."""

    task: int | None
    """The number in `Snapshot.tasks` of the task that it runs; None if it runs none, or that is not known."""

    context: SeenContext | None
    """None if it is not known."""

    unknown: str
    """Why the Context is not known, else empty."""


class SeenTask(NamedTuple):
    """A task of asyncio or trio, where it is, and its Context.

    >>> import asyncio
    >>> async def main():
    ...     return snapshot().tasks
    >>> [(task.coroutine, task.state) for task in asyncio.run(main())]
    [('main', 'runs')]
    """

    name: str
    """As `get_name` returns it, or trio's name of it."""

    library: str
    """`asyncio` or `trio`."""

    thread: int | None
    """The number in `Snapshot.threads` of the thread whose event loop it belongs to; None if that is not known."""

    state: str
    """`runs` or `waits`."""

    coroutine: str
    """The qualified name of the coroutine that it runs."""

    places: list[Place]
    """Its coroutines, from the task's own to the innermost that it awaits."""

    awaited_by: list[int]
    """The numbers of the tasks that wait for it. Before Python 3.14, asyncio tells only of `await` and `gather`."""

    context: SeenContext | None
    """None if it is not known."""

    unknown: str
    """Why the Context is not known, else empty."""


class Snapshot:
    """What `snapshot` returns: what there was in a process at one moment. It keeps nothing of the program alive.

    `print` shows it as a tree, with each task below the one that awaits it; `to_json` has it for other programs. A task
    or thread is named by its number in the lists `tasks` and `threads`.

    >>> seen = snapshot()
    >>> seen.here in seen.threads, seen.tasks
    (True, [])
    """

    __slots__ = ("_data", "tasks", "threads")

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data
        contexts = [SeenContext(each["values"], each["native_values"]) for each in data["contexts"]]

        def context_in(each: dict[str, Any]) -> SeenContext | None:
            return None if each["context"] is None else contexts[each["context"]]

        self.threads: list[SeenThread] = [
            SeenThread(each["name"], each["ident"], _places(each), each["task"], context_in(each), each["unknown"])
            for each in data["threads"]
        ]
        self.tasks: list[SeenTask] = [
            SeenTask(
                each["name"],
                each["library"],
                each["thread"],
                each["state"],
                each["coroutine"],
                _places(each),
                each["awaited_by"],
                context_in(each),
                each["unknown"],
            )
            for each in data["tasks"]
        ]

    @property
    def here(self) -> SeenThread:
        """The thread that took it; of another process, its main thread."""
        number: int = self._data["here"]
        return self.threads[number]

    def to_json(self) -> str:
        """Return it as JSON: an object with `format` 1, `contexts`, `threads` and `tasks`, which name one another by
        their numbers. O(n) in what it shows.

        >>> import json
        >>> json.loads(snapshot().to_json())["format"]
        1
        """
        return json.dumps(self._data)

    def __repr__(self) -> str:
        threads, tasks = len(self.threads), len(self.tasks)
        return f"<Snapshot of process {self._data['pid']}: {_counted(threads, 'thread')}, {_counted(tasks, 'task')}>"

    def __str__(self) -> str:
        return "\n".join(map(printable, self._lines())) + "\n"

    def _lines(self) -> Iterator[str]:
        data = self._data
        yield (
            f"process {data['pid']}, {data['program']}: Python {data['python']}, {data['backend']} backend, "
            f"{data['host']} host, at {data['taken']}"
        )
        for thread in self.threads:
            task = "" if thread.task is None else f" runs {self.tasks[thread.task].name}"
            yield ""
            yield f"thread {_name(thread)}{task}{_at(thread.places)}"
            if (
                thread.task is not None
                and thread.context is not None
                and thread.context is self.tasks[thread.task].context
            ):
                yield "    in the Context of its task"
            else:
                yield from _values(thread, "    ")
        below: dict[int, list[int]] = {}
        for number, each in enumerate(self.tasks):
            for by in each.awaited_by[:1]:
                below.setdefault(by, []).append(number)
        told: set[int] = set()
        # Tasks that wait for one another in a circle have no first one.
        for number in [
            *(number for number, each in enumerate(self.tasks) if not each.awaited_by),
            *range(len(self.tasks)),
        ]:
            if number not in told:
                yield ""
                yield from self._branch(number, below, told)

    def _branch(self, number: int, below: dict[int, list[int]], told: set[int]) -> Iterator[str]:
        # Not recursive: a thousand tasks may wait in a row.
        stack = [(number, 0)]
        while stack:
            number, depth = stack.pop()
            if number in told:
                continue
            told.add(number)
            task, margin = self.tasks[number], "    " * depth
            thread = "" if task.thread is None or depth else f" of {_name(self.threads[task.thread])}"
            by = " and ".join(self.tasks[other].name for other in task.awaited_by)
            awaited = f", awaited by {by}" if len(task.awaited_by) > bool(depth) else ""
            yield f"{margin}task {task.name}{thread}, {task.coroutine}, {task.state}{_at(task.places)}{awaited}"
            yield from _values(task, margin + "    ")
            stack += [(other, depth + 1) for other in reversed(below.get(number, []))]


def _places(each: dict[str, Any]) -> list[Place]:
    return [Place(*place) for place in each["places"]]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _name(thread: SeenThread) -> str:
    return f"{thread.ident}, of unknown name," if thread.name is None else thread.name


def _at(places: list[Place]) -> str:
    """The program's innermost line, and what it called of Python's own library."""
    if not places:
        return ""
    program = [place for place in places if not _is_library(place)]
    if not program or program[-1] is places[-1]:
        return f" at {places[-1]}"
    return f" at {program[-1]}, in {os.path.basename(places[-1].file)}:{places[-1].line} {places[-1].function}"


def _is_library(place: Place) -> bool:
    file = place.file
    return file.startswith((_STANDARD_LIBRARY, "<frozen ")) and "-packages" not in file


def _values(seen: SeenThread | SeenTask, margin: str) -> Iterator[str]:
    if seen.context is None:
        yield f"{margin}values unknown: {seen.unknown}"
        return
    for name, text in seen.context.values.items():
        yield f"{margin}{name} = {text}"
    for name, text in seen.context.native_values.items():
        yield f"{margin}{name} = {text}  (of the standard library)"
    if not any(seen.context):
        yield f"{margin}no values"


# ---- how it is taken ----


def snapshot() -> Snapshot:
    """Return what there is in this process at this moment: threads and tasks, where they are, and the values in their
    Contexts, as a `Snapshot`.

    The tasks are those of every asyncio loop that runs, in whatever thread; trio's if it runs in this thread. Values
    are kept as reprs, which calls their `__repr__`. What cannot be known is None, with the reason. O(n) in the stacks,
    tasks and values; where there is another kind of event loop than asyncio's own, such as uvloop, in all objects.

    >>> user = ContextVar("user")
    >>> with user.set("ada"):
    ...     seen = snapshot()
    >>> seen.here.context.values["user"]
    "'ada'"
    """
    return Snapshot(taken(Here.now()))


def taken(here: Here) -> dict[str, Any]:
    """The data of a snapshot of this process, without the calling thread, unless it is the one that tells of itself."""
    return _Taking(here).data()


class _Taking:
    """Takes one snapshot."""

    def __init__(self, here: Here) -> None:
        self._here = here
        self._contexts: list[dict[str, Any]] = []
        # By address; the Context is there so that it stays.
        self._numbers: dict[int, tuple[int, Any]] = {}
        frames = sys._current_frames()
        caller = threading.get_ident()
        if caller != here.ident:
            del frames[caller]
        self._frames = frames
        # In the order in which they started.
        self._names = {thread.ident: thread.name for thread in threading.enumerate() if thread.ident in frames}
        self._threads = {ident: number for number, ident in enumerate({**self._names, **frames})}
        self._current_tasks: dict[int, int] = {}

    def data(self) -> dict[str, Any]:
        try:
            tasks = self._tasks()
            return {
                "format": FORMAT,
                "pid": os.getpid(),
                "program": " ".join(map(str, getattr(sys, "argv", []))),
                "python": sys.version.partition(" ")[0],
                "backend": backend,
                "host": host,
                "taken": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                "threads": self._seen_threads(),
                "here": self._threads[self._here.ident],
                "tasks": tasks,
                "contexts": self._contexts,
            }
        finally:
            # A frame holds all of a function's values.
            self._frames.clear()
            self._numbers.clear()

    # ---- threads ----

    def _seen_threads(self) -> list[dict[str, Any]]:
        known = contexts_of_threads()
        seen = []
        for ident in self._threads:
            context = self._here.context if ident == self._here.ident else None
            if context is None and known is not None:
                context = known.get(ident) or Context()
            seen.append(
                {
                    "name": self._names.get(ident),
                    "ident": ident,
                    "places": _program(_stack(self._frames[ident]))[::-1],
                    "task": self._current_tasks.get(ident),
                    "context": self._number(context),
                    "unknown": OTHER_THREAD if context is None else "",
                }
            )
        return seen

    # ---- tasks ----

    def _tasks(self) -> list[dict[str, Any]]:
        found: list[tuple[Any, str, int | None, bool]] = []
        asyncio = sys.modules.get("asyncio")
        # While it is being imported, there is no loop.
        for loop in self._loops() if hasattr(asyncio, "all_tasks") else ():
            assert asyncio is not None
            thread = self._here.ident if loop is self._here.loop else getattr(loop, "_thread_id", None)
            current = _tried(asyncio.current_task, loop)
            tasks = sorted(_tried(asyncio.all_tasks, loop) or (), key=_natural_name)
            found += [(task, "asyncio", thread, task is current) for task in tasks]
        if self._here.trio_task is not None:
            current = _tried(sys.modules["trio.lowlevel"].current_task)
            found += [(task, "trio", self._here.ident, task is current) for task in _trio_tasks(self._here.trio_task)]
        numbers = {id(task): number for number, (task, *_) in enumerate(found)}
        awaited_by = _awaited_by([task for task, *_ in found], numbers)
        seen = []
        for number, (task, library, thread, is_current) in enumerate(found):
            if is_current and thread is not None:
                self._current_tasks[thread] = number
            coroutine = _tried(task.get_coro) if library == "asyncio" else task.coro
            context, unknown = self._context_of(task, thread)
            seen.append(
                {
                    "name": str(task.get_name() if library == "asyncio" else task.name),
                    "library": library,
                    "thread": self._threads.get(thread),  # type: ignore[arg-type]
                    "state": "runs" if is_current else "waits",
                    "coroutine": getattr(coroutine, "__qualname__", type(coroutine).__name__),
                    "places": self._places(coroutine, thread, is_current),
                    "awaited_by": awaited_by[number],
                    "context": self._number(context),
                    "unknown": unknown,
                }
            )
        return seen

    def _loops(self) -> list[Any]:
        """The asyncio loops that run. There is no list of them, but each is in the stack of its thread, or an object
        that is known by its class."""
        base: Any = sys.modules["asyncio.events"].AbstractEventLoop
        found = [self._here.loop] if self._here.loop is not None else []
        for top in self._frames.values():
            for frame in _stack(top):
                if frame.f_code.co_name == "run_forever":
                    found.append(frame.f_locals.get("self"))
        others = {kind for kind in _below(base) if not kind.__module__.startswith("asyncio.")}
        if others:
            objects = gc.get_objects()
            # In C: objects that the program drops meanwhile would be freed here, in another thread than usual.
            found += compress(objects, map(others.__contains__, map(type, objects)))
            del objects
        loops = {id(each): each for each in found if issubclass(type(each), base)}
        return [loop for loop in loops.values() if _tried(loop.is_running)]

    def _context_of(self, task: Any, thread: int | None) -> tuple[Any, str]:
        if host == "thread":
            return None, THREAD_HOST
        if not _HAS_GIL and thread != self._here.ident:
            return None, OTHER_THREAD
        context = _tried(getattr(task, "get_context", None))
        if context is None:
            # Python's own class of tasks, and trio's; and before Python 3.12 a C task shows it only to the collector.
            shown_to_all = [getattr(task, "_context", None), getattr(task, "context", None)]
            context = next(filter(_is_context, [*shown_to_all, *gc.get_referents(task)]), None)
        return (context, "") if _is_context(context) else (None, HIDDEN)

    def _places(self, coroutine: Any, thread: int | None, is_current: bool) -> list[Place]:
        waiting = list(_waiting(coroutine))
        if is_current and waiting and thread in self._frames:
            # A coroutine that runs does not tell what it awaits.
            running = []
            for frame in _stack(self._frames[thread]):
                running.append(frame)
                if frame is waiting[0]:
                    waiting = running[::-1]
                    break
        return _program(waiting)

    # ---- Contexts ----

    def _number(self, context: Any) -> int | None:
        if context is None:
            return None
        context = kept(context)
        if id(context) not in self._numbers:
            self._numbers[id(context)] = len(self._contexts), context
            self._contexts.append(_values_in(context))
        return self._numbers[id(context)][0]


def _values_in(context: Any) -> dict[str, Any]:
    """The values in a native Context, or in one of ours."""
    ours: list[tuple[Any, Any]] = []
    native = []
    for var, value in context.items():
        if type(var) is ContextVar:
            ours.append((var, value))
        elif is_anchor(var, value):
            ours += value.items()
        else:
            native.append((var, value))
    return {"values": _by_name(ours), "native_values": _by_name(native)}


def _by_name(values: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    named: dict[str, str] = {}
    for var, value in sorted(values, key=lambda pair: str(pair[0].name)):
        name, count = var.name, 1
        while name in named:
            count += 1
            name = f"{var.name} ({count})"
        named[name] = shown_of(var, value)
    return named


def _is_context(thing: object) -> bool:
    return type(thing) in (Context, NativeContext)


def _tried(function: Callable[..., Any] | None, *args: Any) -> Any:
    """What a method of some loop's or task's own class returns; None if it has none or fails."""
    try:
        return None if function is None else function(*args)
    except Exception:
        return None


def _below(kind: type[Any]) -> Iterator[type[Any]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


def _natural_name(task: Any) -> list[str | int]:
    """Task-2 before Task-10."""
    # Texts and numbers take turns, and a text comes first.
    parts = re.split(r"(\d+)", str(task.get_name()))
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _program(frames: Iterable[FrameType]) -> list[Place]:
    """Where they are, but for this module's own."""
    return [place_of(frame) for frame in frames if frame.f_globals is not globals()]


def _waiting(coroutine: Any) -> Iterator[FrameType]:
    """The frames of a coroutine that waits, and of those that it awaits."""
    known: set[int] = set()
    # An awaitable of the program's own may lead back.
    while coroutine is not None and id(coroutine) not in known:
        known.add(id(coroutine))
        for prefix, awaited in ("cr", "await"), ("gi", "yieldfrom"), ("ag", "await"):
            frame = _tried(getattr, coroutine, f"{prefix}_frame")
            if type(frame) is FrameType:
                yield frame
                coroutine = _tried(getattr, coroutine, f"{prefix}_{awaited}")
                break
        else:
            # The awaitable of `async for` and `anext` shows its generator only to the garbage collector.
            coroutine = next((found for found in gc.get_referents(coroutine) if type(found) in _STEPS), None)


def _awaited_by(tasks: list[Any], numbers: dict[int, int]) -> list[list[int]]:
    """For each task, the numbers of those that wait for it."""
    found: list[set[int]] = [set() for _ in tasks]
    for number, task in enumerate(tasks):
        # Python 3.14 keeps it for each task; a future between two tasks, as of `gather`, is passed over.
        for by in _awaiting(task):
            tellers = (by,) if id(by) in numbers else _awaiting(by)
            found[number] |= {numbers[id(each)] for each in tellers if id(each) in numbers}
        waiter = getattr(task, "_fut_waiter", None)
        for awaited in (waiter, *getattr(waiter, "_children", ())):
            if id(awaited) in numbers:
                found[numbers[id(awaited)]].add(number)
        parent = getattr(getattr(task, "parent_nursery", None), "parent_task", None)
        if id(parent) in numbers:
            found[number].add(numbers[id(parent)])
    return [sorted(each) for each in found]


def _awaiting(future: Any) -> Iterable[Any]:
    return getattr(future, "_asyncio_awaited_by", None) or ()


def _trio_tasks(task: Any) -> list[Any]:
    found: list[Any] = [task]
    for each in found:
        found += [child for nursery in each.child_nurseries for child in nursery.child_tasks]
    return found
