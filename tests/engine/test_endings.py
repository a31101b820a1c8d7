"""A thread's end: the values of its last Context are finalised when that is gone, and use variables all the same."""

from __future__ import annotations

import _thread
import contextvars
import decimal
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, ThreadState, assign, copy_context, current_context, thread_state
from endings import in_threads
from interpreters import CPYTHON

pytestmark = pytest.mark.skipif(
    not CPYTHON, reason="what a thread leaves is finalised at some later time here, in any thread"
)

user = ContextVar("user", default="nobody")
resource: ContextVar[object] = ContextVar("resource")
native: contextvars.ContextVar[object] = contextvars.ContextVar("native")
THREADS = 30


class Resource:
    """Calls a function when it is finalised, and tells of it."""

    def __init__(self, function: Callable[[], object], told: list[object]) -> None:
        self.function = function
        self.told = told

    def __del__(self) -> None:
        try:
            self.told.append(self.function())
        except BaseException as error:
            self.told.append(error)


def start_raw(function: Callable[[], object]) -> None:
    ended = threading.Event()

    def work() -> None:
        function()
        threads_end.set(Resource(ended.set, []))

    _thread.start_new_thread(work, ())
    ended.wait()


def start_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


threads_end: contextvars.ContextVar[Resource] = contextvars.ContextVar("threads_end")
Start = Callable[[Callable[[], object]], None]
STARTS = pytest.mark.parametrize("start", [start_raw, start_thread])


def told_by(
    start: Start, function: Callable[[], object], fill: Callable[[Resource], object] = resource.set
) -> list[object]:
    """What the function returns where the values of some threads are finalised, each in its own thread."""
    told: list[object] = []
    for _ in range(THREADS):
        start(lambda: fill(Resource(function, told)))
    start(gc.collect)
    return told


def in_native_context(function: Callable[[], object]) -> object:
    # Both make a native Context anew, in the place of the one that is gone.
    native.set(1)
    decimal.Decimal(1) / 3
    return function()


@STARTS
@pytest.mark.parametrize("looks", [0, 1, 3])
def test_a_finaliser_sees_none_of_the_values(start: Start, looks: int) -> None:
    def fill(value: object) -> None:
        resource.set(value)
        user.set("ada")
        for _ in range(looks):
            user.get()

    told = told_by(start, lambda: in_native_context(user.get), fill)
    assert told == ["nobody"] * THREADS


@STARTS
def test_a_finaliser_sets_and_enters(start: Start) -> None:
    def use() -> list[object]:
        seen: list[object] = [Context().run(user.get)]
        with user.set("ada"), copy_context() as context:
            seen += [user.get(), current_context() is context]
        with assign({user: "grace"}):
            seen.append(user.get())
        state = thread_state()
        state.enter(context)
        seen.append(state is thread_state() and state.context is context)
        state.exit(context)
        return [*seen, user.get()]

    told = told_by(start, lambda: in_native_context(use))
    assert told == [["nobody", "ada", True, "grace", True, "nobody"]] * THREADS


@STARTS
@pytest.mark.parametrize("variable", [resource, native], ids=["ours", "native"])
def test_finalisers_leave_no_thread_state_behind(start: Start, variable: Any) -> None:
    def use() -> bool:
        Context().run(user.set, "ada")
        with copy_context():
            user.set("grace")
        return thread_state() is thread_state()

    def thread_states() -> int:
        gc.collect()
        return sum(type(thing) is ThreadState for thing in gc.get_objects())

    before = thread_states()
    assert told_by(start, lambda: in_native_context(use), variable.set) == [True] * THREADS
    # That of the last thread may go with the next one.
    assert thread_states() <= before + 2


@pytest.mark.parametrize("seed", range(100))
def test_random_finalisers(seed: int) -> None:
    made, ended, failures = in_threads(seed, THREADS)
    assert (failures, len(ended) > 0) == ([], True)
