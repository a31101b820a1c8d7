"""Interrupts: wherever an exception comes from outside, a Context is entered or it is not, a variable set or not.

CPython raises it when a function of Python begins, after each call, and where a loop begins again. So there is one
moment that no context manager made of Python code can do anything about: its `__exit__` has been called, and has not
done its work. An interrupt there leaves a Context of the reference entered. The compiled twin has no such moment; but
from Python 3.14 on `with` itself looks for interrupts after it has called an `__enter__` of C, a lock's or the compiled
twin's, and leaves it entered.

Older Pythons look for interrupts in more places, and the reference has more such moments: on 3.10 when `__enter__` has
done its work and has not returned, and on 3.9 between almost any two bytecodes.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import queue
import random
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Sized
from types import FrameType
from typing import Any

import pytest

import contextvars_cy
from contextvars_cy import Context, ContextVar, Hamt, HamtMutation, assign, current_context, thread_state
from interpreters import CPYTHON, TRACED

if not CPYTHON:
    pytest.skip("the interrupts come by way of CPython's C API", allow_module_level=True)

pytestmark = [
    pytest.mark.skipif(TRACED, reason="the tracing would be interrupted too, and stop"),
    pytest.mark.usefixtures("context_of_its_own", "heeded_interrupts"),
    # What is raised in a weak reference's callback is reported and lost.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

VAR = ContextVar("VAR", default="default")
OTHER = ContextVar("OTHER", default="default")
PURE = contextvars_cy.backend == "pure"
ROUNDS = 1000


@pytest.fixture
def heeded_interrupts() -> Iterator[None]:
    """A shell has the commands that it runs in the background ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Scene:
    """What an operation begins with, and what must be true of it after an interrupt."""

    def __init__(self) -> None:
        self.outer = current_context()
        self.context = Context()
        self.assignment = assign({OTHER: "old"})
        self.token = VAR.set("old")
        self.mutation: HamtMutation[str, int] = Hamt().mutate()

    def run(self) -> None:
        self.context.run(VAR.set, "new")

    def run_in_run(self) -> None:
        self.context.run(Context().run, VAR.set, "new")

    def run_and_raise(self) -> None:
        with contextlib.suppress(ZeroDivisionError):
            self.context.run(divmod, 1, 0)

    def with_context(self) -> None:
        with self.context:
            VAR.set("new")

    def enter(self) -> None:
        thread_state().enter(self.context)

    def exit(self) -> None:
        thread_state().exit(self.context)

    def set(self) -> None:
        VAR.set("new")

    def reset(self) -> None:
        VAR.reset(self.token)

    def assign(self) -> None:
        assign({VAR: "new", OTHER: "new"})

    def undo(self) -> None:
        self.assignment.undo()

    def with_token(self) -> None:
        with VAR.set("new"):
            pass

    def change_map(self) -> None:
        self.mutation["key"] = 1

    def check(self, operation: str, error: Any) -> None:
        current = current_context()
        if current is self.context and operation in ("enter", "exit"):
            thread_state().exit(current)
        elif current is self.context and operation == "with_context":
            functions = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
            if PURE:
                assert functions & ({"__exit__"} if sys.version_info >= (3, 11) else {"__enter__", "__exit__"})
            else:
                assert a_lock_can_stay_locked()
            thread_state().exit(current)
        else:
            assert current is self.outer
        # It can be entered again, and nobody else's Context has changed.
        assert self.context.run(VAR.get) in ("default", "new")
        assert thread_state().context is self.outer
        if operation == "assign":
            assert VAR.get() == OTHER.get()
        if operation == "undo" and OTHER.get() == "old":
            self.assignment.undo()
        assert OTHER.get() == "default" if operation == "undo" else OTHER.get() in ("old", "new")
        OTHER.set("default")
        if operation == "reset":
            if VAR.get() == "old":
                VAR.reset(self.token)
            assert VAR.get() == "default"
        else:
            assert VAR.get() in ("old", "new") if operation in ("set", "assign", "with_token") else VAR.get() == "old"
            VAR.set("default")
        assert len(self.mutation.finish()) in (0, 1)


OPERATIONS = ["set", "reset", "assign", "undo", "with_token"]
if not PURE or sys.version_info >= (3, 10):
    OPERATIONS += ["run", "run_in_run", "with_context", "enter", "exit", "change_map"]
if not PURE or sys.version_info >= (3, 11):
    # Python 3.10 looks for interrupts where the handler of an exception begins, a `finally` too.
    OPERATIONS += ["run_and_raise"]


class Local:
    """Dies with the function that has it."""


