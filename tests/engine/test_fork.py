"""A fork in the middle of things: the child goes on where the parent was, with values, tokens and Contexts."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import traceback
from collections.abc import Callable

import pytest

import contextvars_cy
from contextvars_cy import Context, ContextVar, Hamt, HamtMutation, copy_context, current_context, thread_state

pytestmark = [
    pytest.mark.usefixtures("context_of_its_own"),
    # What Python 3.12 and later say of a fork with threads: the child here does nothing but what is tested.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

VAR: ContextVar[object] = ContextVar("VAR", default="default")
OTHER = ContextVar("OTHER", default="default")


def in_child(function: Callable[[], object]) -> None:
    """Call the function in a child process, and then check in the parent that it succeeded there."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_child_goes_on_in_run() -> None:
    before = current_context()
    context = Context()

    def work() -> None:
        token = VAR.set("parent")
        undone = OTHER.set("parent")

        def check() -> None:
            assert current_context() is context is thread_state().context
            assert dict(context) == {VAR: "parent", OTHER: "parent"}
            with pytest.raises(RuntimeError, match="is already entered"):
                context.run(int)
            OTHER.reset(undone)
            VAR.reset(token)
            with pytest.raises(RuntimeError, match="has already been used once"):
                VAR.reset(token)
            with VAR.set("child"), copy_context():
                assert VAR.get() == "child"
            assert len(context) == 0

        in_child(check)
        assert dict(context) == {VAR: "parent", OTHER: "parent"}
        VAR.reset(token)

    context.run(work)
    assert current_context() is before and dict(context) == {OTHER: "parent"}


@pytest.mark.parametrize("enter", ["run", "with", "state"])
def test_the_child_leaves_the_context(enter: str) -> None:
    before, context = current_context(), Context()
    VAR.set("outside")
    parent = os.getpid()
    child: int

    def work() -> None:
        nonlocal child
        VAR.set("inside")
        child = os.fork()
        VAR.set(os.getpid())

    def check() -> None:
        assert current_context() is before and VAR.get() == "outside"
        assert context[VAR] == os.getpid() and context.run(VAR.get) == os.getpid()
        VAR.set("end")

    try:
        if enter == "run":
            context.run(work)
        elif enter == "with":
            with context:
                work()
        else:
            thread_state().enter(context)
            work()
            thread_state().exit(context)
        check()
    except BaseException:
        if os.getpid() == parent:
            raise
        traceback.print_exc()
        os._exit(1)
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_token_waits_for_its_reset_in_both() -> None:
    with VAR.set("set") as token:
        in_child(lambda: (VAR.reset(token), VAR.set("child")))  # type: ignore[func-returns-value]
        assert VAR.get() == "set"
    assert VAR.get() == "default"


def test_a_fork_in_a_thread() -> None:
    """The thread is the child's only one, and its state goes with it."""
    failures, context = [], Context()
    others, end = Context(), threading.Event()
    waiting = threading.Thread(target=lambda: others.run(lambda: (VAR.set("waiting"), end.wait())))
    waiting.start()
    while others.get(VAR) is None:
        pass

    def work() -> None:
        state = thread_state()

        def check() -> None:
            assert thread_state() is state and state.context is context
            assert VAR.get() == "thread" and others[VAR] == "waiting"
            # Its thread is gone, and never left it.
            with pytest.raises(RuntimeError, match="is already entered"):
                others.run(int)
            assert others.copy().run(VAR.get) == "waiting"

        VAR.set("thread")
        try:
            in_child(check)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=lambda: context.run(work))
    thread.start()
    thread.join()
    end.set()
    waiting.join()
    assert not failures and context[VAR] == "thread"


def test_a_fork_in_the_middle_of_a_mutation() -> None:
    mutation: HamtMutation[str, int] = Hamt(a=1).mutate()
    mutation["b"] = 2

    def check() -> None:
        mutation["c"] = 3
        assert mutation.finish() == Hamt(a=1, b=2, c=3)

    in_child(check)
    assert mutation.finish() == Hamt(a=1, b=2)


if contextvars_cy.host == "native":

    def test_a_fork_in_a_task() -> None:
        async def other(number: int) -> object:
            VAR.set(number)
            await asyncio.sleep(0)
            return VAR.get()

        async def main() -> list[object]:
            tasks = [asyncio.ensure_future(other(number)) for number in range(3)]
            await asyncio.sleep(0)
            token = VAR.set("main")

            def check() -> None:
                assert VAR.get() == "main"
                VAR.reset(token)
                assert VAR.get() == "default"
                with copy_context():
                    VAR.set("child")
                assert VAR.get() == "default"

            in_child(check)
            assert VAR.get() == "main"
            return await asyncio.gather(*tasks)

        assert asyncio.run(main()) == [0, 1, 2]
