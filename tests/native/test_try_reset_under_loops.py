"""Cleaning up where the loop has closed an async generator in another Context than it began in."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator

import pytest
import trio

from contextvars_cy import ContextVar, copy_context
from interpreters import CPYTHON

VAR = ContextVar("VAR", default="default")


async def scoped(closed: list[bool]) -> AsyncGenerator[str, None]:
    token = VAR.set("inside")
    try:
        yield VAR.get()
    finally:
        closed.append(VAR.try_reset(token))


async def consumed(closed: list[bool]) -> None:
    async for value in scoped(closed):
        assert value == "inside"
        break


@pytest.mark.skipif(not CPYTHON, reason="what nobody holds is finalised at some later time here")
def test_asyncio_finalises_an_async_generator_in_a_task_of_its_own() -> None:
    closed: list[bool] = []

    async def main() -> None:
        await asyncio.create_task(consumed(closed))
        for _ in range(3):
            # Where nothing counts references.
            gc.collect()
            await asyncio.sleep(0)

    copy_context().run(asyncio.run, main())
    assert closed == [False]


# What trio says of a generator that nobody has closed.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
def test_trio_too() -> None:
    closed: list[bool] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consumed, closed)

    copy_context().run(trio.run, main)
    assert closed == [False]


def test_closed_by_its_own_task_it_is_reset() -> None:
    closed: list[bool] = []

    async def main() -> str:
        values = scoped(closed)
        await values.__anext__()
        await values.aclose()
        return VAR.get()

    assert copy_context().run(asyncio.run, main()) == "default"
    assert closed == [True]
