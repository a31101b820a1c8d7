"""Values set in a child task, or in its thread, brought back to whoever waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import trio

from contextvars_cy import Context, ContextVar, apply, copy_context, current_context

USER = ContextVar("USER", default="nobody")
STEP = ContextVar("STEP", default=0)


async def child(kept: list[Context], fail: Exception | None = None) -> None:
    # The Context itself: what is set later shows in it.
    kept.append(current_context())
    USER.set("ada")
    for _ in range(2):
        await asyncio.sleep(0)
        STEP.set(STEP.get() + 1)
    if fail:
        raise fail


def test_the_values_of_a_child_task() -> None:
    async def main() -> tuple[str, int]:
        kept: list[Context] = []
        await asyncio.create_task(child(kept))
        assert (USER.get(), STEP.get()) == ("nobody", 0)
        with apply(kept[0]):
            # The body may await, and other tasks go on with their values.
            await asyncio.gather(child([]), asyncio.sleep(0))
            assert (USER.get(), STEP.get()) == ("ada", 2)
        assert (USER.get(), STEP.get()) == ("nobody", 0)
        apply(kept[0], only=[USER])
        return USER.get(), STEP.get()

    assert asyncio.run(main()) == ("ada", 0)
    assert USER.get() == "nobody"


def test_what_a_child_had_set_when_it_failed_or_was_cancelled() -> None:
    async def main() -> list[dict[ContextVar[Any], object]]:
        kept: list[Context] = []
        with pytest.raises(ZeroDivisionError):
            await asyncio.create_task(child(kept, ZeroDivisionError()))
        task = asyncio.create_task(child(kept))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        before = copy_context()
        return [before.diff(context).added for context in kept]

    assert asyncio.run(main()) == [{USER: "ada", STEP: 2}, {USER: "ada"}]


def test_a_block_that_is_cancelled_is_undone() -> None:
    async def work(context: Context) -> None:
        try:
            with apply(context):
                await asyncio.sleep(60)
        finally:
            seen.append(USER.get())

    async def main() -> None:
        context = copy_context()
        context.run(USER.set, "ada")
        task = asyncio.create_task(work(context))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    seen: list[str] = []
    asyncio.run(main())
    assert seen == ["nobody"]


def test_the_values_of_a_thread() -> None:
    async def main() -> tuple[str, int]:
        STEP.set(1)
        before = copy_context()
        after = copy_context()
        await asyncio.to_thread(after.run, USER.set, "ada")
        # Another did this meanwhile, of which the thread's Context has the old value.
        STEP.set(2)
        changes = before.diff(after)
        assert changes == ({USER: "ada"}, {}, {})
        apply(after, only=changes.added)  # type: ignore[attr-defined]
        return USER.get(), STEP.get()

    assert asyncio.run(main()) == ("ada", 2)


def test_many_children_at_once_keep_apart() -> None:
    async def parent(number: int) -> str:
        async def child() -> None:
            kept.append(current_context())
            USER.set(f"user {number}")
            await asyncio.sleep(0)

        kept: list[Context] = []
        await asyncio.create_task(child())
        apply(kept[0])
        await asyncio.sleep(0)
        return USER.get()

    async def main() -> list[str]:
        return await asyncio.gather(*(parent(number) for number in range(20)))

    assert asyncio.run(main()) == [f"user {number}" for number in range(20)]


def test_trio() -> None:
    async def child() -> None:
        kept.append(current_context())
        USER.set("ada")
        await trio.to_thread.run_sync(int)
        STEP.set(1)

    async def main() -> tuple[str, int]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
        assert (USER.get(), STEP.get()) == ("nobody", 0)
        with apply(kept[0]):
            await trio.sleep(0)
            return USER.get(), STEP.get()

    kept: list[Context] = []
    assert trio.run(main) == ("ada", 1)
