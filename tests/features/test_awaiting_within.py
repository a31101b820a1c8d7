"""What awaits within `with context:` gets an error that names the line, and the loop, the task and the thread go on."""

from __future__ import annotations

import asyncio
import contextlib
import linecache
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, assign, copy_context, current_context, host, thread_state
from interpreters import CPYTHON

USER = ContextVar("user", default="nobody")
STILL_ENTERED = "was still entered when the event loop went on"


def outcome_of(
    body: Callable[[], Awaitable[object]],
    step: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> tuple[Any, list[str]]:
    """Its result or error, what the loop's exception handler was told of it, and whether all is as it was."""

    async def main() -> tuple[Any, list[str]]:
        told: list[str] = []
        loop = asyncio.get_running_loop()
        # asyncio's own message comes first, on Pythons where it does not fail.
        loop.set_exception_handler(lambda loop, about: told.append(about["message"]))
        with step():
            task = asyncio.ensure_future(body())
        (outcome,) = await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 60)
        # The loop and other tasks go on.
        assert await asyncio.ensure_future(asyncio.sleep(0.001, "other")) == "other"
        return outcome, [message for message in told if STILL_ENTERED in message]

    # On the thread host a task cannot set anything in the thread's own Context.
    outside = Context()

    def program() -> tuple[Any, list[str]]:
        assert thread_state().context is outside
        outcome = asyncio.run(main())
        assert current_context() is outside
        assert USER.get() == "nobody"
        return outcome

    return outside.run(program)


def lines_of(messages: Iterable[str]) -> Iterator[str]:
    for message in messages:
        place = message.partition("entered at ")[2].partition(" in ")[0]
        name, _, number = place.rpartition(":")
        yield linecache.getline(name, int(number)).strip()


async def in_a_with() -> None:
    with copy_context():
        USER.set("ada")
        await asyncio.sleep(60)


async def in_a_step_that_comes_at_once() -> None:
    with copy_context():
        await asyncio.sleep(0)
        raise AssertionError("went on")


async def on_an_exit_stack() -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(copy_context())
        await asyncio.sleep(60)


async def in_an_async_generator() -> None:
    async def numbers() -> AsyncIterator[int]:
        with copy_context():
            await asyncio.sleep(60)
            yield 1

    async for _ in numbers():
        pass


@contextlib.contextmanager
def signed_in() -> Iterator[None]:
    with copy_context():
        yield


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[None]:
    with copy_context():
        yield


class Session:
    def __enter__(self) -> None:
        self.context = copy_context()
        self.context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.context.__exit__(*error)


async def in_a_context_manager() -> None:
    with signed_in():
        await asyncio.sleep(60)


async def in_an_async_context_manager() -> None:
    async with connected():
        await asyncio.sleep(60)


async def in_a_context_manager_that_is_a_class() -> None:
    with Session():
        await asyncio.sleep(60)


async def below() -> None:
    async def inner() -> None:
        await in_a_with()

    await inner()


async def with_a_timeout() -> None:
    await asyncio.wait_for(in_a_with(), 60)


async def while_it_ends() -> None:
    with copy_context():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)


async def and_swallows_the_cancellation() -> None:
    with copy_context():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "body",
    [
        in_a_with,
        in_a_step_that_comes_at_once,
        on_an_exit_stack,
        in_an_async_generator,
        in_a_context_manager,
        in_an_async_context_manager,
        in_a_context_manager_that_is_a_class,
        below,
        with_a_timeout,
        while_it_ends,
        and_swallows_the_cancellation,
    ],
    ids=lambda body: body.__name__,
)
def test_it_is_an_error_that_names_the_line(body: Callable[[], Awaitable[object]]) -> None:
    error, told = outcome_of(body)
    assert type(error) is RuntimeError
    assert [*lines_of(told)] == [*lines_of([str(error)])]
    assert [*lines_of(told)][0] in (
        "with copy_context():",
        "stack.enter_context(copy_context())",
        "self.context.__enter__()",
    )


@pytest.mark.skipif(not CPYTHON, reason="an error that asyncio threw in loses what its traceback gained")
def test_the_error_shows_where_it_waited() -> None:
    error, _ = outcome_of(in_a_with)
    assert type(error.__cause__) is asyncio.CancelledError
    traceback = error.__cause__.__traceback__
    assert linecache.getline(__file__, traceback.tb_lineno).strip() == "await asyncio.sleep(60)"  # type: ignore[union-attr]


def test_several_in_one_another() -> None:
    async def body() -> None:
        with copy_context(), Context():
            with copy_context():
                await asyncio.sleep(60)

    error, told = outcome_of(body)
    assert type(error) is RuntimeError
    assert [*lines_of(told)] == [
        "with copy_context():",
        "with copy_context(), Context():",
        "with copy_context(), Context():",
    ]


def test_several_tasks_at_once() -> None:
    async def body() -> set[type[object]]:
        errors = await asyncio.gather(*(in_a_with() for _ in range(5)), return_exceptions=True)
        return {type(error) for error in errors}

    kinds, told = outcome_of(body)
    assert kinds == {RuntimeError}
    assert len(told) == 5


