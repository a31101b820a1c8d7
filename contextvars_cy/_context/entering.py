"""Leaves a Context that is still entered when a step of an asyncio loop is over.

The body of `with context:` must not `await`. If it does, on the native host the loop cannot leave the task's own
Context: it stays entered for ever, and the task's next step is refused. On the thread host all other tasks run in
`context`. So the first entry in a step schedules a check after the step. The check leaves what is still entered, tells
the loop's exception handler the line, and cancels a task that waits in the body, so that the body ends now instead of
running outside of its Context. The end of the `with` then raises a RuntimeError.

This keeps nothing alive: it knows frames by address and code, all else by weak references.
"""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from asyncio import events, tasks
from collections.abc import Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import TYPE_CHECKING, Any

from .._backend import backend, host
from .._sealed import PACKAGE
from .twin import Context, thread_state

_NATIVE = host == "native"
_PYPY = _NATIVE and sys.implementation.name == "pypy"

if _PYPY:
    from .interpreter import abandon  # type: ignore[attr-defined]
if TYPE_CHECKING or _NATIVE and backend == "pure":
    from .native_host_py import enter_untold, leave_untold
elif _NATIVE:
    from .context_cy import enter_untold, leave_untold

_HANDLE_RUN = events.Handle._run.__code__
_MUST_NOT_AWAIT = (
    "the Context that was entered at {} was still entered when the event loop went on, and has been left. A "
    "`with context:` has to end before anything is awaited; "
) + (
    "run what awaits in a task of its own: context.run(asyncio.create_task, ...)"
    if _NATIVE
    else "the native host (CONTEXTVARS_CY_HOST=native) has Contexts for tasks, context.run(asyncio.create_task, ...)"
)
# The methods by which a context manager enters.
_ENTER = {"__enter__", "__aenter__"}
_TEST_CASE = (
    "an IsolatedAsyncioTestCase cannot enter a Context by enterContext(), since it would be left in another step. Set "
    "the variables, or use self.enterContext(var.set(...)): each test has a Context of its own already"
)


class _PerThread(threading.local):
    check: _Check | None = None


_per_thread = _PerThread()
# The Contexts that a check has left, by address, for the end of their `with`.
_left: dict[int, _Entered] = {}


def about_to_enter(context: Context, loop: events.AbstractEventLoop | None) -> None:
    """For the engine, before `with context:` and `ThreadState.enter`; `loop` is the running one, or None."""
    frame = _outside(sys._getframe(1), PACKAGE)
    if _NATIVE or loop is not None:
        _refuse_test_case(frame)
    if loop is None:
        return
    entered = _Entered(context, _outside(frame, PACKAGE, "contextlib"), loop)
    _left.pop(entered.address, None)
    check = _per_thread.check
    if check is None or check.loop() is not loop:
        check = _Check(loop)
        check.schedule(loop)
        _per_thread.check = check
    check.entered[entered.address] = entered


def refuse_to_leave(context: Context, refusal: RuntimeError) -> None:
    """For the engine, if a Context cannot be left: if a check has left it, raise the error about that."""
    entered = _left.pop(id(_native(context)), None)
    if entered is None:
        if _per_thread.check is not None:
            _per_thread.check.not_left.append(weakref.ref(_native(context)))
        return
    task = None if entered.task is None else entered.task()
    if entered.has_cancelled and task is not None and sys.version_info >= (3, 11):
        task.uncancel()
    # The refusal says less. The exception that ended the body shows where it waited.
    ended_by = sys.exc_info()[1]
    raise RuntimeError(entered.message()) from (refusal.__context__ if ended_by is refusal else ended_by)


