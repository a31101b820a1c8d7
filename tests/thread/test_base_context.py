"""The Context of a thread in which nothing was entered belongs to that thread, for as long as it lives."""

from __future__ import annotations

import gc
import threading

import pytest

from contextvars_cy import ContextVar, copy_context, current_context

VAR: ContextVar[object] = ContextVar("VAR", default="default")


class Lender(threading.Thread):
    """Sets the variable in its base Context, lends that out, and lives until it is told to end."""

    def __init__(self) -> None:
        super().__init__()
        self.lent, self.done = threading.Event(), threading.Event()
        self.start()
        self.lent.wait()

    def run(self) -> None:
        VAR.set("the lender's")
        self.context, self.copy = current_context(), copy_context()
        self.lent.set()
        self.done.wait()

    def end(self) -> None:
        self.done.set()
        self.join()


def test_another_thread_is_refused_while_the_thread_lives() -> None:
    lender = Lender()
    try:
        with pytest.raises(RuntimeError, match="cannot enter context: .* is already entered"):
            lender.context.run(VAR.get)
        with pytest.raises(RuntimeError, match="cannot enter context: .* is already entered"):
            with lender.context:
                pass
        assert lender.context[VAR] == lender.copy.run(VAR.get) == "the lender's"
    finally:
        lender.end()


def test_after_the_thread_anyone_may_run_in_it() -> None:
    lender = Lender()
    lender.end()
    # PyPy calls the thread's finaliser when it collects, and frees what that had when it collects again.
    gc.collect()
    gc.collect()
    assert lender.context.run(VAR.get) == "the lender's"
    assert VAR.get() == "default"


def test_the_thread_itself_may_enter_it() -> None:
    def run() -> None:
        result.append(current_context().run(VAR.set, 1).old_value)
        result.append(VAR.get())

    result: list[object] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert result[1] == 1
