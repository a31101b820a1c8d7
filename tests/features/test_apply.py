"""Another Context's values brought into the current one, and what tells two Contexts apart."""

from __future__ import annotations

import contextvars
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import (
    Assignment,
    Context,
    ContextVar,
    Hamt,
    HamtDiff,
    apply,
    assign,
    bind,
    copy_context,
    current_context,
    host,
)
from interpreters import counts_on_the_gil, crashes_without_the_gil
from refusals import refuses

# As many as give a Context's tree more than one node.
MANY: list[ContextVar[Any]] = [ContextVar(f"variable {number}") for number in range(40)]
ONE, TWO, THREE = MANY[:3]
Values = dict[ContextVar[Any], Any]
VALUES = st.dictionaries(st.sampled_from(MANY), st.integers())


def values() -> Values:
    return {var: value for var, value in copy_context().items() if var in MANY}


def context_of(values: Values) -> Context:
    context = Context()
    context.run(assign, values)
    return context


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    with Context():
        yield


@given(VALUES, VALUES, st.none() | st.sets(st.sampled_from(MANY)))
def test_the_values_of_the_other_are_laid_over_those_here(
    here: Values, there: Values, only: set[ContextVar[Any]] | None
) -> None:
    def check() -> None:
        assign(here)
        assignment = apply(other, only)
        brought = {var: value for var, value in there.items() if only is None or var in only}
        assert values() == {**here, **brought}
        assignment.undo()
        assert values() == here
        assert dict(other) == there

    other = context_of(there)
    Context().run(check)


def test_with_undoes_at_the_end_and_after_an_error() -> None:
    other = context_of({ONE: 1, TWO: 2})
    ONE.set("old")
    with apply(other) as assignment:
        assert type(assignment) is Assignment
        assert values() == {ONE: 1, TWO: 2}
    assert values() == {ONE: "old"}
    with pytest.raises(ZeroDivisionError), apply(other, only=[TWO]):
        assert values() == {ONE: "old", TWO: 2}
        1 / 0  # noqa: B018
    assert values() == {ONE: "old"}


def test_a_variable_with_that_very_value_is_given_it_back_too() -> None:
    ONE.set("same")
    with apply(copy_context()):
        ONE.set("changed")
    assert values() == {ONE: "same"}


def test_what_the_other_lacks_stays() -> None:
    ONE.set("here")
    apply(Context())
    apply(context_of({TWO: 2}), only=iter([ONE, TWO, THREE]))
    assert values() == {ONE: "here", TWO: 2}


def test_the_other_may_be_in_use_and_change_afterwards() -> None:
    apply(current_context())
    assert values() == {}
    ONE.set("here")
    with copy_context() as other:
        TWO.set("there")
        Context().run(apply, other)
        apply(other)
    apply(other)
    other.run(ONE.set, "later")
    assert values() == {ONE: "here", TWO: "there"}


def test_the_other_is_seen_at_one_moment() -> None:
    def only() -> Iterator[ContextVar[Any]]:
        yield ONE
        other.run(TWO.set, "later")
        yield TWO

    other = context_of({ONE: 1, TWO: 2})
    apply(other, only())
    assert values() == {ONE: 1, TWO: 2}


@pytest.mark.parametrize("wrong", [{}, None, Hamt(), contextvars.Context()], ids=lambda wrong: type(wrong).__name__)
def test_only_a_context_is_applied(wrong: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"apply() takes a Context of contextvars_cy, not {wrong!r}")):
        apply(wrong)


@pytest.mark.parametrize("wrong", ["name", 1, None], ids=repr)
def test_an_error_changes_nothing(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"^a ContextVar key was expected, got {wrong!r}$"):
        apply(context_of({ONE: 1}), only=[ONE, wrong])
    with pytest.raises(TypeError):
        apply(context_of({ONE: 1}), only=ONE)  # type: ignore[arg-type]
    assert values() == {}


