"""Many variables set at once, and undone at once: what as many sets and resets would do, but all of them or none."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import Assignment, Context, ContextVar, assign, copy_context

# As many as give a Context's tree more than one node.
MANY: list[ContextVar[object]] = [ContextVar(f"variable {number}") for number in range(40)]
ONE, TWO, THREE = MANY[:3]


def values() -> dict[ContextVar[Any], Any]:
    return {var: value for var, value in copy_context().items() if var in MANY}


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    with Context():
        yield


@given(st.dictionaries(st.sampled_from(MANY), st.integers()), st.dictionaries(st.sampled_from(MANY), st.integers()))
@pytest.mark.parametrize("shared", [False, True])
def test_it_is_as_many_sets(
    shared: bool, before: dict[ContextVar[object], int], new: dict[ContextVar[object], int]
) -> None:
    def check() -> None:
        for var, value in before.items():
            var.set(value)
        copies = [copy_context()] if shared else []
        assignment = assign(new)
        assert values() == {**before, **new}
        assignment.undo()
        assert values() == before
        assert all(dict(copy) == before for copy in copies)

    Context().run(check)


def test_with_undoes_at_the_end_and_after_an_error() -> None:
    ONE.set("old")
    with assign({ONE: 1, TWO: 2}) as assignment:
        assert type(assignment) is Assignment
        assert (ONE.get(), TWO.get()) == (1, 2)
    assert values() == {ONE: "old"}
    with pytest.raises(ZeroDivisionError), assign({ONE: 1, TWO: 2}):
        1 / 0  # noqa: B018
    assert values() == {ONE: "old"}


def test_what_was_set_by_others_in_the_meantime_stays() -> None:
    with assign({ONE: 1}):
        ONE.set("later")
        TWO.set("beside")
    assert values() == {TWO: "beside"}


def test_assignments_are_nested() -> None:
    with assign({ONE: 1, TWO: 2}):
        with assign({TWO: "two", THREE: "three"}):
            assert values() == {ONE: 1, TWO: "two", THREE: "three"}
        assert values() == {ONE: 1, TWO: 2}
    assert values() == {}


@pytest.mark.parametrize("wrong", ["name", 1, None, Context()], ids=["name", "1", "None", "Context"])
def test_a_key_that_is_no_variable_changes_nothing(wrong: Any) -> None:
    pairs = [(ONE, 1), (TWO, 2)]
    if type(wrong) is Context:
        with pytest.raises(TypeError, match="unhashable"):
            assign([*pairs, (wrong, 3)])  # type: ignore[list-item]
    else:
        with pytest.raises(TypeError, match=f"^a ContextVar key was expected, got {wrong!r}$"):
            assign({ONE: 1, wrong: 2, TWO: 3})
    assert values() == {}


def test_an_error_of_the_mapping_changes_nothing() -> None:
    def pairs() -> Iterator[tuple[ContextVar[object], int]]:
        yield ONE, 1
        raise ZeroDivisionError

    ONE.set("old")
    with pytest.raises(ZeroDivisionError):
        assign(pairs())
    with pytest.raises(TypeError):
        assign(1)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        assign()  # type: ignore[call-overload]
    assert values() == {ONE: "old"}


def test_it_takes_what_dict_takes() -> None:
    assign([(ONE, 1), (TWO, 2), (ONE, 3)])
    assert values() == {ONE: 3, TWO: 2}
    assign(copy_context())
    assert values() == {ONE: 3, TWO: 2}


def test_the_mapping_may_change_afterwards() -> None:
    new = {ONE: 1}
    assignment = assign(new)
    new[TWO] = 2
    del new[ONE]
    assignment.undo()
    assert values() == {}


def test_it_is_undone_once() -> None:
    assignment = assign({ONE: 1})
    assignment.undo()
    ONE.set("later")
    with pytest.raises(RuntimeError, match="^<Assignment undone of {.*} at 0x[0-9a-f]+> has already been undone$"):
        assignment.undo()
    assert values() == {ONE: "later"}


def test_it_is_undone_where_it_was_made() -> None:
    ONE.set("old")
    assignment = assign({ONE: 1})
    context = copy_context()
    with pytest.raises(ValueError, match="^<Assignment of {.*} at 0x[0-9a-f]+> was made in a different Context$"):
        context.run(assignment.undo)
    assert context[ONE] == ONE.get() == 1
    assignment.undo()
    assert values() == {ONE: "old"}


def test_of_no_variables() -> None:
    with assign({}):
        assert values() == {}


@pytest.mark.parametrize(
    "refused",
    [
        Assignment,
        lambda: hash(assign({})),
        lambda: type("Mine", (Assignment,), {}),
        lambda: setattr(assign({}), "name", 1),
        lambda: copy.copy(assign({})),
        lambda: pickle.dumps(assign({})),
    ],
)
def test_like_a_token_it_is_only_what_it_is(refused: Callable[[], object]) -> None:
    with pytest.raises((TypeError, RuntimeError, AttributeError)):
        refused()


def test_an_assignment_in_its_own_variable_is_collected() -> None:
    class Value:
        assignment: Assignment

    def make() -> weakref.ref[Value]:
        value = Value()
        value.assignment = assign({ONE: value})
        return weakref.ref(value)

    found = Context().run(make)
    gc.collect()
    assert found() is None
