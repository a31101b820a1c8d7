"""Programs under asyncio, on its own event loop or uvloop's."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .asynchronous import AsyncMachine, Start
from .machine import Program, operation


class AsyncioMachine(AsyncMachine):
    Event = asyncio.Event
    new_event_loop = staticmethod(asyncio.new_event_loop)
    takes_our_contexts = sys.version_info < (3, 15)

    def __init__(self, implementation: Any) -> None:
        super().__init__(implementation)
        self.tasks_beside: list[asyncio.Task[Any]] = []
        self.pool: ThreadPoolExecutor | None = None

    def fork(self) -> Any:
        child = super().fork()
        child.tasks_beside = []
        child.pool = None
        return child

    def main(self, program: Program) -> None:
        # An empty Context of the interpreter's, because others set native variables too.
        contextvars.Context().run(self.run_loop, program)

    def run_loop(self, program: Program) -> None:
        loop = self.new_event_loop()
        try:
            loop.set_exception_handler(self.note_unhandled)
            loop.run_until_complete(self.whole(program))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()

    def note_unhandled(self, loop: Any, context: dict[str, Any]) -> None:
        self.note("unhandled", repr(context.get("exception")))

    async def whole(self, program: Program) -> None:
        await super().whole(program)
        while self.tasks_beside:
            await self.tasks_beside.pop(0)

    def finish(self) -> None:
        super().finish()
        if self.pool is not None:
            self.pool.shutdown()

    # ---- asyncio's ways ----

    async def checkpoint(self) -> None:
        await asyncio.sleep(0)

    async def together(self, *starts: Start) -> None:
        await asyncio.gather(*(start() for start in starts))

    def beside(self, start: Start) -> None:
        self.tasks_beside.append(asyncio.get_running_loop().create_task(start()))

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.to_thread(function, *args)

    async def cancelled(self, start: Start, waiting: Any) -> None:
        task = asyncio.get_running_loop().create_task(start())
        await waiting.wait()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            self.note("cancelled", task.cancelled())

    # ---- what asyncio alone has ----

    @operation("body")
    async def task_that_raises(self, body: Program) -> None:
        with self.noting("task"):
            self.note("task", await asyncio.get_running_loop().create_task(self.async_block(body)))

    @operation("body")
    async def wait_for(self, body: Program) -> None:
        await asyncio.wait_for(self.caught(body), 3600)

    @operation("body")
    async def call_soon(self, body: Program) -> None:
        await self.called(body, asyncio.get_running_loop().call_soon)

    @operation("context", "body", "number")
    async def call_soon_in_context(self, context: Any, body: Program, number: int) -> None:
        await self.called(body, asyncio.get_running_loop().call_soon, context=self.given(context, number))

    @operation("body")
    async def call_later(self, body: Program) -> None:
        await self.called(body, lambda callback: asyncio.get_running_loop().call_later(0, callback))

    @operation("body")
    async def call_soon_from_thread(self, body: Program) -> None:
        loop = asyncio.get_running_loop()
        await self.called(body, lambda call: asyncio.to_thread(loop.call_soon_threadsafe, call))

    @operation("body", "body")
    async def done_callback(self, body: Program, between: Program) -> None:
        future = asyncio.get_running_loop().create_future()

        def add(callback: Callable[..., None]) -> None:
            future.add_done_callback(callback)
            self.caught_here(between)
            future.set_result(None)

        await self.called(body, add)

    @operation("context", "body", "number")
    async def done_callback_in_context(self, context: Any, body: Program, number: int) -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        await self.called(body, future.add_done_callback, context=self.given(context, number))

    async def called(self, body: Program, schedule: Callable[..., Any], **options: Any) -> None:
        """Schedule a callback that runs the body, and wait until it has."""
        done = asyncio.get_running_loop().create_future()

        def callback(*_: Any) -> None:
            try:
                self.caught_here(body)
            finally:
                done.set_result(None)

        handle = schedule(callback, **options)
        if asyncio.iscoroutine(handle):
            await handle
        await done

    def given(self, context: Any, number: int) -> Any:
        return context if self.takes_our_contexts and number % 2 else self.api.native(context)

    @operation("body")
    async def executor(self, body: Program) -> None:
        """Its thread keeps what earlier work has set."""
        if self.pool is None:
            self.pool = ThreadPoolExecutor(1)
        await asyncio.get_running_loop().run_in_executor(self.pool, self.fork().whole_here, body)

    if sys.version_info >= (3, 11):

        @operation("context", "body", "number")
        async def task_in_context(self, context: Any, body: Program, number: int) -> None:
            given = self.given(context, number)
            await asyncio.get_running_loop().create_task(self.caught(body), context=given)

        @operation("body", "body")
        async def task_group(self, one: Program, other: Program) -> None:
            children = [self.forked(body) for body in (one, other)]
            async with asyncio.TaskGroup() as group:
                for child in children:
                    group.create_task(child())

    if sys.version_info >= (3, 12):

        @operation("body")
        async def eager_task(self, body: Program) -> None:
            await asyncio.Task(self.caught(body), loop=asyncio.get_running_loop(), eager_start=True)

        @operation("body", "body")
        async def eager_task_beside(self, body: Program, here: Program) -> None:
            start = self.forked(body)
            task = asyncio.Task(start(), loop=asyncio.get_running_loop(), eager_start=True)
            try:
                await self.async_block(here)
            finally:
                await task

        @operation("context", "body")
        async def eager_task_in_context(self, context: Any, body: Program) -> None:
            # A copy, because if the Context is entered already, CPython leaves the loop with a wrong current task.
            self.contexts.append(context.copy())
            native = self.api.native(self.contexts[-1])
            await asyncio.Task(self.caught(body), loop=asyncio.get_running_loop(), eager_start=True, context=native)


class UvloopMachine(AsyncioMachine):
    takes_our_contexts = False

    @staticmethod
    def new_event_loop() -> Any:
        import uvloop

        return uvloop.new_event_loop()
