"""Looking into this process: threads and tasks, where they are, and the values in their Contexts."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from contextvars_cy import Context, ContextVar, backend, copy_context, host, tracing
from contextvars_cy._tracing.inspecting import (
    HIDDEN,
    OTHER_THREAD,
    THREAD_HOST,
    SeenTask,
    SeenThread,
    Snapshot,
    snapshot,
)

USER: ContextVar[Any] = ContextVar("user")
PASSWORD: ContextVar[Any] = tracing.secret(ContextVar("password"))
NATIVE: contextvars.ContextVar[Any] = contextvars.ContextVar("native one")
HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
# Whether this twin on this Python sees another thread's Context.
SEES_THREADS = HAS_GIL and sys.version_info < (3, 16)
if backend == "pure":
    SEES_THREADS = host == "thread" and sys.implementation.name == "cpython"
TASKS_HAVE_VALUES = host == "native"


def task_named(seen: Snapshot, name: str) -> SeenTask:
    (found,) = (task for task in seen.tasks if task.name == name)
    return found


def values(seen: SeenTask | SeenThread) -> dict[str, str]:
    assert seen.context is not None, seen.unknown
    return seen.context.values


class Raises:
    def __repr__(self) -> str:
        raise ValueError("not now")


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "None"),
        ("a" * 198, repr("a" * 198)),
        ("a" * 199, "'" + "a" * 196 + "..."),
        (b"b" * 10**6, "b'" + "b" * 195 + "..."),
        (list(range(1000)), repr(list(range(1000)))[:197] + "..."),
        (Raises(), "<Raises, whose repr raises ValueError>"),
        (object, "<class 'object'>"),
    ],
    ids=["None", "as long as is kept", "longer", "bytes", "list", "raises", "class"],
)
def test_values_are_their_reprs_cut(value: object, text: str) -> None:
    with Context():
        USER.set(value)
        assert values(snapshot().here)["user"] == text


def test_only_what_is_set_here_is_shown() -> None:
    with Context():
        assert values(snapshot().here) == {}
        USER.set("ada")
        assert values(snapshot().here) == {"user": "'ada'"}


def test_variables_of_one_name() -> None:
    first: ContextVar[int] = ContextVar("same")
    second: ContextVar[int] = ContextVar("same")
    with Context():
        first.set(1)
        second.set(2)
        seen = values(snapshot().here)
    assert sorted(seen) == ["same", "same (2)"] and sorted(seen.values()) == ["1", "2"]


def test_a_secret_is_never_written_down() -> None:
    class Secret:
        def __repr__(self) -> str:
            raise AssertionError

    with Context():
        PASSWORD.set(Secret())
        seen = snapshot()
    assert values(seen.here) == {"password": "<secret>"}
    assert "password = <secret>\n" in str(seen)


def test_secret_returns_the_variable_and_takes_variables_alone() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    assert tracing.secret(variable) is variable
    for wrong in (None, "password", Context()):
        with pytest.raises(TypeError, match="secret.. takes a ContextVar, not "):
            tracing.secret(wrong)


@pytest.mark.parametrize("secret", [False, True])
def test_native_values_are_shown_on_the_native_host(secret: bool) -> None:
    variable = contextvars.ContextVar("native secret") if secret else NATIVE
    if secret:
        tracing.secret(variable)

    def see() -> dict[str, str]:
        variable.set("ada")
        context = snapshot().here.context
        assert context is not None
        return context.native_values

    seen = contextvars.Context().run(see)
    assert seen == ({variable.name: "<secret>" if secret else "'ada'"} if host == "native" else {})


def test_nothing_of_the_program_stays_alive() -> None:
    class Value:
        pass

    value = Value()
    reference = weakref.ref(value)
    with Context() as context:
        USER.set(value)
        seen = snapshot()
    of_context = weakref.ref(context)
    del value, context
    gc.collect()
    assert reference() is None and of_context() is None
    assert "Value object" in str(seen)


# ---- threads ----


@contextmanager
def in_thread(function: Callable[[Callable[[], object]], object], name: str = "beside") -> Iterator[None]:
    """A thread that runs `function(wait)`, which is to call `wait()` when it is ready to be seen."""
    ready, end = threading.Event(), threading.Event()

    def wait() -> None:
        ready.set()
        end.wait()

    thread = threading.Thread(target=function, args=(wait,), name=name)
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        end.set()
        thread.join()


def thread_named(seen: Snapshot, name: str) -> SeenThread:
    (found,) = (thread for thread in seen.threads if thread.name == name)
    return found


def test_threads_and_where_they_are() -> None:
    def work(wait: Callable[[], object]) -> None:
        wait()

    with in_thread(work):
        seen = snapshot()
    beside = thread_named(seen, "beside")
    functions = [place.function for place in beside.places]
    assert functions.index("work") < functions.index("wait") < len(functions) - 1
    assert seen.here.ident == threading.get_ident()
    assert seen.here.places[-1].function == "test_threads_and_where_they_are"
    assert seen.here.places[-1].file == __file__
    assert f"thread beside at {__file__}:" in str(seen)


def test_another_thread_s_context_is_told_or_said_to_be_unknown() -> None:
    def work(wait: Callable[[], object]) -> None:
        USER.set("outer")
        with copy_context():
            USER.set("inner")
            wait()

    with in_thread(work):
        beside = thread_named(snapshot(), "beside")
    if SEES_THREADS:
        assert values(beside) == {"user": "'inner'"} and beside.unknown == ""
    else:
        assert beside.context is None and beside.unknown == OTHER_THREAD


def test_a_thread_that_has_set_nothing() -> None:
    with in_thread(lambda wait: wait()), Context():
        beside = thread_named(snapshot(), "beside")
    if SEES_THREADS:
        assert values(beside) == {}
    else:
        assert beside.context is None


# ---- asyncio ----


async def leaf(value: object) -> None:
    if TASKS_HAVE_VALUES:
        USER.set(value)
    await asyncio.sleep(60)


async def seen_beside(*tasks: Any) -> Snapshot:
    """A snapshot while these tasks wait."""
    for _ in range(5):
        await asyncio.sleep(0)
    seen = snapshot()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return seen


def test_tasks_and_their_values() -> None:
    async def main() -> Snapshot:
        if TASKS_HAVE_VALUES:
            USER.set("main")
        beside = asyncio.create_task(leaf("ada"), name="beside")
        return await seen_beside(beside)

    seen = asyncio.run(main())
    beside = task_named(seen, "beside")
    assert (beside.library, beside.state, beside.coroutine) == ("asyncio", "waits", "leaf")
    assert beside.thread is not None and seen.threads[beside.thread] is seen.here
    assert [place.function for place in beside.places[:2]] == ["leaf", "sleep"]
    assert beside.places[0].file == __file__
    (current,) = (task for task in seen.tasks if task.state == "runs")
    assert current.coroutine.endswith("main")
    assert [place.function for place in current.places] == ["main", "seen_beside"]
    assert seen.here.task is not None and seen.tasks[seen.here.task] is current
    if TASKS_HAVE_VALUES:
        assert values(beside) == {**values(current), "user": "'ada'"}
        assert values(current)["user"] == "'main'"
        assert current.context is seen.here.context
    else:
        assert beside.context is current.context is None
        assert beside.unknown == current.unknown == THREAD_HOST


def test_a_task_s_own_context_and_not_that_of_its_callbacks() -> None:
    async def main() -> Snapshot:
        task = asyncio.create_task(leaf("ada"), name="beside")
        task.add_done_callback(id, context=contextvars.Context())
        return await seen_beside(task)

    beside = task_named(asyncio.run(main()), "beside")
    if TASKS_HAVE_VALUES:
        assert values(beside)["user"] == "'ada'"


def test_who_awaits_whom() -> None:
    async def wait_for(*tasks: Any) -> None:
        await asyncio.gather(*tasks)

    async def wait_for_one(task: Any) -> None:
        await task

    async def main() -> Snapshot:
        leaves = [asyncio.create_task(leaf(name), name=name) for name in ("leaf 1", "leaf 2")]
        gathering = asyncio.create_task(wait_for(*leaves), name="gathering")
        awaiting = asyncio.create_task(wait_for_one(gathering), name="awaiting")
        return await seen_beside(awaiting, gathering, *leaves)

    seen = asyncio.run(main())

    def awaiting(name: str) -> list[str]:
        return [seen.tasks[number].name for number in task_named(seen, name).awaited_by]

    assert awaiting("leaf 1") == awaiting("leaf 2") == ["gathering"]
    assert awaiting("gathering") == ["awaiting"]
    assert awaiting("awaiting") == []
    margins = {line.strip().split(",")[0]: len(line) - len(line.lstrip()) for line in str(seen).splitlines()}
    assert [margins[f"task {name}"] for name in ("gathering", "leaf 1", "leaf 2")] == [4, 8, 8]


def test_tasks_that_wait_for_one_another_are_all_shown() -> None:
    tasks: dict[str, Any] = {}

    async def wait_for(name: str) -> None:
        await asyncio.sleep(0)
        await asyncio.wait([tasks[name]])
        await tasks[name]

    async def main() -> Snapshot:
        tasks.update(a=asyncio.create_task(wait_for("b"), name="a"), b=asyncio.create_task(wait_for("a"), name="b"))
        for _ in range(5):
            await asyncio.sleep(0)
        seen = snapshot()
        # One of them ends the other.
        tasks["a"].cancel()
        await asyncio.wait(tasks.values())
        return seen

    text = str(asyncio.run(main()))
    assert text.count("task a") == text.count("task b") == 1


def test_tasks_stand_in_the_order_of_their_numbers() -> None:
    names = ["Task-99", "Task-100", "Task-20000", "request 2", "request 10"]

    async def main() -> list[str]:
        tasks = [asyncio.create_task(asyncio.sleep(60)) for _ in names]
        for task, name in zip(tasks, reversed(names)):
            task.set_name(name)
        seen = [task.name for task in snapshot().tasks]
        for task in tasks:
            task.cancel()
        return [name for name in seen if name in names]

    assert asyncio.run(main()) == names


def test_a_task_in_an_async_generator() -> None:
    async def generator() -> Any:
        await asyncio.sleep(60)
        yield

    async def iterate() -> None:
        async for _ in generator():
            pass

    async def main() -> Snapshot:
        return await seen_beside(asyncio.create_task(iterate(), name="beside"))

    places = task_named(asyncio.run(main()), "beside").places
    assert [place.function for place in places[:3]] == ["iterate", "generator", "sleep"]


def test_tasks_of_a_loop_in_another_thread() -> None:
    def work(wait: Callable[[], Any]) -> None:
        async def main() -> None:
            if TASKS_HAVE_VALUES:
                USER.set("ada")
            # The thread waits in the task's own step.
            wait()

        asyncio.run(main())

    with in_thread(work):
        seen = snapshot()
    (task,) = seen.tasks
    beside = thread_named(seen, "beside")
    assert task.state == "runs" and task.thread is not None and seen.threads[task.thread] is beside
    assert [place.function for place in task.places[:2]] == ["main", "wait"]
    assert beside.task is not None and seen.tasks[beside.task] is task
    if not TASKS_HAVE_VALUES:
        assert task.unknown == THREAD_HOST
    elif HAS_GIL:
        assert values(task) == {"user": "'ada'"}
    else:
        assert task.unknown == OTHER_THREAD


def test_a_task_of_another_class() -> None:
    class Task(asyncio.Future):  # type: ignore[type-arg]
        """As little as asyncio asks for, and awkward."""

        def get_name(self) -> str:
            return "awkward"

        def get_coro(self) -> Any:
            raise ValueError

        def get_context(self) -> Any:
            raise ValueError

    async def main() -> Snapshot:
        task = Task()
        asyncio.tasks._register_task(task)  # type: ignore[arg-type]
        return snapshot()

    awkward = task_named(asyncio.run(main()), "awkward")
    assert (awkward.coroutine, awkward.places) == ("NoneType", [])
    assert awkward.unknown == (HIDDEN if TASKS_HAVE_VALUES else THREAD_HOST)


# ---- trio ----


def test_trio_s_tasks() -> None:
    async def child() -> None:
        if TASKS_HAVE_VALUES:
            USER.set("ada")
        await trio.sleep(60)

    async def main() -> Snapshot:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, name="beside")
            await trio.testing.wait_all_tasks_blocked()
            seen = snapshot()
            nursery.cancel_scope.cancel()
        return seen

    seen = trio.run(main)
    beside = task_named(seen, "beside")
    assert (beside.library, beside.state, beside.places[0].function) == ("trio", "waits", "child")
    (parent,) = (seen.tasks[number] for number in beside.awaited_by)
    assert parent.state == "runs" and parent.places[-1].function == "main"
    assert seen.here.task is not None and seen.tasks[seen.here.task] is parent
    if TASKS_HAVE_VALUES:
        assert values(beside)["user"] == "'ada'"


# ---- how it is shown ----


def test_json_has_the_same() -> None:
    with Context():
        USER.set("ada")
        seen = snapshot()
    data = json.loads(seen.to_json())
    again = Snapshot(data)
    assert (again.threads, again.tasks, str(again)) == (seen.threads, seen.tasks, str(seen))
    assert data["format"] == 1
    assert data["contexts"][data["threads"][data["here"]]["context"]]["values"] == {"user": "'ada'"}


def test_text_steers_no_terminal() -> None:
    class Steers:
        def __repr__(self) -> str:
            return "\x1b[2J\nline\ud800é"

    with Context():
        USER.set(Steers())
        text = str(snapshot())
    assert "user = \\x1b[2J\\nline\\ud800é\n" in text


def test_repr() -> None:
    seen = snapshot()
    threads = f"{len(seen.threads)} thread{'s' if len(seen.threads) > 1 else ''}"
    assert repr(seen).startswith("<Snapshot of process ") and repr(seen).endswith(f": {threads}, 0 tasks>")
