"""A default that is made for each Context, under loops: each task makes its own, and has what was made before it."""

from __future__ import annotations

import asyncio

import trio

from contextvars_cy import ContextVar, copy_context

SHARED: ContextVar[list[int]] = ContextVar("SHARED", default_factory=list)
OWN: ContextVar[list[int]] = ContextVar("OWN", default_factory=list)


def work(number: int) -> None:
    SHARED.get().append(number)
    OWN.get().append(number)


async def gathered() -> tuple[list[list[int]], list[int], bool]:
    shared = SHARED.get()

    async def child(number: int) -> list[int]:
        work(number)
        await asyncio.sleep(0)
        return OWN.get()

    own = await asyncio.gather(*(child(number) for number in range(3)))
    return own, sorted(shared), OWN.is_set()


async def nursed() -> tuple[list[list[int]], list[int], bool]:
    shared = SHARED.get()
    own: dict[int, list[int]] = {}

    async def child(number: int) -> None:
        work(number)
        await trio.lowlevel.checkpoint()
        own[number] = OWN.get()

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(child, number)
    return [own[number] for number in range(3)], sorted(shared), OWN.is_set()


def test_under_asyncio() -> None:
    assert copy_context().run(asyncio.run, gathered()) == ([[0], [1], [2]], [0, 1, 2], False)


def test_under_trio() -> None:
    assert copy_context().run(trio.run, nursed) == ([[0], [1], [2]], [0, 1, 2], False)
