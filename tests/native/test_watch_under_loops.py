"""Being told under event loops: of each task's changes, in that task, and of what a thread does for it."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from contextvars_cy import MISSING, ContextVar, WatchEvent, copy_context, current_context, watch

VAR: ContextVar[object] = ContextVar("VAR", default="default")

Work = Callable[[int], Awaitable[None]]


async def gathered(work: Work) -> None:
    await asyncio.gather(*(work(number) for number in range(3)))


async def nursed(work: Work) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(work, number)


def run_in_thread(function: Callable[..., object], *args: object) -> Awaitable[object]:
    return asyncio.get_running_loop().run_in_executor(None, copy_context().run, function, *args)


LOOPS: dict[
    str, tuple[Callable[[Work], None], Callable[[float], Awaitable[object]], Callable[..., Awaitable[object]]]
] = {
    "asyncio": (lambda work: asyncio.run(gathered(work)), asyncio.sleep, run_in_thread),
    "trio": (lambda work: trio.run(nursed, work), trio.sleep, trio.to_thread.run_sync),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_each_task_is_told_of_its_own_changes(loop: str) -> None:
    run, sleep, to_thread = LOOPS[loop]
    events: list[tuple[object, ...]] = []

    def note(event: WatchEvent) -> None:
        # A thread's call is in a Context of its own, which is entered and left as well.
        if event.kind in ("set", "reset"):
            assert event.context is current_context()
            events.append((event.kind, event.old_value, event.value))

    async def work(number: int) -> None:
        with VAR.set(number):
            await sleep(0)
            await to_thread(VAR.set, f"{number} in a thread")
            assert VAR.get() == number

    with VAR.watch(note):
        copy_context().run(run, work)
    for number in range(3):
        own = [event for event in events if number in event[1:]]
        assert own == [("set", MISSING, number), ("set", number, f"{number} in a thread"), ("reset", number, MISSING)]
    assert len(events) == 9


class Value:
    """Can be referred to weakly."""


def test_a_watcher_keeps_no_value_of_a_task_that_is_done() -> None:
    async def child() -> weakref.ref[Value]:
        value = Value()
        VAR.set(value)
        return weakref.ref(value)

    async def main() -> weakref.ref[Value]:
        return await asyncio.create_task(child())

    with VAR.watch(lambda event: None):
        reference = asyncio.run(main())
        gc.collect()
        assert reference() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_callback_that_fails_disturbs_no_task(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, sleep, _ = LOOPS[loop]
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    done: list[Any] = []

    def fail(event: WatchEvent) -> None:
        raise ValueError("no")

    async def work(number: int) -> None:
        with VAR.set(number):
            await sleep(0)
            done.append(VAR.get())

    with watch(fail):
        copy_context().run(run, work)
    # While the hook is there.
    gc.collect()
    assert sorted(done) == [0, 1, 2]
