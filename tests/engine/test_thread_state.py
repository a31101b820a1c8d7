"""Threads: each has its own current Context, found through its ThreadState."""

from __future__ import annotations

import _thread
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, ThreadState, copy_context, current_context, thread_state
from refusals import as_errors_name, refuses

VAR: ContextVar[object] = ContextVar("VAR", default="default")


def collect() -> None:
    # On PyPy the first time calls the thread's finaliser, and the second frees what that had.
    gc.collect()
    gc.collect()


def in_a_thread(function: Callable[[], object]) -> Any:
    result = []

    def call() -> None:
        try:
            result.append(function())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return result.pop()


def test_a_thread_starts_without_values() -> None:
    def look() -> tuple[object, object]:
        before = VAR.get()
        VAR.set("thread")
        return before, VAR.get()

    with copy_context():
        VAR.set("main")
        assert in_a_thread(look) == ("default", "thread")
        assert VAR.get() == "main"


def test_a_context_can_be_carried_to_a_thread() -> None:
    with copy_context():
        VAR.set("main")
        context = copy_context()
    assert in_a_thread(lambda: context.run(VAR.get)) == "main"
    assert in_a_thread(lambda: context.run(VAR.set, "thread").old_value) == "main"
    assert context[VAR] == "thread"


def test_a_token_of_another_thread_is_refused() -> None:
    token = in_a_thread(lambda: VAR.set(1))
    with pytest.raises(ValueError, match="was created in a different Context"):
        VAR.reset(token)


def test_each_thread_has_one_state_of_its_own() -> None:
    assert thread_state() is thread_state()
    assert in_a_thread(lambda: thread_state() is thread_state()) is True
    state = thread_state()
    assert in_a_thread(lambda: thread_state() is state) is False


def test_enter_and_exit_are_a_stack() -> None:
    state, first, second = thread_state(), Context(), Context()
    before = current_context()
    state.enter(first)
    VAR.set(1)
    state.enter(second)
    assert state.context is second
    assert VAR.get() == "default"
    with pytest.raises(RuntimeError, match="thread state references a different context object"):
        state.exit(first)
    state.exit(second)
    assert VAR.get() == 1
    state.exit(first)
    assert state.context is before
    with refuses(RuntimeError, f"cannot exit context: {as_errors_name(first)} has not been entered"):
        state.exit(first)


def test_a_run_may_leave_and_enter_in_any_order_that_ends_in_its_context() -> None:
    state, outer, inner = thread_state(), Context(), Context()

    def reorder() -> None:
        state.exit(inner)
        state.exit(outer)
        state.enter(inner)

    before = current_context()
    with refuses(RuntimeError, f"cannot exit context: {as_errors_name(outer)} has not been entered"):
        outer.run(inner.run, reorder)
    assert state.context is before
    with inner, outer:
        pass


@pytest.mark.parametrize("name", ["enter", "exit"])
def test_only_contexts_are_entered(name: str) -> None:
    with pytest.raises(TypeError, match="an instance of Context was expected"):
        getattr(thread_state(), name)(1)


def test_a_state_serves_its_own_thread_only() -> None:
    state = thread_state()
    for act in (lambda: state.context, lambda: state.enter(Context()), lambda: state.exit(Context())):
        error = in_a_thread(act)
        assert type(error) is RuntimeError
        assert "belongs to another thread; call thread_state() in this one" in str(error)


def test_a_state_does_not_outlive_its_thread() -> None:
    state = in_a_thread(thread_state)
    # A new thread may well have the old one's number.
    for _ in range(10):
        error = in_a_thread(lambda: state.context)
        assert type(error) is RuntimeError and "belongs to another thread" in str(error)


def test_a_state_and_its_values_are_gone_with_the_thread() -> None:
    class Value:
        pass

    def make() -> tuple[weakref.ref[Value], weakref.ref[ThreadState]]:
        value = Value()
        VAR.set(value)
        return weakref.ref(value), weakref.ref(thread_state())

    references = in_a_thread(make)
    collect()
    for reference in references:
        assert reference() is None


def test_many_threads_share_a_variable_and_nothing_else() -> None:
    def count(number: int) -> bool:
        for step in range(200):
            VAR.set((number, step))
            with copy_context():
                VAR.set(None)
            assert VAR.get() == (number, step)
        return True

    results = []
    threads = [threading.Thread(target=lambda n=n: results.append(count(n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8


def test_two_threads_cannot_both_enter() -> None:
    context, entered = Context(), []
    barrier = threading.Barrier(8)

    def enter() -> None:
        barrier.wait()
        try:
            context.run(lambda: (entered.append(1), barrier.wait()))  # type: ignore[func-returns-value]
        except RuntimeError:
            barrier.wait()

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered == [1]


def in_a_bare_thread(function: Callable[[], object]) -> None:
    """Without the Context in which a `threading.Thread` runs from Python 3.14 on, and must end."""
    done = _thread.allocate_lock()
    done.acquire()

    def call() -> None:
        try:
            function()
        finally:
            done.release()

    _thread.start_new_thread(call, ())
    done.acquire()


def test_a_thread_that_ends_in_a_context_has_not_left_it() -> None:
    """As in the standard library: nobody can enter it again, everybody can read and copy it."""
    context, after = Context(), []
    in_a_bare_thread(lambda: (thread_state().enter(context), VAR.set("thread")))  # type: ignore[func-returns-value]
    in_a_bare_thread(lambda: after.append(VAR.get()))
    assert after == ["default"]
    for enter in (context.__enter__, lambda: context.run(int), lambda: thread_state().enter(context)):
        with refuses(RuntimeError, f"cannot enter context: {as_errors_name(context)} is already entered"):
            enter()
    with pytest.raises(RuntimeError, match="thread state references a different context object"):
        thread_state().exit(context)
    assert context[VAR] == context.copy().run(VAR.get) == "thread"


def test_a_context_is_gone_with_the_thread_that_ended_in_it() -> None:
    def enter() -> None:
        context = Context()
        thread_state().enter(context)
        references.append(weakref.ref(context))

    references: list[weakref.ref[Context]] = []
    in_a_bare_thread(enter)
    collect()
    assert references[0]() is None


def test_a_generator_that_another_thread_closes_cannot_leave_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    def generate() -> Iterator[None]:
        with context:
            VAR.set("generator")
            yield

    context, generators = Context(), [generate()]
    in_a_bare_thread(lambda: next(generators[0]))
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(str(unraisable.exc_value)))
    before = current_context()
    generators.clear()
    gc.collect()
    assert told == ["cannot exit context: thread state references a different context object"]
    assert current_context() is before and VAR.get() == "default"
    assert context[VAR] == "generator"