class Interrupt:
    """Calls a function and has a signal come before a certain bytecode of it, or of our modules.

    The signal only comes there: the interpreter raises KeyboardInterrupt where it next looks for signals. Until then no
    other code of Python may begin. So tracing ends, and when the trace function has ended too, and its local variables
    are dropped, a function of C has the signal come, as the callback of a weak reference to one of them.
    """

    come = ctypes.PYFUNCTYPE(None, ctypes.py_object)(("PyErr_SetInterrupt", ctypes.pythonapi))

    def __init__(self, rehearse: Callable[[], object], function: Any, moment: int) -> None:
        self.function = function
        self.left = sys.maxsize
        self.error: BaseException | None = None
        try:
            # Python 3.12 and later look for this when tracing begins, and trace bytecodes from a second call on.
            sys._getframe().f_trace_opcodes = True
            sys.settrace(self.trace)
            try:
                rehearse()
                self.left = moment
                function()
            finally:
                sys.settrace(None)
            # At the latest here.
            for _ in range(2):
                pass
        except KeyboardInterrupt as error:
            self.error = error

    def trace(self, frame: FrameType, event: str, argument: object) -> Callable[[FrameType, str, object], None] | None:
        ours = frame.f_globals["__name__"].startswith("contextvars_cy.")
        if ours or frame.f_code is self.function.__code__:
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            return self.count
        return None

    def count(self, frame: FrameType | None, event: str, argument: object) -> None:
        self.left -= event == "opcode"
        if self.left == 0:
            sys.settrace(None)
            while frame:
                frame.f_trace = None
                frame = frame.f_back
            local = Local()
            self.reference = weakref.ref(local, self.come)


@functools.cache
def a_lock_can_stay_locked() -> bool:  # type: ignore[return]
    """Whether an interrupt can come between the `__enter__` of C code and the body of a `with`."""

    def with_lock() -> None:
        with lock:
            pass

    for moment in itertools.count(1):
        lock = threading.Lock()
        interrupt = Interrupt(with_lock, with_lock, moment)
        if lock.locked() or interrupt.left > 0:
            return lock.locked()


def interrupted(operation: str, moment: int) -> Interrupt:
    scene, rehearsal = Scene(), Scene()

    def rehearse() -> None:
        if operation not in ("enter", "exit"):
            getattr(rehearsal, operation)()
            return
        rehearsal.enter()
        rehearsal.exit()
        if operation == "exit":
            scene.enter()

    interrupt = Interrupt(rehearse, getattr(scene, operation), moment)
    scene.check(operation, interrupt.error)
    return interrupt


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_interrupt_at_every_moment(operation: str) -> None:
    raised = 0
    for moment in itertools.count(1):
        interrupt = interrupted(operation, moment)
        raised += interrupt.error is not None
        if interrupt.left > 0:
            break
    assert raised > 0


class FromOutside(BaseException):
    pass


def begun(operation: str) -> Scene:
    scene = Scene()
    if operation == "exit":
        scene.enter()
    return scene


def wait_for(events: Sized, count: int) -> None:
    while len(events) < count:
        pass
    # By now the interpreter has looked for what came with it.
    for _ in range(2):
        pass


def test_signals_of_a_timer() -> None:
    came: list[int] = []

    def handle(number: int, frame: object) -> None:
        came.append(number)
        raise FromOutside

    before = signal.signal(signal.SIGALRM, handle)
    for count, operation in enumerate(random.choices(OPERATIONS, k=ROUNDS), 1):
        scene, error = begun(operation), None
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-4))
            getattr(scene, operation)()
            wait_for(came, count)
        except FromOutside as exception:
            error = exception
        scene.check(operation, error)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("quick_switches")
def test_exceptions_that_another_thread_sends() -> None:
    failures: list[BaseException] = []
    sent: list[bool] = []
    begun_in: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            for count, operation in enumerate(random.choices(OPERATIONS, k=ROUNDS), 1):
                scene, error = begun(operation), None
                try:
                    begun_in.put(threading.get_ident())
                    getattr(scene, operation)()
                    wait_for(sent, count)
                except FromOutside as exception:
                    error = exception
                scene.check(operation, error)
        except BaseException as error:
            failures.append(error)
        finally:
            begun_in.put(None)

    thread = threading.Thread(target=work)
    thread.start()
    for number in iter(begun_in.get, None):
        for _ in range(random.randrange(300)):
            pass
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(number), ctypes.py_object(FromOutside)) == 1
        sent.append(True)
    thread.join()
    if failures:
        raise failures[0]
