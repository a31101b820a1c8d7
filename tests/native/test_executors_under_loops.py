"""Pools and bound functions under event loops: each task has values of its own, and its work in threads sees those."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import Future

import trio

from contextvars_cy import ContextVar, bind, current_context
from contextvars_cy.executors import Thread, ThreadPoolExecutor, run_in_executor

VAR: ContextVar[object] = ContextVar("VAR", default="default")


def exchange(number: object) -> tuple[object, object]:
    return VAR.set("thread").old_value, number


def test_tasks_share_a_pool() -> None:
    async def task(pool: ThreadPoolExecutor, number: int) -> list[tuple[object, object]]:
        VAR.set(number)
        for _ in range(5):
            assert await run_in_executor(pool, exchange, number) == (number, number)
            assert await asyncio.wrap_future(pool.submit(exchange, number)) == (number, number)
            assert VAR.get() == number
        return list(pool.map(exchange, "ab"))

    async def main() -> list[list[tuple[object, object]]]:
        with ThreadPoolExecutor(3) as pool:
            tasks = (task(pool, number) for number in range(20))
            return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [[(number, "a"), (number, "b")] for number in range(20)]
    assert VAR.get() == "default"


def test_a_task_that_is_cancelled_leaves_its_values_to_the_thread() -> None:
    async def task(pool: ThreadPoolExecutor) -> None:
        VAR.set("task")
        await run_in_executor(pool, work)

    def work() -> None:
        started.set_result(None)
        go_on.result()
        seen.append(VAR.get())

    async def main(pool: ThreadPoolExecutor) -> None:
        running = asyncio.create_task(task(pool))
        await asyncio.wrap_future(started)
        running.cancel()
        await asyncio.wait([running])
        VAR.set("main")
        go_on.set_result(None)

    started: Future[None] = Future()
    go_on: Future[None] = Future()
    seen: list[object] = []
    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main(pool))
    assert seen == ["task"]


def test_a_thread_of_a_task() -> None:
    async def task(number: int) -> list[object]:
        VAR.set(number)
        seen: list[object] = []
        thread = Thread(target=lambda: seen.append(VAR.get()))
        await asyncio.sleep(0)
        thread.start()
        await asyncio.to_thread(thread.join)
        return seen

    async def main() -> list[list[object]]:
        return await asyncio.gather(*(task(number) for number in range(5)))

    assert asyncio.run(main()) == [[number] for number in range(5)]


def test_a_loop_in_a_thread_runs_its_tasks_in_the_context_given() -> None:
    async def main() -> None:
        seen.append(VAR.get())
        await asyncio.sleep(0)
        VAR.set("loop")

    seen: list[object] = []
    with VAR.set("starter"):
        thread = Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join()
    assert seen == ["starter"]


def test_a_bound_callback_sees_the_values_of_its_task() -> None:
    async def task(number: int) -> object:
        VAR.set(number)
        loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        callback = bind(lambda: done.set_result(VAR.get()))
        VAR.set("later")
        await loop.run_in_executor(None, loop.call_soon_threadsafe, callback)
        return await done

    async def main() -> list[object]:
        return await asyncio.gather(*(task(number) for number in range(5)))

    assert asyncio.run(main()) == list(range(5))


def test_a_coroutine_function_runs_in_its_task_after_all() -> None:
    async def work() -> object:
        await asyncio.sleep(0)
        return VAR.get()

    async def main() -> None:
        with VAR.set("bound"):
            bound = bind(work)
        VAR.set("task")
        context = current_context()
        assert await bound() == "task"
        if sys.version_info >= (3, 11):
            context = context.copy()
            context.run(VAR.set, "given")
            assert await asyncio.create_task(bound(), context=context.native) == "given"

    asyncio.run(main())


def test_trio() -> None:
    async def task(pool: ThreadPoolExecutor, number: int) -> None:
        VAR.set(number)
        bound = bind(VAR.get)
        future = pool.submit(exchange, number)
        VAR.set("later")
        await trio.sleep(0)
        seen.append((number, bound(), future.result(), await trio.to_thread.run_sync(bound)))

    async def main() -> None:
        with ThreadPoolExecutor(3) as pool:
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(task, pool, number)

    seen: list[tuple[int, object, object, object]] = []
    trio.run(main)
    assert sorted(seen) == [(number, number, (number, number), number) for number in range(10)]
