"""The operations that every library with async functions has; each library's machine says how it does them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from .basics import Machine
from .machine import Program, operation

Start = Callable[[], Coroutine[Any, Any, Any]]


class AsyncMachine(Machine):
    Event: Any  # the library's own

    def __init__(self, implementation: Any) -> None:
        super().__init__(implementation)
        # Unfinished generators; forks share the list, because none of them reads it.
        self.left: list[Any] = []
        self.forked_off = False

    def fork(self) -> Any:
        child = super().fork()
        child.forked_off = True
        return child

    # ---- what each library does in its own way ----

    async def checkpoint(self) -> None:
        """Let the others run."""
        raise NotImplementedError

    async def together(self, *starts: Start) -> None:
        """Run each in a task of its own and wait for all."""
        raise NotImplementedError

    def beside(self, start: Start) -> None:
        """Run it in a task of its own, at the latest until the program ends."""
        raise NotImplementedError

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call it in a worker thread, in a copy of this Context."""
        raise NotImplementedError

    async def cancelled(self, start: Start, waiting: Any) -> None:
        """Run it in a task of its own until the event `waiting`, and then cancel it."""
        raise NotImplementedError

    # ---- running ----

    async def async_block(self, program: Program) -> int:
        for name, *arguments in program:
            method, found = self.find(name, arguments)
            with self.blaming(name):
                if method.surrounds and method.may_wait:
                    with self.noting(name), method(*found[:-1]):
                        await self.async_block(found[-1])
                elif inspect.iscoroutinefunction(method):
                    await method(*found)
                else:
                    self.block([[name, *arguments]])
            self.look_around()
        return len(program)

    async def whole(self, program: Program) -> None:
        with self.catch():
            await self.async_block(program)
        self.finish()

    # ---- operations ----

    @operation()
    async def pause(self) -> None:
        await self.checkpoint()

    @operation("body")
    async def task(self, body: Program) -> None:
        await self.together(lambda: self.caught(body))

    @operation("body", "body")
    async def tasks(self, one: Program, other: Program) -> None:
        await self.together(*(self.forked(body) for body in (one, other)))

    @operation("body")
    async def task_beside(self, body: Program) -> None:
        self.beside(self.forked(body))

    @operation("body")
    async def to_thread(self, body: Program) -> None:
        # A fork, because the thread may begin before the loop has left the Context of this task.
        await self.in_thread(self.fork().whole_here, body)

    @operation("body", "body")
    async def cancel(self, body: Program, at_the_end: Program) -> None:
        waiting = self.Event()

        async def wait_for_ever() -> None:
            try:
                await self.caught(body)
                waiting.set()
                await self.Event().wait()
            finally:
                self.note("cancelled", sys.exc_info()[0] is not None)
                self.caught_here(at_the_end)

        await self.cancelled(wait_for_ever, waiting)

    @operation("body", "body")
    async def async_generator(self, body: Program, at_the_end: Program) -> None:
        """To its end."""
        async for _ in self.generate(body, at_the_end):
            await self.checkpoint()
            self.look_around()

    @operation("body", "body")
    async def async_generator_closed(self, body: Program, at_the_end: Program) -> None:
        """Early, in another task."""
        generator = self.generate(body, at_the_end)
        async for _ in generator:
            break

        async def close() -> None:
            await generator.aclose()

        await self.together(close)

    @operation("body", "body")
    async def async_generator_dropped(self, body: Program, at_the_end: Program) -> None:
        """The loop notices it, and finalises it in its own time."""
        finished = self.Event()
        started = False
        generator = self.generate(body, at_the_end, finished.set)
        async for _ in generator:
            started = True
            break
        del generator
        if started:
            await finished.wait()

    @operation("body", "body")
    async def async_generator_left(self, body: Program, at_the_end: Program) -> None:
        """Until the loop shuts down; only one, because loops finalise several in an unknown order."""
        if self.forked_off or self.left:
            return
        child = self.fork()
        generator = child.generate(body, at_the_end, child.finish)
        self.left.append(generator)
        async for _ in generator:
            break

    async def generate(
        self, body: Program, at_the_end: Program, finish: Callable[[], None] | None = None
    ) -> AsyncGenerator[int, None]:
        try:
            for call in body:
                with self.catch():
                    await self.async_block([call])
                yield 1
        finally:
            self.caught_here(at_the_end)
            if finish is not None:
                finish()

    async def caught(self, body: Program) -> None:
        with self.catch():
            await self.async_block(body)

    def caught_here(self, body: Program) -> None:
        with self.catch():
            self.block(body)

    def whole_here(self, body: Program) -> None:
        self.caught_here(body)
        self.finish()

    def forked(self, body: Program) -> Start:
        child = self.fork()
        return lambda: child.whole(body)
