"""Where the stack ends: a `with` block that was entered is left, whatever room there is."""

from __future__ import annotations

import pytest

from contextvars_cy import Context, ContextVar, assign, current_context, watch

LEVELS = 80
VAR = ContextVar("VAR")
levels_told = []


def at_the_end_of_the_stack(attempt):
    """Call the function once at each of the last levels of the stack, with its number; what it cannot do it raises."""
    raised = []

    def dive():
        try:
            dive()
        except RecursionError:
            pass
        if len(raised) < LEVELS:
            try:
                attempt(len(raised))
            except BaseException as error:
                raised.append(type(error))
            else:
                raised.append(None)

    dive()
    assert raised[0] is RecursionError and raised[-1] is None
    return set(raised) - {None}


@pytest.fixture
def variables():
    return [ContextVar(f"variable {level}") for level in range(LEVELS)]


def with_token(variables, level):
    with variables[level].set(level):
        pass


def with_unset(variables, level):
    with variables[level].unset():
        pass


def with_assign(variables, level):
    with assign({variables[level]: level, variables[0]: level}):
        pass


def with_context(variables, level):
    with Context():
        pass


def with_watch(variables, level):
    with variables[level].watch(print), watch(levels_told.append):
        pass


def with_all(variables, level):
    with Context(), variables[level].set(level), assign({variables[0]: level}):
        pass


@pytest.mark.parametrize("attempt", [with_token, with_unset, with_assign, with_context, with_watch, with_all])
def test_nothing_stays(attempt, variables):
    def work():
        here = current_context()
        # Code that has run often is specialised: some calls take no room on the stack then.
        for level in range(LEVELS):
            attempt(variables, level)
        assert at_the_end_of_the_stack(lambda level: attempt(variables, level)) == {RecursionError}
        assert current_context() is here
        VAR.set("told to nobody")
        assert levels_told == []
        assert [variable.name for variable in variables if variable.is_set()] == []

    Context().run(work)
