"""What a recording says of Contexts that asyncio makes or is given, and of those that nobody saw being made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context as NativeContext
from contextvars import copy_context as native_copy
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar
from contextvars_cy.tracing import record


@pytest.mark.parametrize("make", [Context, NativeContext])
def test_a_context_that_is_given_is_no_copy(make: Callable[[], Any]) -> None:
    user: ContextVar[str] = ContextVar("user", default="-")
    answers = []

    def look() -> None:
        user.get()
        answers.append(str(recording.why(user)))

    async def main() -> None:
        user.set("ada")
        # As `create_task` does with its argument of that name, from Python 3.11 on.
        asyncio.get_running_loop().call_soon(look, context=make())
        await asyncio.sleep(0)

    with record() as recording:
        asyncio.run(main())
    (answer,) = answers
    assert answer.startswith("user is unset here: it was last set at")
    assert "how this one was made is unknown" in answer


def test_a_callback_of_a_future_has_the_context_of_its_registration() -> None:
    user: ContextVar[str] = ContextVar("user", default="-")
    other: ContextVar[str] = ContextVar("other", default="-")
    answers = []

    def tell(_: object) -> None:
        other.get()
        answers.append((user.get(), str(recording.why(user))))

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        user.set("early")
        future.add_done_callback(tell)
        user.set("late")
        future.set_result(None)
        await asyncio.sleep(0)

    with record() as recording:
        asyncio.run(main())
    ((value, answer),) = answers
    assert value == "early" and answer.startswith("user is 'early': set at ")
    assert ", and inherited by the copy first seen with the values of Context " in answer


def test_a_native_copy_in_a_thread_is_not_the_threads_own() -> None:
    user: ContextVar[str] = ContextVar("user", default="-")
    other: ContextVar[str] = ContextVar("other", default="-")

    def work() -> tuple[str, str]:
        other.get()
        return user.get(), str(recording.why(user))

    async def main() -> tuple[str, str]:
        user.set("ada")
        return await asyncio.get_running_loop().run_in_executor(None, copied.run, work)

    user.set("eve")
    copied = native_copy()
    with record() as recording:
        value, answer = asyncio.run(main())
    assert value == "eve" and answer == "user is 'eve': it was so when the recording began"


def test_a_task_that_still_runs_is_no_leak() -> None:
    user: ContextVar[str] = ContextVar("user")

    async def wait() -> None:
        user.set("ada")
        await asyncio.sleep(60)

    async def main() -> list[Any]:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        leaks = recording.leaks()
        task.cancel()
        return leaks

    with record() as recording:
        assert [leak for leak in asyncio.run(main()) if "ada" in leak.text] == []


def test_what_was_copied_unseen_is_known_by_its_values() -> None:
    user: ContextVar[str] = ContextVar("user", default="-")
    other: ContextVar[str] = ContextVar("other", default="-")
    with record() as recording:
        user.set("ada")
        copied = native_copy()
        other.set("late")
        copied.run(other.get)
        why = copied.run(recording.why, user), copied.run(recording.why, other)
        strange = native_copy()
        strange.run(user.set, "eve")
        seen_late = strange.run(recording.why, other)
    assert str(why[0]).startswith("user is 'ada': set at")
    assert str(why[0]).endswith("inherited by the copy first seen with the values of Context 0")
    assert "but this Context has its values from before that; what copied it was not seen" in str(why[1])
    # Its first event has changed its values; from Python 3.14 on, that is the switch to it.
    assert str(seen_late).startswith("other is 'late': ")
