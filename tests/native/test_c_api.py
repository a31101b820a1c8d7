"""Native Contexts that C code enters and leaves, as that of event loops and greenlets does."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, ThreadState, current_context, thread_state
from interpreters import CPYTHON
from refusals import as_errors_name, refuses

if not CPYTHON:
    pytest.skip("only CPython's C code enters native Contexts", allow_module_level=True)

VAR: ContextVar[object] = ContextVar("VAR", default="default")


def from_c(name: str) -> Any:
    function = getattr(ctypes.pythonapi, name)
    function.argtypes, function.restype = [ctypes.py_object], ctypes.c_int
    return function


enter, leave = from_c("PyContext_Enter"), from_c("PyContext_Exit")


@pytest.fixture
def state() -> Iterator[ThreadState]:
    state = thread_state()
    outer = state.context
    yield state
    assert state.context is outer


def test_a_context_entered_by_c_is_the_one_that_stands_for_it(state: ThreadState) -> None:
    context = Context()
    enter(context.native)
    assert state.context is current_context() is context
    VAR.set("set in it")
    leave(context.native)
    assert (context[VAR], VAR.get()) == ("set in it", "default")


@pytest.mark.parametrize("left", [1, 2, 3])
def test_a_context_below_those_that_c_has_left(left: int, state: ThreadState) -> None:
    contexts = [Context() for _ in range(4)]
    for number, context in enumerate(contexts):
        state.enter(context)
        VAR.set(number)
    for context in contexts[: -left - 1 : -1]:
        leave(context.native)
    below = contexts[-left - 1]
    assert current_context() is below
    assert VAR.get() == below[VAR]
    for context in contexts[-left:]:
        enter(context.native)
    for context in reversed(contexts):
        assert current_context() is context
        state.exit(context)


def test_contexts_that_are_left_in_another_order_than_entered(state: ThreadState) -> None:
    """As greenlets leave theirs: each has a stack of its own, and C code puts the one that runs in place."""
    first, second, third = contexts = [Context() for _ in range(3)]
    state.enter(first)
    VAR.set("first")
    leave(first.native)
    state.enter(second)
    VAR.set("second")
    leave(second.native)
    state.enter(third)
    leave(third.native)
    for context in contexts:
        enter(context.native)
        assert current_context() is context
        state.exit(context)
    assert (first[VAR], second[VAR], VAR in third, VAR.get()) == ("first", "second", False, "default")
    # Each can be entered again.
    for context in contexts:
        assert context.run(current_context) is context


def test_a_context_that_c_has_entered_is_left_by_python(state: ThreadState) -> None:
    context = Context()
    enter(context.native)
    state.exit(context)
    with context:
        leave(context.native)
        enter(context.native)


def test_a_context_that_c_has_left_is_not_left_again(state: ThreadState) -> None:
    context = Context()
    state.enter(context)
    leave(context.native)
    with refuses(RuntimeError, f"cannot exit context: {as_errors_name(context)} has not been entered"):
        state.exit(context)
    enter(context.native)
    assert state.context is context
    state.exit(context)
