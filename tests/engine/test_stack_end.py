"""Where the stack ends: a `with` block that was entered is left, whatever room there is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from contextvars_cy import Context, ContextVar, WatchEvent, assign, bind, current_context, isolated, watch
from interpreters import needs_room_to_leave

pytestmark = needs_room_to_leave

LEVELS = 80
VAR: ContextVar[str] = ContextVar("VAR")
levels_told: list[WatchEvent] = []


def at_the_end_of_the_stack(attempt: Callable[[int], object]) -> set[type[BaseException] | None]:
    """Call the function once at each of the last levels of the stack, with its number; what it cannot do it raises."""
    raised: list[type[BaseException] | None] = []

    def dive() -> None:
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
def variables() -> list[ContextVar[int]]:
    return [ContextVar(f"variable {level}") for level in range(LEVELS)]


def with_token(variables: list[ContextVar[int]], level: int) -> None:
    with variables[level].set(level):
        pass


def with_unset(variables: list[ContextVar[int]], level: int) -> None:
    with variables[level].unset():
        pass


def with_assign(variables: list[ContextVar[int]], level: int) -> None:
    with assign({variables[level]: level, variables[0]: level}):
        pass


def with_context(variables: list[ContextVar[int]], level: int) -> None:
    with Context():
        pass


def with_watch(variables: list[ContextVar[int]], level: int) -> None:
    with variables[level].watch(print), watch(levels_told.append):
        pass


def with_all(variables: list[ContextVar[int]], level: int) -> None:
    with Context(), variables[level].set(level), assign({variables[0]: level}):
        pass


@pytest.mark.parametrize("attempt", [with_token, with_unset, with_assign, with_context, with_watch, with_all])
def test_nothing_stays(
    attempt: Callable[[list[ContextVar[int]], int], object], variables: list[ContextVar[int]]
) -> None:
    def work() -> None:
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


def by_run() -> None:
    Context().run(by_run)


def by_with() -> None:
    with Context():
        by_with()


@isolated
def by_isolated() -> None:
    by_isolated()


@isolated
def steps() -> Iterator[None]:
    yield
    by_steps()


def by_steps() -> None:
    list(steps())


def by_bind() -> None:
    bind(by_bind)()


def by_set() -> None:
    with VAR.set("deeper"):
        by_set()


def by_assign() -> None:
    with assign({VAR: "deeper"}):
        by_assign()


def deeper(levels: int, function: Callable[[], object]) -> object:
    return deeper(levels - 1, function) if levels else function()


@pytest.mark.parametrize("watched", ["nothing", "a variable", "everything"])
@pytest.mark.parametrize("descend", [by_run, by_with, by_isolated, by_steps, by_bind, by_set, by_assign])
def test_recursion_without_end(descend: Callable[[], object], watched: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)

    def work() -> None:
        here = current_context()
        with ExitStack() as watchers:
            if watched == "a variable":
                watchers.enter_context(VAR.watch(lambda event: None))
            if watched == "everything":
                watchers.enter_context(watch(lambda event: None))
            # So that each step of a level comes to the end once.
            for levels in range(12):
                with pytest.raises(RecursionError):
                    deeper(levels, descend)
        assert current_context() is here
        assert not VAR.is_set()

    Context().run(work)
