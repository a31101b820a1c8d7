"""A proxy and a Local belong to the task that uses them, whatever the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from contextvars_cy import ContextVar, Local

USER: ContextVar[Any] = ContextVar("user")
current_user = USER.proxy()
local = Local()

Seen = tuple[str, list[object], dict[str, object]]


async def work(name: str, pause: Callable[[float], Awaitable[object]], seen: list[Seen]) -> None:
    USER.set([name])
    local.name = name
    assert local.shared == "by the creator"
    for number in range(3):
        await pause(0)
        current_user.append(number)
        local.number = number
        local.shared = f"{name} {number}"
        seen.append((name, list(current_user), dict(vars(local))))


def expected(name: str) -> list[Seen]:
    return [
        (name, [name, *range(number + 1)], {"name": name, "number": number, "shared": f"{name} {number}"})
        for number in range(3)
    ]


def check(seen: list[Seen]) -> None:
    assert sorted(seen) == expected("ada") + expected("grace")
    assert seen != sorted(seen)
    assert vars(local) == {"shared": "by the creator"}
    with pytest.raises(LookupError, match="so its proxy stands for nothing"):
        current_user.append(0)


def test_asyncio() -> None:
    async def main() -> None:
        local.shared = "by the creator"
        seen: list[Seen] = []
        await asyncio.gather(*(work(name, asyncio.sleep, seen) for name in ("grace", "ada")))
        check(seen)
        assert await asyncio.to_thread(lambda: local.shared) == "by the creator"

    asyncio.run(main())
    assert vars(local) == {}


def test_trio() -> None:
    async def main() -> None:
        local.shared = "by the creator"
        seen: list[Seen] = []
        async with trio.open_nursery() as nursery:
            for name in ("grace", "ada"):
                nursery.start_soon(work, name, trio.sleep, seen)
        check(seen)
        assert await trio.to_thread.run_sync(lambda: local.shared) == "by the creator"

    trio.run(main)
    assert vars(local) == {}


def test_with_in_a_task_leaves_what_it_has_entered() -> None:
    class Resource:
        def __init__(self) -> None:
            self.seen: list[object] = []

        async def __aenter__(self) -> None:
            self.seen.append("enter")

        async def __aexit__(self, *error: object) -> None:
            await asyncio.sleep(0)
            self.seen.append(error[0])

    async def main() -> None:
        resource, other = Resource(), Resource()
        USER.set(resource)
        with pytest.raises(asyncio.CancelledError):
            async with current_user:
                USER.set(other)
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                await asyncio.sleep(1)
        assert (resource.seen, other.seen) == (["enter", asyncio.CancelledError], [])

    asyncio.run(main())
