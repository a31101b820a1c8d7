"""Programs under trio."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import trio

from .asynchronous import AsyncMachine, Start
from .machine import Program, operation


class TrioMachine(AsyncMachine):
    Event = trio.Event
    many_left = False
    nursery: trio.Nursery

    def main(self, program: Program) -> None:
        contextvars.Context().run(trio.run, self.in_nursery, program)

    async def in_nursery(self, program: Program) -> None:
        async with trio.open_nursery() as self.nursery:
            await self.whole(program)

    async def checkpoint(self) -> None:
        await trio.sleep(0)

    async def together(self, *starts: Start) -> None:
        async with trio.open_nursery() as nursery:
            for start in starts:
                nursery.start_soon(start)

    def beside(self, start: Start) -> None:
        self.nursery.start_soon(start)

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await trio.to_thread.run_sync(function, *args)

    async def cancelled(self, start: Start, waiting: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            await waiting.wait()
            nursery.cancel_scope.cancel()

    @operation("context", "body")
    async def system_task(self, context: Any, body: Program) -> None:
        finished = trio.Event()
        # A copy, because trio breaks off where the Context is entered already.
        self.contexts.append(context.copy())

        async def run() -> None:
            try:
                await self.caught(body)
            finally:
                finished.set()

        trio.lowlevel.spawn_system_task(run, context=self.api.native(self.contexts[-1]))
        await finished.wait()

    @operation("body", "body")
    async def from_thread(self, there: Program, back: Program) -> None:
        child = self.fork()

        def work() -> None:
            child.caught_here(there)
            trio.from_thread.run_sync(child.caught_here, back)
            trio.from_thread.run(child.whole, back)

        await trio.to_thread.run_sync(work)

    @operation("body", "body")
    async def started(self, before: Program, after: Program) -> None:
        async def service(task_status: Any) -> None:
            await child.caught(before)
            task_status.started()
            await child.whole(after)

        child = self.fork()
        await self.nursery.start(service)
