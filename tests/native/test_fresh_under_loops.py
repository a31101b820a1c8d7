"""A fresh Context under event loops that follow Python's own contexts, and the standard library's variables in one."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import decimal
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio

from contextvars_cy import ContextVar, assign, copy_context, current_context, fresh

TENANT: ContextVar[Any] = ContextVar("tenant", default="-")
USER: ContextVar[Any] = ContextVar("user", default="nobody")
NATIVE: contextvars.ContextVar[str] = contextvars.ContextVar("NATIVE", default="default")

Main = Callable[[], Awaitable[None]]
Run = Callable[[Main], None]


def asyncio_run(main: Main) -> None:
    async def task() -> None:
        await main()

    asyncio.run(task())


LOOPS = pytest.mark.parametrize(
    ("run", "checkpoint"),
    [(asyncio_run, lambda: asyncio.sleep(0)), (trio.run, trio.lowlevel.checkpoint)],
    ids=["asyncio", "trio"],
)


@pytest.fixture(autouse=True)
def signed_in() -> Iterator[None]:
    with copy_context():
        assign({TENANT: "acme", USER: "ada"})
        NATIVE.set("outside")
        yield


def seen() -> tuple[Any, Any]:
    return TENANT.get(), USER.get()


@LOOPS
def test_a_block_may_await(run: Run, checkpoint: Main) -> None:
    async def main() -> None:
        with fresh(keep=[TENANT]) as context:
            assert context is current_context() and dict(context) == {TENANT: "acme"}
            await checkpoint()
            assert seen() == ("acme", "nobody")
            assign({TENANT: "left", USER: "left"})
            await checkpoint()
            assert seen() == ("left", "left")
        assert seen() == ("acme", "ada")
        await checkpoint()
        assert seen() == ("acme", "ada")

    run(main)
    assert seen() == ("acme", "ada")


@LOOPS
def test_a_worker_that_does_one_job_after_another(run: Run, checkpoint: Main) -> None:
    found = []

    async def job(number: int) -> None:
        found.append(seen())
        await checkpoint()
        assign({TENANT: number, USER: number})

    async def main() -> None:
        guard = fresh(keep=[TENANT])
        for number in range(3):
            with guard:
                await job(number)
        decorated = guard(job)
        for number in range(3):
            await decorated(number)

    run(main)
    assert found == [("acme", "nobody")] * 6


@LOOPS
def test_an_error_or_a_cancellation_in_a_block_ends_it(run: Run, checkpoint: Main) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            with fresh():
                USER.set("left")
                await checkpoint()
                1 / 0
        assert seen() == ("acme", "ada")

    run(main)

    async def cancelled() -> None:
        ended = []

        async def wait() -> None:
            try:
                with fresh():
                    USER.set("left")
                    await asyncio.sleep(60)
            finally:
                ended.append(seen())

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert ended == [("acme", "ada")]

    asyncio.run(cancelled())


def test_one_object_serves_many_tasks_at_once() -> None:
    guard = fresh(keep=[TENANT])

    async def work(tenant: int) -> None:
        with TENANT.set(tenant):
            with guard:
                for _ in range(3):
                    await asyncio.sleep(0)
                    assert seen() == (tenant, "nobody")
                with guard:
                    await asyncio.sleep(0)
                USER.set(tenant)
                await asyncio.sleep(0)
                USER.unset()
            assert seen() == (tenant, "ada")

    async def main() -> None:
        await asyncio.gather(*map(work, range(20)))

    asyncio.run(main())


def test_what_is_started_in_a_block_has_its_values() -> None:
    async def read() -> Any:
        return seen()

    async def main() -> None:
        with fresh(keep=[TENANT]):
            USER.set("in the block")
            task = asyncio.create_task(read())
            assert await asyncio.to_thread(seen) == ("acme", "in the block")
        assert await task == ("acme", "in the block")

    asyncio.run(main())


def test_a_callback_of_a_loop_enters_one() -> None:
    async def main() -> None:
        done = asyncio.get_running_loop().create_future()

        def callback() -> None:
            with fresh(keep=[TENANT]):
                NATIVE.set("left")
                found = seen()
            done.set_result((*found, *seen(), NATIVE.get()))

        asyncio.get_running_loop().call_soon(callback)
        assert await done == ("acme", "nobody", "acme", "ada", "outside")

    asyncio.run(main())


def test_a_block_of_an_async_generator_that_another_task_ends_is_an_error() -> None:
    async def numbers() -> AsyncGenerator[int, None]:
        with fresh():
            yield 1

    async def main() -> None:
        stepped = numbers()
        await stepped.asend(None)
        with pytest.raises(RuntimeError, match=r"ends in another Context than it began in.*@fresh\(\) instead"):
            await asyncio.create_task(close(stepped))

    async def close(stepped: AsyncGenerator[int, None]) -> None:
        await stepped.aclose()

    asyncio.run(main())


def test_a_decorated_async_generator_that_is_left_early_ends_in_its_own() -> None:
    ended = []

    @fresh(keep=[TENANT])
    async def numbers() -> AsyncGenerator[int, None]:
        USER.set("inside")
        try:
            yield 1
        finally:
            ended.append(seen())

    async def main() -> None:
        async for _ in numbers():
            break
        assert seen() == ("acme", "ada")
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert ended == [("acme", "inside")]


# ---- the standard library's variables ----


def native() -> tuple[str, int]:
    return NATIVE.get(), decimal.getcontext().prec


def leave_natives() -> None:
    NATIVE.set("left")
    decimal.setcontext(decimal.Context(prec=4))


def test_they_have_no_values_and_leave_none() -> None:
    decimal.setcontext(decimal.Context(prec=9))

    def work() -> tuple[str, int]:
        found = native()
        leave_natives()
        return found

    async def work_later() -> tuple[str, int]:
        await asyncio.sleep(0)
        return work()

    with fresh(keep=[TENANT]):
        assert work() == ("default", decimal.DefaultContext.prec)
    assert fresh(keep=[TENANT])(work)() == ("default", decimal.DefaultContext.prec)
    assert asyncio.run(fresh()(work_later)()) == ("default", decimal.DefaultContext.prec)
    assert native() == ("outside", 9)


def test_in_a_block_of_a_task_they_stay_as_they_are() -> None:
    decimal.setcontext(decimal.Context(prec=9))

    async def main() -> None:
        with fresh():
            await asyncio.sleep(0)
            assert native() == ("outside", 9)
            leave_natives()
        assert native() == ("left", 4)

    asyncio.run(main())
    assert native() == ("outside", 9)
