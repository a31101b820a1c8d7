"""The exception that a caller handles stays the caller's: a generator that it steps does not keep it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

from contextvars_cy import Context, ContextVar, Local, apply, assign, bind, copy_context, current_context

VAR: ContextVar[object] = ContextVar("VAR", default="default")
LOCAL = Local()
OPERATIONS: dict[str, Callable[[], object]] = {
    "get": lambda: VAR.get(),
    "set": lambda: VAR.set(1),
    "reset": lambda: VAR.reset(VAR.set(1)),
    "with set": lambda: VAR.set(1).__enter__(),
    "unset": lambda: VAR.unset(),
    "try_reset": lambda: VAR.try_reset(VAR.set(1)),
    "assign": lambda: assign({VAR: 1}),
    "undo": lambda: assign({VAR: 1}).undo(),
    "copy": copy_context,
    "set in a copy": lambda: copy_context().run(VAR.set, 1),
    "set in a new Context": lambda: Context().run(VAR.set, 1),
    "apply": lambda: apply(copy_context()),
    "bind": lambda: bind(VAR.set)(1),
    "current": current_context,
    "Local": lambda: setattr(LOCAL, "name", 1),
}


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    with Context():
        yield


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_a_generator_does_not_keep_what_its_caller_handles(operation: Callable[[], object]) -> None:
    def steps() -> Iterator[object]:
        operation()
        yield sys.exc_info()[0]
        yield sys.exc_info()[0]

    try:
        raise KeyError
    except KeyError:
        stepped = steps()
        assert next(stepped) is KeyError
    assert next(stepped) is None
