"""Programs of one thread, and of several."""

from __future__ import annotations

import _thread
import queue
import threading
from collections.abc import Callable
from typing import Any

from .basics import Unbalanced
from .machine import Program, operation


class Thread:
    """A thread where no Context was entered; from Python 3.14 on `threading.Thread` enters one."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.running = _thread.allocate_lock()
        self.running.acquire()
        self.outcome: tuple[Any, BaseException | None] = (None, None)
        _thread.start_new_thread(self.call, (function, args))

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self.outcome = function(*args), None
        except BaseException as error:
            self.outcome = None, error
        finally:
            self.running.release()

    def join(self) -> Any:
        """Returns or raises what the function does."""
        self.running.acquire()
        result, error = self.outcome
        if error is not None:
            raise error
        return result


def in_new_thread(function: Callable[..., Any], *args: Any) -> Any:
    return Thread(function, *args).join()


class Worker:
    """A thread that does one piece of work after another, as a pool's does."""

    def __init__(self) -> None:
        self.work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.thread = Thread(self.serve)

    def serve(self) -> None:
        while (piece := self.work.get()) is not None:
            piece()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def piece() -> None:
            try:
                results.put((function(*args), None))
            except BaseException as error:
                results.put((None, error))

        self.work.put(piece)
        result, error = results.get()
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        self.work.put(None)
        self.thread.join()


class PlainMachine(Unbalanced):
    """One thread."""

    def main(self, program: Program) -> None:
        in_new_thread(self.whole, program)

    def whole(self, program: Program) -> None:
        with self.catch():
            self.block(program)
        self.finish()


class ThreadsMachine(PlainMachine):
    """Threads that take turns, so that the log is the same every time, and threads beside each other."""

    def __init__(self, implementation: Any) -> None:
        super().__init__(implementation)
        self.beside: list[Thread] = []
        self.worker: Worker | None = None
        self.submitted = False

    def fork(self) -> Any:
        child = super().fork()
        child.beside = []
        child.worker = None
        child.submitted = False
        return child

    def finish(self) -> None:
        super().finish()
        self.join()
        if self.worker is not None:
            self.worker.end()

    def may_hold(self, context: Any) -> bool:
        """Not a thread's base Context, which the thread host refuses to others while the thread lives."""
        try:
            context.run(int)
        except RuntimeError:
            return True  # It was entered.
        return False

    @operation("body")
    def thread(self, body: Program) -> None:
        self.attempt("thread", in_new_thread, self.block, body)

    @operation("context", "body")
    def thread_in_context(self, context: Any, body: Program) -> None:
        self.attempt("thread", in_new_thread, context.run, self.block, body)

    @operation("body")
    def thread_beside(self, body: Program) -> None:
        self.start(self.fork().whole, body)

    @operation("body")
    def thread_beside_in_copy(self, body: Program) -> None:
        child = self.fork()
        self.start(child.attempt, "beside", self.api.copy_context().run, child.whole, body)

    def start(self, function: Callable[..., Any], *args: Any) -> None:
        self.beside.append(Thread(function, *args))

    @operation()
    def join(self) -> None:
        while self.beside:
            self.beside.pop().join()

    @operation("context", "body", "body")
    def held_by_another_thread(self, context: Any, there: Program, here: Program) -> None:
        """Another thread stays in the Context while this one runs."""
        inside, finished = threading.Event(), threading.Event()

        def hold() -> None:
            self.block(there)
            inside.set()
            finished.wait()

        def hold_in_context() -> None:
            try:
                with self.catch():
                    self.attempt("hold", context.run, hold)
            finally:
                inside.set()

        thread = Thread(hold_in_context)
        inside.wait()
        try:
            self.block(here)
        finally:
            finished.set()
            thread.join()

    @operation("body")
    def submit(self, body: Program) -> None:
        """To a worker, whose thread keeps what earlier work has set."""
        self.in_worker(self.block, body)

    @operation("context", "body")
    def submit_in_context(self, context: Any, body: Program) -> None:
        self.in_worker(context.run, self.block, body)

    def in_worker(self, function: Callable[..., Any], *args: Any) -> None:
        if self.worker is None:
            self.worker = Worker()
        if self.submitted:
            # From the worker itself, which would wait for itself.
            self.attempt("submit", function, *args)
            return
        self.submitted = True
        try:
            self.attempt("submit", self.worker.call, function, *args)
        finally:
            self.submitted = False
