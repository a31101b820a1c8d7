"""What trio and anyio have in common: tasks live in a nursery, and the library is a module of functions."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

from .asynchronous import AsyncMachine, Start
from .machine import Program, operation


class NurseryMachine(AsyncMachine):
    library: Any
    open_nursery: Callable[[], Any]
    options: dict[str, str] = {}
    nursery: Any

    def main(self, program: Program) -> None:
        contextvars.Context().run(self.library.run, self.in_nursery, program, **self.options)

    async def in_nursery(self, program: Program) -> None:
        async with self.open_nursery() as self.nursery:
            await self.whole(program)

    async def checkpoint(self) -> None:
        await self.library.sleep(0)

    async def together(self, *starts: Start) -> None:
        async with self.open_nursery() as nursery:
            for start in starts:
                nursery.start_soon(start)

    def beside(self, start: Start) -> None:
        self.nursery.start_soon(start)

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self.library.to_thread.run_sync(function, *args)

    async def cancelled(self, start: Start, waiting: Any) -> None:
        async with self.open_nursery() as nursery:
            nursery.start_soon(start)
            await waiting.wait()
            nursery.cancel_scope.cancel()

    @operation("body", "body")
    async def from_thread(self, there: Program, back: Program) -> None:
        child = self.fork()

        def work() -> None:
            child.caught_here(there)
            self.library.from_thread.run_sync(child.caught_here, back)
            self.library.from_thread.run(child.whole, back)

        await self.library.to_thread.run_sync(work)

    @operation("body", "body")
    async def started(self, before: Program, after: Program) -> None:
        async def service(task_status: Any) -> None:
            await child.caught(before)
            task_status.started()
            await child.whole(after)

        child = self.fork()
        await self.nursery.start(service)