class _Entered:
    """One `with context:` under a running loop."""

    __slots__ = ("address", "body", "context", "has_cancelled", "place", "root", "step", "task")

    def __init__(self, context: Context, frame: FrameType, loop: events.AbstractEventLoop) -> None:
        native = _native(context)
        address = self.address = id(native)
        self.context = weakref.ref(native, lambda _: _left.pop(address, None))
        self.place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        body = _body(frame)
        self.body = _known(body)
        task = tasks.current_task(loop)
        self.task: weakref.ref[tasks.Task[Any]] | None = None if task is None else weakref.ref(task)
        # The step runs as long as this frame is on the stack.
        root = getattr(task and task.get_coro(), "cr_frame", None) or body
        self.root = _known(root)
        self.step = _context_of_handle(root, task)
        self.has_cancelled = False

    def tell(self, loop: events.AbstractEventLoop) -> None:
        task = None if self.task is None else self.task()
        loop.call_exception_handler({"message": self.message()} | ({"task": task} if task else {}))

    def message(self) -> str:
        return _MUST_NOT_AWAIT.format(self.place)

    def cancel(self) -> bool:
        """Cancel the task if it waits in the body."""
        task = None if self.task is None else self.task()
        if task is not None and not task.done() and self.body in map(_known, _waiting(task.get_coro())):
            self.has_cancelled = task.cancel()
        return self.has_cancelled

    def context_of_step(self) -> Any:
        """The native Context in which the loop ran the step; None if unknown."""
        if self.step is not None:
            return self.step()
        task = None if self.task is None else self.task()
        if task is None:
            return None
        if sys.version_info >= (3, 12):
            return _native(task.get_context())
        # Before Python 3.12 a C task shows its Context only to the garbage collector.
        found = [getattr(task, "_context", None), *gc.get_referents(task)]
        return next((_native(context) for context in found if isinstance(context, (Context, _Native))), None)


