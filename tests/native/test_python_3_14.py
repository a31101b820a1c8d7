"""What is new in Python 3.14 and 3.15: threads that inherit a context, eager tasks, watchers of contexts."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import operator
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, Hamt, backend, copy_context, current_context, thread_state, watch

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="what is tested came with Python 3.14")

VAR: ContextVar[object] = ContextVar("VAR", default="default")


# ---- threads ----


def seen_in_a_thread(function: Callable[[], object] = VAR.get, **options: Any) -> object:
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(function()), **options)
    thread.start()
    thread.join()
    return seen[0]


@pytest.mark.parametrize("form", ["ours", "native"])
def test_a_thread_runs_in_the_context_that_it_is_given(form: str) -> None:
    context = Context()
    context.run(VAR.set, "given")
    given = context if form == "ours" else context.native
    assert seen_in_a_thread(context=given) == "given"
    assert seen_in_a_thread(current_context, context=given) is context
    seen_in_a_thread(lambda: VAR.set("thread"), context=given)
    assert context[VAR] == "thread"


INHERITS = """
import sys, threading
from contextvars_cy import ContextVar, copy_context
assert sys.flags.thread_inherit_context == int(sys.argv[1])
variable = ContextVar("variable", default="default")
variable.set("starter")
seen = []
for options in ({}, {"context": copy_context()}):
    thread = threading.Thread(target=lambda: seen.append(variable.set("thread").old_value), **options)
    thread.start()
    thread.join()
