"""One native variable holds what all of ours hold. Whoever lists a native Context finds it, and can spoil it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable

import pytest

from contextvars_cy import ContextVar, assign, copy_context, current_context

pytestmark = pytest.mark.usefixtures("context_of_its_own")

SpoilAndMend = tuple[Callable[[], object], Callable[[], object]]

VAR, OTHER = ContextVar("VAR", default="default"), ContextVar("OTHER", default="default")

OPERATIONS: dict[str, Callable[[], object]] = {
    "get": VAR.get,
    "set": lambda: VAR.set("new"),
    "set a new one": lambda: ContextVar("new").set("new"),  # type: ignore[arg-type]
    "assign": lambda: assign({VAR: "new", OTHER: "new"}),
    "ctx[var]": lambda: current_context()[VAR],
    "var in ctx": lambda: VAR in current_context(),
    "len": lambda: len(current_context()),
    "list": lambda: list(current_context()),
    "of a copy": lambda: list(copy_context().items()),
}


@pytest.fixture
def spoilt() -> SpoilAndMend:
    """A function that spoils the variable, and another that mends it."""
    VAR.set("before")
    (anchor,) = (var for var in contextvars.copy_context() if var.name == "contextvars_cy")
    held = anchor.get()
    return lambda: anchor.set(object()), lambda: anchor.set(held)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_on_what_is_no_snapshot_is_refused(spoilt: SpoilAndMend, operation: str) -> None:
    spoil, mend = spoilt
    spoil()
    with pytest.raises((TypeError, AttributeError)):
        OPERATIONS[operation]()
    mend()
    assert (VAR.get(), OTHER.get()) == ("before", "default")


def test_a_reset_that_was_refused_can_be_done_later(spoilt: SpoilAndMend) -> None:
    spoil, mend = spoilt
    token = VAR.set("after")
    spoil()
    with pytest.raises((TypeError, AttributeError)):
        VAR.reset(token)
    mend()
    VAR.reset(token)
    assert VAR.get() == "before"


def test_an_undo_that_was_refused_can_be_done_later(spoilt: SpoilAndMend) -> None:
    spoil, mend = spoilt
    assignment = assign({VAR: "after", OTHER: "after"})
    spoil()
    with pytest.raises((TypeError, AttributeError)):
        assignment.undo()
    mend()
    assignment.undo()
    assert (VAR.get(), OTHER.get()) == ("before", "default")