def test_a_task_that_has_caught_it_goes_on() -> None:
    async def body() -> int:
        for _ in range(3):
            with pytest.raises(RuntimeError, match=STILL_ENTERED):
                await in_a_with()
            await asyncio.sleep(0)
        task: Any = asyncio.current_task()
        return task.cancelling() if sys.version_info >= (3, 11) else 0

    cancelling, told = outcome_of(body)
    assert (cancelling, len(told)) == (0, 3)


def test_what_is_entered_for_good_is_left_and_the_program_goes_on() -> None:
    """As by a cell of a notebook: it is the one that leaves it which gets the error."""
    context = copy_context()

    def cell() -> None:
        context.__enter__()
        USER.set("ada")

    async def body() -> tuple[str, str]:
        cell()
        await asyncio.sleep(0)
        seen = USER.get()
        with pytest.raises(RuntimeError, match=STILL_ENTERED):
            context.__exit__(None, None, None)
        await asyncio.sleep(0)
        with context:
            return seen, USER.get()

    outcome, told = outcome_of(body)
    assert outcome == ("nobody", "ada")
    assert [*lines_of(told)] == ["context.__enter__()"]


@pytest.mark.parametrize(
    "enter",
    [lambda: copy_context().__enter__(), lambda: thread_state().enter(copy_context())],
    ids=["__enter__", "thread state"],
)
def test_a_context_that_nobody_holds(enter: Callable[[], object]) -> None:
    async def body() -> str:
        enter()
        await asyncio.sleep(0)
        return "goes on"

    outcome, told = outcome_of(body)
    assert (outcome, len(told)) == ("goes on", 1)


def test_within_a_context_that_something_is_run_in() -> None:
    def enter() -> None:
        copy_context().__enter__()

    async def body() -> str:
        with pytest.raises(RuntimeError, match="different context object"):
            Context().run(enter)
        await asyncio.sleep(0)
        return "goes on"

    outcome, told = outcome_of(body)
    assert (outcome, len(told)) == ("goes on", 1)


def test_in_a_callback() -> None:
    async def body() -> str:
        asyncio.get_running_loop().call_soon(lambda: copy_context().__enter__())
        await asyncio.sleep(0.001)
        return "goes on"

    outcome, told = outcome_of(body)
    assert (outcome, len(told)) == ("goes on", 1)


def test_in_the_last_step_of_a_program() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, about: told.append(about["message"]))
        copy_context().__enter__()

    told: list[str] = []

    def program() -> bool:
        outside = current_context()
        asyncio.run(main())
        return current_context() is outside

    assert Context().run(program)
    assert STILL_ENTERED in told[-1]


def test_in_threads() -> None:
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(outcome_of(in_a_with))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(type(error), len(told)) for error, told in outcomes] == [(RuntimeError, 1)] * 4


def test_what_ends_in_its_step_is_left_in_peace() -> None:
    async def body() -> str:
        for number in range(3):
            with copy_context() as context:
                USER.set(str(number))
                with Context(), assign({USER: "inner"}):
                    pass
                task = asyncio.ensure_future(asyncio.sleep(0, "a task of its own"))
            assert await task == "a task of its own"
            assert context[USER] == str(number)
        return USER.get()

    assert outcome_of(body) == ("nobody", [])


def test_a_loop_within_a_step() -> None:
    """As nest_asyncio has it: the step, and the body, go on after it."""

    async def body() -> tuple[list[str], str]:
        loop: Any = asyncio.get_running_loop()
        task: Any = asyncio.current_task()
        seen: list[str] = []
        with Context() as context:
            USER.set("ada")
            loop.call_soon(lambda: seen.append(USER.get()))
            asyncio.tasks._leave_task(loop, task)
            loop._run_once()
            asyncio.tasks._enter_task(loop, task)
            assert current_context() is context
            return seen, USER.get()

    assert outcome_of(body) == ((["ada"], "ada"), [])


if host == "native":

    def test_a_context_around_the_loop_stays_entered() -> None:
        def program() -> tuple[tuple[Any, list[str]], bool]:
            outside = current_context()
            return outcome_of(in_a_with), current_context() is outside

        with copy_context():
            (error, told), stays = copy_context().run(program)
        assert (type(error), len(told), stays) == (RuntimeError, 1, True)

    if sys.version_info >= (3, 12):

        def test_a_task_that_is_started_eagerly() -> None:
            async def body() -> str:
                asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
                try:
                    # The interpreter refuses to start it. After a RuntimeError ensure_future() would close the
                    # coroutine, which ends the body in this step.
                    with pytest.raises((RuntimeError, SystemError)):
                        asyncio.create_task(in_a_with())
                finally:
                    asyncio.get_running_loop().set_task_factory(None)
                await asyncio.sleep(0)
                return "goes on"

            outcome, told = outcome_of(body)
            assert (outcome, len(told)) == ("goes on", 1)
