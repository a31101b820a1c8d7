"""Programs under anyio, on asyncio and on trio."""

from __future__ import annotations

import anyio
import anyio.from_thread
import anyio.to_thread

from .nursery_machine import NurseryMachine


class AnyioMachine(NurseryMachine):
    library = anyio
    open_nursery = staticmethod(anyio.create_task_group)
    options = {"backend": "asyncio"}
    Event = anyio.Event


class AnyioTrioMachine(AnyioMachine):
    options = {"backend": "trio"}
