"""Programs under trio."""

from __future__ import annotations

from typing import Any

import trio

from .machine import Program, operation
from .nursery_machine import NurseryMachine


class TrioMachine(NurseryMachine):
    library = trio
    open_nursery = staticmethod(trio.open_nursery)
    Event = trio.Event

    @operation("context", "body")
    async def system_task(self, context: Any, body: Program) -> None:
        finished = trio.Event()
        # A copy, because trio breaks off if the Context is entered already.
        self.contexts.append(context.copy())

        async def run() -> None:
            try:
                await self.caught(body)
            finally:
                finished.set()

        trio.lowlevel.spawn_system_task(run, context=self.api.native(self.contexts[-1]))
        await finished.wait()
