"""The thread host does not follow an event loop, and says so instead of leaking."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import pytest

from contextvars_cy import Context, ContextVar, copy_context, current_context

VAR = ContextVar("VAR", default="default")

R = TypeVar("R")


def in_a_fresh_thread(function: Callable[[], R]) -> R:
    """Call it where nothing was entered or set, because pytest's own thread may have a base Context by now."""
    result: list[R] = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result.pop()


def refused() -> AbstractContextManager[object]:
    return pytest.raises(RuntimeError, match="CONTEXTVARS_CY_HOST=native")


@pytest.mark.parametrize("set_before", [False, True])
def test_a_set_in_the_base_context_from_inside_a_task_is_refused(set_before: bool) -> None:
    async def main() -> str:
        for _ in range(3):
            with refused():
                VAR.set("task")
            await asyncio.sleep(0)
        return VAR.get()

    def program() -> tuple[str, str]:
        if set_before:
            VAR.set("before")
        return asyncio.run(main()), VAR.get()

    value = "before" if set_before else "default"
    assert in_a_fresh_thread(program) == (value, value)


def test_a_callback_of_the_loop_is_refused_too() -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[bool] = loop.create_future()

        def callback() -> None:
            with refused():
                VAR.set("callback")
            outcome.set_result(True)

        loop.call_soon(callback)
        return await outcome

    assert in_a_fresh_thread(lambda: asyncio.run(main()))


def test_a_reset_in_the_base_context_is_refused_and_the_token_stays_good() -> None:
    def program() -> tuple[str, str]:
        token = VAR.set("before")

        async def main() -> None:
            with refused():
                VAR.reset(token)

        asyncio.run(main())
        seen = VAR.get()
        VAR.reset(token)
        return seen, VAR.get()

    assert in_a_fresh_thread(program) == ("before", "default")


def test_entering_the_base_context_does_not_make_it_another() -> None:
    async def main() -> str:
        with refused():
            VAR.set("task")
        return VAR.get()

    def program() -> str:
        with current_context():
            return asyncio.run(main())

    assert in_a_fresh_thread(program) == "default"


def test_a_set_while_asyncio_is_being_imported() -> None:
    program = """
        import sys, types
        from contextvars_cy import ContextVar
        sys.modules["asyncio.events"] = types.ModuleType("asyncio.events")
        ContextVar("var").set(1)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_context_of_ones_own_may_be_set_in_a_task() -> None:
    async def main() -> tuple[str, str]:
        with Context():
            VAR.set("mine")
            seen = VAR.get()
        copy_context().run(VAR.set, "mine too")
        return seen, VAR.get()

    assert in_a_fresh_thread(lambda: asyncio.run(main())) == ("mine", "default")


def test_reading_in_a_task_is_fine() -> None:
    def program() -> str:
        VAR.set("before")

        async def main() -> str:
            return VAR.get()

        return asyncio.run(main())

    assert in_a_fresh_thread(program) == "before"


def test_after_the_loop_the_base_context_may_be_set_again() -> None:
    def program() -> str:
        asyncio.run(asyncio.sleep(0))
        VAR.set("after")
        return VAR.get()

    assert in_a_fresh_thread(program) == "after"


def test_the_native_context_is_not_there() -> None:
    with pytest.raises(AttributeError, match="CONTEXTVARS_CY_HOST=native"):
        Context().native
