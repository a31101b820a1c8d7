"""Programs under gevent, whose greenlets run in copies of the Context they were spawned in."""

from __future__ import annotations

import contextvars
from typing import Any

import gevent
import gevent.event
import gevent.threadpool

from .basics import Machine
from .machine import Program, operation


class GeventMachine(Machine):
    def __init__(self, implementation: Any) -> None:
        super().__init__(implementation)
        self.beside: list[gevent.Greenlet] = []

    def fork(self) -> Any:
        child = super().fork()
        child.beside = []
        return child

    def main(self, program: Program) -> None:
        contextvars.Context().run(self.whole, program)

    def whole(self, program: Program) -> None:
        with self.catch():
            self.block(program)
        self.finish()
        while self.beside:
            self.beside.pop(0).get()

    def find(self, name: str, arguments: list[Any]) -> tuple[Any, list[Any]]:
        if name in vars(GeventMachine) and gevent.getcurrent() is gevent.get_hub():
            # The hub runs callbacks and must not wait.
            return self.nothing, []
        return super().find(name, arguments)

    def caught(self, body: Program) -> None:
        with self.catch():
            self.block(body)

    @operation()
    def pause(self) -> None:
        """Let the others run, from however deep."""
        gevent.sleep(0)

    @operation("body")
    def spawn(self, body: Program) -> None:
        gevent.spawn(self.caught, body).get()

    @operation("body")
    def spawn_later(self, body: Program) -> None:
        gevent.spawn_later(0, self.caught, body).get()

    @operation("body", "body")
    def spawn_both(self, one: Program, other: Program) -> None:
        gevent.joinall([gevent.spawn(self.fork().whole, body) for body in (one, other)], raise_error=True)

    @operation("body")
    def spawn_beside(self, body: Program) -> None:
        self.beside.append(gevent.spawn(self.fork().whole, body))

    @operation("context", "body")
    def spawn_in_context(self, context: Any, body: Program) -> None:
        self.noted("spawn", context.run, self.caught, body)

    def noted(self, name: str, function: Any, *args: Any) -> None:
        """In a greenlet of its own; what is refused there is noted there, not reported to the hub."""
        gevent.spawn(self.attempt, name, function, *args).get()

    @operation("body", "body")
    def kill(self, body: Program, at_the_end: Program) -> None:
        waiting = gevent.event.Event()

        def wait_for_ever() -> None:
            try:
                self.caught(body)
                waiting.set()
                gevent.event.Event().wait()
            finally:
                self.caught(at_the_end)

        child = gevent.spawn(wait_for_ever)
        waiting.wait()
        child.kill()
        self.note("kill", child.successful(), repr(child.value))

    @operation("body", "body")
    def link(self, body: Program, callback: Program) -> None:
        """The callback runs in the hub."""
        called = gevent.event.Event()

        def call(_: gevent.Greenlet) -> None:
            try:
                self.caught(callback)
            finally:
                called.set()

        child = gevent.spawn(self.caught, body)
        child.link(call)
        called.wait()

    @operation("body")
    def timer(self, body: Program) -> None:
        called = gevent.event.Event()

        def call() -> None:
            try:
                self.caught(body)
            finally:
                called.set()

        gevent.get_hub().loop.timer(0).start(call)
        called.wait()

    @operation("body")
    def thread_pool(self, body: Program) -> None:
        pool = gevent.threadpool.ThreadPool(1)
        try:
            # A thread's greenlets are its own.
            pool.apply(self.fork().whole, (body,))
        finally:
            pool.kill()