print(seen, variable.get())
"""


@pytest.mark.parametrize("flag, seen", [("1", "'starter'"), ("0", "<Token.MISSING>")])
def test_threads_inherit_where_the_interpreter_was_told_so(flag: str, seen: str) -> None:
    command = [sys.executable, "-X", f"thread_inherit_context={flag}", "-c", INHERITS, flag]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"[{seen}, 'starter'] starter\n", "")


def test_the_flag_of_this_interpreter_is_followed() -> None:
    with copy_context():
        VAR.set("starter")
        inherits = sys.flags.thread_inherit_context  # type: ignore[attr-defined, unused-ignore]
        assert seen_in_a_thread() == ("starter" if inherits else "default")


# ---- eager tasks ----


def test_an_eager_task_starts_in_its_context_at_once() -> None:
    context = Context()
    context.run(VAR.set, "given")

    async def work(value: str) -> list[object]:
        seen = [VAR.get(), current_context() is context]
        VAR.set(value)
        await asyncio.sleep(0)
        return [*seen, VAR.get()]

    async def main() -> None:
        VAR.set("main")
        task = asyncio.create_task(work("eager"), context=context.native, eager_start=True)  # type: ignore[call-arg, unused-ignore]
        assert context[VAR] == "eager" and VAR.get() == "main"
        assert await task == ["given", True, "eager"]
        task = asyncio.create_task(work("copy"), eager_start=True)  # type: ignore[call-arg, unused-ignore]
        assert VAR.get() == "main"
        assert await task == ["main", False, "copy"]
        assert VAR.get() == "main"

    asyncio.run(main())


def test_an_eager_task_that_fails_at_once_leaves_its_context() -> None:
    context = Context()

    async def fail() -> None:
        VAR.set("failed")
        raise ZeroDivisionError

    async def main() -> None:
        before = current_context()
        task = asyncio.create_task(fail(), context=context.native, eager_start=True)  # type: ignore[call-arg, unused-ignore]
        assert current_context() is before and VAR.get() == "default"
        with pytest.raises(ZeroDivisionError):
            await task
        assert context[VAR] == "failed"
        context.run(VAR.set, "again")

    asyncio.run(main())


def test_a_task_takes_our_context_and_the_native_one_in_it() -> None:
    async def work() -> object:
        return VAR.get()

    async def main() -> None:
        context = Context()
        context.run(VAR.set, "given")
        for given in (context, context.native):
            for create in (asyncio.Task, asyncio.tasks._PyTask, asyncio.create_task):  # type: ignore[attr-defined]
                assert await create(work(), context=given) == "given"  # type: ignore[arg-type, call-arg, unused-ignore]

    asyncio.run(main())


# ---- watchers ----


@pytest.fixture
def switches() -> Iterator[list[contextvars.Context]]:
    """The native Contexts that the interpreter tells its watchers of, as they become the current ones."""
    seen: list[contextvars.Context] = []

    def watch(event: int, context: contextvars.Context) -> int:
        assert event == 1
        seen.append(context)
        return 0

    callback = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.py_object)(watch)
    number = ctypes.pythonapi.PyContext_AddWatcher(callback)
    assert number >= 0
    yield seen
    assert ctypes.pythonapi.PyContext_ClearWatcher(number) == 0


@pytest.fixture
def outer() -> Iterator[Context]:
    """The current Context, entered, so that there is one to come back to."""
    with copy_context() as context:
        yield context


def test_watchers_see_run(outer: Context, switches: list[contextvars.Context]) -> None:
    context, inner = Context(), Context()
    context.run(inner.run, VAR.get)
    switched = [context, inner, context, outer]
    assert len(switches) == len(switched)
    assert all(seen is each.native for seen, each in zip(switches, switched))


def test_watchers_see_with_and_thread_states(outer: Context, switches: list[contextvars.Context]) -> None:
    context = Context()
    with context:
        pass
    thread_state().enter(context)
    thread_state().exit(context)
    with pytest.raises(ZeroDivisionError), context:
        raise ZeroDivisionError
    switched = [context, outer] * 3
    assert len(switches) == len(switched)
    assert all(seen is each.native for seen, each in zip(switches, switched))


def test_watchers_see_no_switch_where_there_is_none(outer: Context, switches: list[contextvars.Context]) -> None:
    token = VAR.set(1)
    VAR.reset(token)
    copy_context(), current_context(), Context(), VAR.get()
    for act in (lambda: outer.run(int), outer.__enter__, lambda: thread_state().enter(outer)):
        with pytest.raises(RuntimeError, match="is already entered"):
            act()
    assert switches == []


def test_a_watcher_finds_our_variables(outer: Context) -> None:
    seen: list[object] = []

    def watch(event: int, context: contextvars.Context) -> int:
        seen.append(VAR.get())
        return 0

    context = Context()
    context.run(VAR.set, "inside")
    callback = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.py_object)(watch)
    number = ctypes.pythonapi.PyContext_AddWatcher(callback)
    try:
        context.run(int)
        with context:
            pass
    finally:
        assert ctypes.pythonapi.PyContext_ClearWatcher(number) == 0
    assert seen == ["inside", "default"] * 2


# ---- comparisons ----


def test_native_contexts_compared_by_values_that_set_variables() -> None:
    """CPython issue 142829, which older ones crash of: it lends the snapshots to the comparison."""

    class Value:
        def __eq__(self, other: object) -> bool:
            if armed:
                armed.clear()
                for var in others:
                    var.set("replaced")
                maps = [Hamt({var: Other() for var in variables}) for _ in range(40)]
                del maps
                filled.append([bytes([255]) * size for size in range(1, 300) for _ in range(50)])
            return True

    class Other:
        pass

    def set_all() -> None:
        for var in variables:
            var.set(Value())

    variables: list[ContextVar[object]] = [ContextVar(f"variable {number}") for number in range(20)]
    others: list[ContextVar[object]] = [ContextVar(f"other {number}") for number in range(8)]
    armed: list[bool] = []
    filled: list[list[bytes]] = []
    for _ in range(10):
        # Nodes of every size, to be used again.
        Context().run(lambda: [set_all(), *(var.set(1) for var in others)])  # type: ignore[func-returns-value]
        one, two = Context(), Context()
        one.run(set_all)
        two.run(set_all)
        armed.append(True)
        assert isinstance(one.run(operator.eq, one.native, two.native), bool)
        assert [one[var] for var in others] == ["replaced"] * len(others)


def test_watch_is_told_of_switches_that_are_not_our_own() -> None:
    async def main() -> list[tuple[str, bool]]:
        task = asyncio.current_task()
        assert task is not None
        kinds.clear()
        await asyncio.sleep(0)
        return list(kinds)

    kinds: list[tuple[str, bool]] = []
    with watch(lambda event: kinds.append((event.kind, event.context is current_context()))):
        told = copy_context().run(asyncio.run, main())
        kinds.clear()
        Context().run(int)
        with Context():
            pass
        assert [kind for kind, _ in kinds] == ["enter", "exit"] * 2
    kinds.clear()
    copy_context().run(asyncio.run, main())
    assert not kinds
    # Python code is not told of them.
    assert set(told) == ({("switch", True)} if backend == "cython" else set())


def test_the_watcher_of_a_variable_is_told_of_a_switch_that_changes_it() -> None:
    async def child() -> None:
        VAR.set("child")
        await asyncio.sleep(0)

    async def main() -> None:
        VAR.set("main")
        await asyncio.gather(child(), asyncio.sleep(0))
        # Its own value is the one that was told last: no event.
        await asyncio.sleep(0)

    events: list[tuple[str, object, object, object]] = []
    with copy_context():
        VAR.set("outside")
        with VAR.watch(lambda event: events.append((event.kind, event.old_value, event.value, VAR.get()))):
            asyncio.run(main())
    values = [value for _, _, value, _ in events]
    assert [value for *_, value in events] == values
    # Each begins with what the last has ended with, and none is about nothing.
    assert [old for _, old, *_ in events] == ["outside", *values[:-1]]
    assert all(old != value for _, old, value, _ in events)
    switches = {(old, value) for kind, old, value, _ in events if kind == "switch"}
    # Each task goes on from the loop and back to it.
    steps = {("outside", "main"), ("main", "outside"), ("outside", "child"), ("child", "outside")}
    assert switches == (steps if backend == "cython" else set())


def test_an_error_on_its_way_passes_a_callback_of_watch() -> None:
    kinds: list[str] = []
    with watch(lambda event: kinds.append(event.kind)):
        with pytest.raises(ZeroDivisionError):
            contextvars.copy_context().run(lambda: 1 / 0)
    assert kinds == (["switch", "switch"] if backend == "cython" else [])