def test_values_set_in_a_thread_are_brought_back() -> None:
    child = copy_context()
    thread = threading.Thread(target=child.run, args=(ONE.set, "thread"))
    thread.start()
    thread.join()
    assert values() == {}
    apply(child)
    assert values() == {ONE: "thread"}


# ---- what tells two Contexts apart ----


@given(VALUES, VALUES)
def test_diff_is_that_of_the_maps(one: Values, two: Values) -> None:
    assert context_of(one).diff(context_of(two)) == Hamt(one).diff(Hamt(two))
    assert context_of(one).diff(context_of(dict(one))) == HamtDiff({}, {}, {})


def test_what_a_call_has_changed() -> None:
    apply(context_of({ONE: 1, TWO: 2}))
    before, after = copy_context(), copy_context()
    after.run(ONE.set, "changed")
    after.run(TWO.set, 2.0)
    after.run(THREE.set, "added")
    assert before.diff(after) == ({THREE: "added"}, {}, {ONE: (1, "changed")})
    assert after.diff(before) == ({}, {THREE: "added"}, {ONE: ("changed", 1)})
    # What went on here meanwhile stays, though the other has the old value.
    TWO.set("meanwhile")
    changes = before.diff(after)
    apply(after, only=[*changes.added, *changes.changed])
    assert values() == {ONE: "changed", TWO: "meanwhile", THREE: "added"}


def test_of_a_native_context_it_says_how_to_find_ours() -> None:
    native = contextvars.copy_context()
    hint = (
        "; of the standard library's, give it context.run(contextvars_cy.current_context)" if host == "native" else ""
    )
    with refuses(TypeError, f"apply() takes a Context of contextvars_cy, not {native!r}{hint}"):
        apply(native)  # type: ignore[arg-type]
    if host == "native":
        native.run(ONE.set, "theirs")
        with apply(native.run(current_context)):
            assert ONE.get() == "theirs"


def test_diff_of_the_current_context() -> None:
    here, before = current_context(), copy_context()
    ONE.set(1)
    assert here.diff(here) == HamtDiff({}, {}, {})
    assert before.diff(here).added == {ONE: 1}


@pytest.mark.parametrize("wrong", [{}, None, Hamt(), contextvars.Context()], ids=lambda wrong: type(wrong).__name__)
def test_only_contexts_are_compared(wrong: Any) -> None:
    with pytest.raises(TypeError, match="^an instance of Context was expected"):
        Context().diff(wrong)
    with pytest.raises(TypeError):
        Context().diff()  # type: ignore[call-arg]


class Acting:
    """A value that does something while it is compared."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __eq__(self, other: object) -> bool:
        self.act()
        return False

    __hash__ = None  # type: ignore[assignment]


def test_an_error_of_a_comparison_passes() -> None:
    one, two = context_of({ONE: Acting(lambda: 1 / 0)}), context_of({ONE: 1})
    with pytest.raises(ZeroDivisionError):
        one.diff(two)
    assert two[ONE] == 1


def test_both_contexts_may_change_while_they_are_compared() -> None:
    def change() -> None:
        for context in (one, two):
            for var in MANY:
                context.run(var.set, "changed")

    values = {var: Acting(change) for var in MANY}
    one, two = context_of(values), context_of({var: number for number, var in enumerate(MANY)})
    assert one.diff(two).changed == {var: (values[var], number) for number, var in enumerate(MANY)}
    assert one == two


@counts_on_the_gil
@crashes_without_the_gil
def test_another_threads_context_is_compared(quick_switches: None) -> None:
    def work() -> None:
        for number in range(20_000):
            ONE.set(number)
            TWO.set(number)
        stop.append(True)

    child, before = copy_context(), copy_context()
    stop: list[bool] = []
    thread = threading.Thread(target=child.run, args=[work])
    thread.start()
    while not stop:
        added = before.diff(child).added
        assert added.get(ONE, 0) - added.get(TWO, 0) in (0, 1)
        with apply(child):
            assert len(values()) in (0, 1, 2)
    thread.join()
    assert bind(lambda: [apply(child), values()][1])() == {ONE: 19_999, TWO: 19_999}
