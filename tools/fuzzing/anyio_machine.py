"""Programs under anyio, on asyncio and on trio."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.abc import TaskGroup

from .asynchronous import AsyncMachine, Start
from .machine import Program, operation


class AnyioMachine(AsyncMachine):
    Event = anyio.Event
    backend = "asyncio"
    group: TaskGroup

    def main(self, program: Program) -> None:
        contextvars.Context().run(anyio.run, self.in_group, program, backend=self.backend)

    async def in_group(self, program: Program) -> None:
        async with anyio.create_task_group() as self.group:
            await self.whole(program)

    async def checkpoint(self) -> None:
        await anyio.sleep(0)

    async def together(self, *starts: Start) -> None:
        async with anyio.create_task_group() as group:
            for start in starts:
                group.start_soon(start)

    def beside(self, start: Start) -> None:
        self.group.start_soon(start)

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await anyio.to_thread.run_sync(function, *args)

    async def cancelled(self, start: Start, waiting: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(start)
            await waiting.wait()
            group.cancel_scope.cancel()

    @operation("body", "body")
    async def from_thread(self, there: Program, back: Program) -> None:
        child = self.fork()

        def work() -> None:
            child.caught_here(there)
            anyio.from_thread.run_sync(child.caught_here, back)
            anyio.from_thread.run(child.whole, back)

        await anyio.to_thread.run_sync(work)

    @operation("body", "body")
    async def started(self, before: Program, after: Program) -> None:
        async def service(task_status: Any) -> None:
            await child.caught(before)
            task_status.started()
            await child.whole(after)

        child = self.fork()
        await self.group.start(service)


class AnyioTrioMachine(AnyioMachine):
    backend = "trio"
    many_left = False
