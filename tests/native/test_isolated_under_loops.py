"""What runs in a Context of its own, under event loops that follow Python's own contexts."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import decimal
import gc
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

import pytest
import trio

from contextvars_cy import ContextVar, current_context, isolated

VAR = ContextVar("VAR", default="default")
NATIVE = contextvars.ContextVar("NATIVE", default="default")


async def asyncio_children() -> list[str]:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: future.set_result(VAR.get()))
    return [await asyncio.create_task(read()), await asyncio.to_thread(VAR.get), await future]


async def trio_children() -> list[str]:
    found: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(append_value, found)
        nursery.start_soon(isolated(append_value), found)
    return [*found, await trio.to_thread.run_sync(VAR.get)]


async def read() -> str:
    return VAR.get()


async def append_value(found: list[str]) -> None:
    found.append(VAR.get())


@pytest.mark.parametrize(
    ("run", "children"),
    [(lambda main: asyncio.run(main()), asyncio_children), (trio.run, trio_children)],
    ids=["asyncio", "trio"],
)
def test_what_is_started_inside_takes_its_values_along(
    run: Callable[[Callable[[], Awaitable[None]]], None], children: Callable[[], Awaitable[list[str]]]
) -> None:
    @isolated
    async def inner() -> list[str]:
        VAR.set("inside")
        return await children()

    @isolated
    async def steps() -> AsyncGenerator[list[str], None]:
        VAR.set("inside")
        yield await children()

    async def main() -> None:
        VAR.set("outside")
        assert set(await inner()) == {"inside"}
        async with contextlib.AsyncExitStack() as stack:
            stepped = steps()
            stack.push_async_callback(stepped.aclose)
            VAR.set("changed outside")
            assert [set(found) async for found in stepped] == [{"inside"}]
        assert set(await children()) == {"changed outside"}

    run(main)


@pytest.mark.parametrize(
    ("run", "checkpoint"),
    [(lambda main: asyncio.run(main()), lambda: asyncio.sleep(0)), (trio.run, trio.lowlevel.checkpoint)],
    ids=["asyncio", "trio"],
)
# trio tells of each that it closes.
@pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning")
def test_the_loop_closes_it_in_its_own_context(
    run: Callable[[Callable[[], Awaitable[None]]], None], checkpoint: Callable[[], Awaitable[None]]
) -> None:
    @isolated
    async def steps() -> AsyncGenerator[None, None]:
        token = VAR.set("inside")
        try:
            yield
        finally:
            with trio.CancelScope(shield=True) if run is trio.run else contextlib.nullcontext():
                await checkpoint()
            VAR.reset(token)
            ended.append(VAR.get())

    async def main() -> None:
        VAR.set("outside")
        async for _ in steps():
            VAR.set("changed outside")
            break
        gc.collect()
        while not ended:
            await checkpoint()
        kept.append(steps())
        await kept[0].__anext__()
        VAR.set("changed again")

    ended: list[str] = []
    kept: list[AsyncGenerator[None, None]] = []
    run(main)
    assert ended == ["outside", "changed outside"]


def test_trio_knows_itself_inside_and_cancels() -> None:
    task: trio.lowlevel.Task | None = None

    @isolated
    async def wait() -> None:
        VAR.set("inside")
        assert trio.lowlevel.current_task() is task
        with trio.move_on_after(0) as scope:
            await trio.sleep_forever()
        assert scope.cancelled_caught
        await trio.lowlevel.checkpoint()
        outer.cancel()
        try:
            await trio.sleep_forever()
        finally:
            ended.append(VAR.get())

    async def main() -> None:
        nonlocal task
        task = trio.lowlevel.current_task()
        with outer:
            await wait()

    outer = trio.CancelScope()
    ended: list[str] = []
    trio.run(main)
    assert ended == ["inside"]


@contextlib.contextmanager
def its_own_context() -> Iterator[decimal.Context]:
    decimal.setcontext(decimal.getcontext().copy())
    yield decimal.getcontext()


@pytest.mark.parametrize("its_own", [decimal.localcontext, its_own_context])
def test_native_variables_and_decimal_contexts_that_are_set_stay_inside(
    its_own: Callable[[], contextlib.AbstractContextManager[decimal.Context]],
) -> None:
    @isolated
    def sevenths() -> Iterator[tuple[decimal.Decimal, str]]:
        with its_own() as context:
            context.prec = 3
            NATIVE.set("inside")
            while True:
                yield decimal.Decimal(1) / 7, NATIVE.get()

    stepped = sevenths()
    before = decimal.Decimal(1) / 7
    assert next(stepped) == (decimal.Decimal("0.143"), "inside")
    assert (decimal.Decimal(1) / 7, NATIVE.get()) == (before, "default")
    assert next(stepped) == (decimal.Decimal("0.143"), "inside")


def test_an_object_that_is_changed_is_the_same_one_outside() -> None:
    @isolated
    def change() -> None:
        decimal.getcontext().prec = 3

    with decimal.localcontext():
        change()
        assert decimal.getcontext().prec == 3


if sys.version_info >= (3, 11):

    def test_task_groups_and_timeouts_inside() -> None:
        @isolated
        async def inner() -> list[str]:
            VAR.set("inside")
            async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                tasks = [group.create_task(read()) for _ in range(3)]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(100)
            return [task.result() for task in tasks]

        assert asyncio.run(inner()) == ["inside"] * 3


if sys.version_info >= (3, 12):

    def test_an_eager_task() -> None:
        @isolated
        async def inner() -> tuple[str, str]:
            VAR.set("inside")
            before = VAR.get()
            await asyncio.sleep(0)
            return before, VAR.get()

        async def main() -> None:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            assert await asyncio.create_task(inner()) == ("inside", "inside")
            assert VAR.get() == "default"

        asyncio.run(main())


if sys.version_info >= (3, 11):

    def test_a_task_in_the_same_context() -> None:
        @isolated
        async def steps() -> AsyncGenerator[str, None]:
            VAR.set("inside")
            context = current_context()
            task = asyncio.create_task(set_later(), context=context.native)
            yield VAR.get()
            await task
            yield VAR.get()

        async def set_later() -> None:
            VAR.set("set by the task")

        async def main() -> None:
            assert [value async for value in steps()] == ["inside", "set by the task"]
            assert VAR.get() == "default"

        asyncio.run(main())