class _Check:
    """The loop calls it after the step."""

    def __init__(self, loop: events.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self.is_uvloop = type(loop).__module__.partition(".")[0] in ("uvloop", "winloop")
        self.top = Context()
        self.entered: dict[int, _Entered] = {}
        # Contexts that `Context.run` could not leave, because another was still entered within.
        self.not_left: list[weakref.ref[Any]] = []

    def schedule(self, loop: Any) -> None:
        # In an empty Context, on top of all that the step leaves entered.
        options = {"context": self.top.native} if _NATIVE else {}
        if self.is_uvloop:
            # After a step whose Context it could not leave, uvloop calls only timers.
            loop.call_later(0.001, self, **options)
        else:
            loop.call_soon(self, **options)

    def __call__(self) -> None:
        try:
            self._check()
        except (RuntimeError, SystemError):
            # rloop calls this while its error about leaving the step's Context is still set.
            self._check()

    def _check(self) -> None:
        _per_thread.check = None
        if not self._may_be_late():
            return
        # A loop that runs within a step, as with nest_asyncio, calls this in the middle of that step.
        on_stack = {_known(frame) for frame in _stack(sys._getframe()) if frame.f_code is not _HANDLE_RUN}
        self.entered = {address: each for address, each in self.entered.items() if each.root not in on_stack}
        left = [self.entered[id(native)] for native in self._leave() if self._is_ours(native)]
        cancelled = set()
        for each in left:
            # An unreferenced one is gone by now, and another object may have its address.
            if each.context() is not None:
                _left[each.address] = each
            if each.task not in cancelled and each.cancel():
                cancelled.add(each.task)
        loop = self.loop()
        for each in left:
            if loop is not None:
                each.tell(loop)

    def _may_be_late(self) -> bool:
        if _PYPY or not _NATIVE:
            return True
        # Two are always there: the empty one on top, and the thread's own.
        return len([*_native_stack(self.top.native)]) > 2

    def _leave(self) -> list[Any]:
        """Leave the Contexts still entered after their step; return them, the innermost first."""
        if _PYPY:
            # PyPy leaves a Context even if another was entered within it, which then stays entered but is not current.
            natives = [each.context() for each in reversed(self.entered.values())]
            return [native for native in natives if native is not None and abandon(native)]  # pyright: ignore
        left: list[Any] = []
        state = thread_state()
        if not _NATIVE:
            while self._is_ours(state.context) or self._is_not_left(state.context):
                left.append(state.context)
                state.exit(state.context)
            return left
        count = self._count()
        if count:
            leave_untold(self.top)
            try:
                for _ in range(count):
                    left.append(state.context.native)
                    state.exit(state.context)
            finally:
                enter_untold(self.top)
        return left

    def _count(self) -> int:
        """How many native Contexts to leave, starting below the empty one."""
        natives = [*_native_stack(self.top.native)][1:-1]
        steps = {address: each.context_of_step() for address, each in self.entered.items()}
        count = 0
        for depth, native in enumerate(natives, 1):
            if self._is_ours(native):
                # The next one is a callback's Context, which is not known.
                count = depth if steps[id(native)] is not None else depth + 1
            elif self._is_not_left(native) or any(native is step for step in steps.values()):
                count = depth
        if count and self.is_uvloop:
            # uvloop runs all steps in a Context of its own.
            count += 1
        return min(count, len(natives))

    def _is_ours(self, native: Any) -> bool:
        return id(native) in self.entered and self.entered[id(native)].context() is native

    def _is_not_left(self, native: Any) -> bool:
        return any(context() is native for context in self.not_left)


def _native_stack(native: Any) -> Iterator[Any]:
    """A native Context and those below it, which it shows only to the garbage collector."""
    while native is not None:
        yield native
        native = next((found for found in gc.get_referents(native) if isinstance(found, _Native)), None)


def _native(context: Any) -> Any:
    """What a thread enters: on the native host a native Context."""
    return context.native if _NATIVE and isinstance(context, Context) else context


_Native = type(_native(Context()))


def _outside(frame: FrameType, *modules: str) -> FrameType:
    """The first frame outside of these modules."""
    while frame.f_back is not None:
        name = str(frame.f_globals.get("__name__"))
        if not any(name == module or name.startswith(module + ".") for module in modules):
            break
        frame = frame.f_back
    return frame


def _body(frame: FrameType) -> FrameType:
    """The frame whose `with` entered the Context, perhaps through the program's own context manager."""
    while frame.f_back is not None:
        if frame.f_code.co_name not in _ENTER and frame.f_back.f_code.co_name not in _ENTER:
            break
        frame = _outside(frame.f_back, "contextlib")
    return frame


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _known(frame: FrameType) -> tuple[int, CodeType]:
    return id(frame), frame.f_code


def _waiting(coroutine: Any) -> Iterator[FrameType]:
    """The frames of a coroutine that waits, and of those that it waits for."""
    while coroutine is not None:
        for prefix, awaited in ("cr", "await"), ("gi", "yieldfrom"), ("ag", "await"):
            frame = getattr(coroutine, f"{prefix}_frame", None)
            if frame is not None:
                yield frame
                coroutine = getattr(coroutine, f"{prefix}_{awaited}")
                break
        else:
            # The awaitable of `async for` and `anext` shows its generator only to the garbage collector.
            steps = (CoroutineType, GeneratorType, AsyncGeneratorType)
            coroutine = next((found for found in gc.get_referents(coroutine) if isinstance(found, steps)), None)


def _context_of_handle(root: FrameType, task: tasks.Task[Any] | None) -> weakref.ref[Any] | None:
    """The native Context in which the loop runs the step, unless it is the task's own."""
    frame = root if task is None else root.f_back
    if task is not None and frame is not None and frame.f_code is _HANDLE_RUN:
        return None
    # A callback, or a task that another task started eagerly in its own step.
    while frame is not None and frame.f_code is not _HANDLE_RUN:
        frame = frame.f_back
    return None if frame is None else weakref.ref(_native(frame.f_locals["self"]._context))


def _refuse_test_case(frame: FrameType) -> None:
    """unittest enters in one step of an asynchronous test and leaves in another."""
    if frame.f_globals.get("__name__") != "unittest.case":
        return
    asynchronous = getattr(sys.modules.get("unittest.async_case"), "IsolatedAsyncioTestCase", ())
    if frame.f_back is not None and isinstance(frame.f_back.f_locals.get("self"), asynchronous):
        raise RuntimeError(_TEST_CASE)
