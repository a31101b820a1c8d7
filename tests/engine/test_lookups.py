"""`get` gives what the current Context holds, whatever the variable was last seen to hold, where and in which state."""

from __future__ import annotations

import random

import pytest

from contextvars_cy import Context, ContextVar, assign, current_context

# Enough for a tree of two levels.
VARIABLES: list[ContextVar[object]] = [ContextVar(f"variable {number}", default=number) for number in range(80)]


class Value:
    pass


def check(expected: dict[ContextVar[object], object], chosen: random.Random) -> None:
    for var in chosen.sample(VARIABLES, 4):
        assert var.get() is expected.get(var, int(var.name.split()[1]))
        assert var.get("argument") is expected.get(var, "argument")


def change(expected: dict[ContextVar[object], object], chosen: random.Random) -> None:
    """Set in one of the ways there are, or set and undo; the mapping is what the Context has then."""
    action = chosen.choice(["set", "set and reset", "reset twice", "assign", "assign and undo", "with"])
    before = dict(expected)
    changes = {var: Value() for var in chosen.sample(VARIABLES, chosen.choice([1, 1, 2, 5]))}
    if action.startswith("assign"):
        assignment = assign(changes)
    else:
        tokens = [var.set(value) for var, value in changes.items()]
    expected.update(changes)
    check(expected, chosen)
    if action in ("set", "assign"):
        return
    if action == "assign and undo":
        assignment.undo()
    elif action == "with":
        for token in reversed(tokens):
            with token:
                pass
    else:
        for token in reversed(tokens):
            token.var.reset(token)
    expected.clear()
    expected.update(before)
    check(expected, chosen)


@pytest.mark.parametrize("seed", range(8))
def test_reads_among_changes_in_many_contexts(seed: int) -> None:
    chosen = random.Random(seed)
    contexts: list[tuple[Context, dict[ContextVar[object], object]]] = [(Context(), {})]
    for _ in range(1500):
        context, expected = chosen.choice(contexts)
        action = chosen.choice(["change", "change", "change", "copy", "drop", "nest"])
        if action == "change":
            context.run(change, expected, chosen)
        elif action == "copy" and len(contexts) < 12:
            contexts.append((context.copy(), dict(expected)))
        elif action == "drop" and len(contexts) > 1:
            # Others take its place in memory, and its values' places.
            contexts.remove((context, expected))
        elif action == "nest":
            inner, inner_expected = chosen.choice(contexts)
            if inner is not context:
                with context:
                    check(expected, chosen)
                    inner.run(change, inner_expected, chosen)
                    check(expected, chosen)
        context.run(check, expected, chosen)
        assert dict(context.items()) == expected


def test_the_same_variable_in_contexts_in_turn() -> None:
    contexts = [Context() for _ in range(3)]
    var: ContextVar[object] = ContextVar("var", default="default")
    for number, context in enumerate(contexts[1:]):
        context.run(var.set, number)
    for _ in range(3):
        assert [context.run(var.get) for context in contexts] == ["default", 0, 1]
        assert [context.run(var.get, "argument") for context in contexts] == ["argument", 0, 1]


def test_values_that_die_with_their_contexts() -> None:
    """A variable that has been read keeps neither the value nor its place in memory."""
    var: ContextVar[list[int]] = ContextVar("var")
    for number in range(1000):
        context = Context()
        context.run(var.set, [number])
        assert context.run(var.get) == [number]
        assert context.run(lambda: current_context()[var]) == [number]
        del context
        assert var.get(None) is None


def test_what_is_set_in_one_step_is_found_one_by_one_and_the_other_way_round() -> None:
    together, singly = Context(), Context()
    expected = {var: Value() for var in VARIABLES}
    together.run(assign, expected)
    for var, value in expected.items():
        singly.run(var.set, value)
    for var, value in expected.items():
        assert together.run(var.get) is value
        assert together[var] is value and singly[var] is value
        assert var in together and var in singly
    assert together == singly
    assert not together.diff(singly)
    singly.run(assign, dict.fromkeys(VARIABLES, "new"))
    assert list(singly.values()) == ["new"] * len(VARIABLES)
