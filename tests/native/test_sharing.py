"""What the compiled backend changes in place is nobody else's: a native copy keeps its values, however it was made."""

from __future__ import annotations

import contextvars
import random
from collections.abc import Callable
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, Hamt, assign, copy_context, current_context

VAR: ContextVar[object] = ContextVar("VAR")
OTHER: ContextVar[object] = ContextVar("OTHER")
NEW: ContextVar[object] = ContextVar("NEW")
# Enough for a native tree of several levels, with the anchor somewhere in it.
NATIVE: list[contextvars.ContextVar[object]] = [contextvars.ContextVar(f"native {number}") for number in range(300)]


def anchor() -> contextvars.ContextVar[Any]:
    (found,) = (var for var in contextvars.copy_context() if var.name == "contextvars_cy")
    return found


def native_copy() -> contextvars.Context:
    return contextvars.copy_context()


def copy_of_the_current_one() -> contextvars.Context:
    return current_context().native.copy()


def copy_of_ours() -> contextvars.Context:
    return copy_context().native


def copy_of_a_copy() -> contextvars.Context:
    return contextvars.copy_context().copy()


def copy_that_sets_a_native_variable() -> contextvars.Context:
    copy = contextvars.copy_context()
    copy.run(NATIVE[0].set, "copy's")
    return copy


def one_that_takes_over_the_values() -> contextvars.Context:
    taker = contextvars.Context()
    for var, value in contextvars.copy_context().items():
        taker.run(var.set, value)
    return taker


COPIES = [
    native_copy,
    copy_of_the_current_one,
    copy_of_ours,
    copy_of_a_copy,
    copy_that_sets_a_native_variable,
    one_that_takes_over_the_values,
]


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("natives", [0, 1, 20, 300])
def test_a_native_copy_keeps_its_values(copied: Callable[[], contextvars.Context], natives: int) -> None:
    def check() -> None:
        for var in NATIVE[:natives]:
            var.set("native")
        for number in range(3):
            VAR.set(number)
            copy = copied()
            VAR.set("changed")
            token = OTHER.set("new")
            VAR.set("changed again")
            OTHER.reset(token)
            assert copy.run(VAR.get) == number
            assert copy.run(OTHER.get, None) is None
            copy.run(VAR.set, "the copy's")
            copy.run(VAR.set, "the copy's own")
            assert VAR.get() == "changed again"

    Context().run(check)


def test_a_snapshot_that_somebody_holds_stays() -> None:
    def check() -> None:
        VAR.set(1)
        snapshot = anchor().get()
        walk = current_context().items()
        VAR.set(2)
        OTHER.set(3)
        assert dict(snapshot) == {VAR: 1}
        assert dict(walk) == {VAR: 1}

    Context().run(check)


@pytest.mark.parametrize("change", ["set", "add", "remove", "assign"])
def test_a_snapshot_that_was_hashed_has_the_hash_of_what_it_holds(change: str) -> None:
    def check() -> None:
        VAR.set(1)
        token = OTHER.set(2)
        VAR.set(3)
        assert hash(anchor().get()) == hash(Hamt(current_context()))
        if change == "set":
            VAR.set(4)
        elif change == "add":
            NEW.set(5)
        elif change == "remove":
            OTHER.reset(token)
        else:
            assign({VAR: 6, OTHER: 7})
        snapshot = anchor().get()
        assert snapshot == Hamt(current_context())
        assert hash(snapshot) == hash(Hamt(current_context()))
        # And after a lookup.
        VAR.get()
        assert hash(snapshot) == hash(Hamt(current_context()))

    Context().run(check)


def test_contexts_that_branch_at_random() -> None:
    chosen = random.Random(1)
    contexts: list[tuple[Context, dict[ContextVar[object], object]]] = [(Context(), {})]
    for _ in range(2000):
        context, expected = chosen.choice(contexts)
        action = chosen.choice(["set", "set", "set", "unset", "native", "copy"])
        if action == "set":
            var, value = chosen.choice([VAR, OTHER]), chosen.random()
            context.run(var.set, value)
            expected[var] = value
        elif action == "unset":
            context.run(lambda: VAR.reset(VAR.set(0)))
        elif action == "native":
            context.run(chosen.choice(NATIVE).set, chosen.random())
        elif len(contexts) < 40:
            contexts.append((context.copy(), dict(expected)))
        for context, expected in contexts:
            assert dict(context.items()) == expected
