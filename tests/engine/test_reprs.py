"""What a Context, a Local and an Assignment show: what is in them, in one line."""

from __future__ import annotations

import re
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, Local, assign, copy_context

FIRST, SECOND = ContextVar[Any]("first"), ContextVar[Any]("second")


def without_address(thing: object) -> str:
    text, count = re.subn(r" at 0x[0-9a-f]+>", ">", repr(thing))
    assert count == 1
    return text


def context_of(values: dict[ContextVar[Any], Any]) -> Context:
    context = Context()
    context.run(assign, values)
    return context


def test_a_context_shows_its_values_by_name() -> None:
    assert without_address(Context()) == "<contextvars_cy.Context {}>"
    assert without_address(context_of({SECOND: "a", FIRST: [1]})) == "<contextvars_cy.Context {first=[1], second='a'}>"
    same = ContextVar[Any]("first")
    assert without_address(context_of({FIRST: object, same: object})).count("first=<class 'object'>") == 2


def test_a_long_value_is_cut_and_stays_in_the_line() -> None:
    class Table:
        def __repr__(self) -> str:
            return "Table:\n  one\n  two"

    shown = without_address(context_of({FIRST: "x" * 1000, SECOND: Table()}))
    assert shown == f"<contextvars_cy.Context {{first='{'x' * 36}..., second=Table: one two}}>"


def test_many_values_are_counted() -> None:
    shown = without_address(context_of({ContextVar(f"variable {number:03}"): number for number in range(500)}))
    assert shown.startswith("<contextvars_cy.Context {variable 000=0, variable 001=1, ")
    counted = re.search(r", and (\d+) more}>$", shown)
    assert counted and shown.count("=") + int(counted[1]) == 500
    assert len(shown) < 160


def test_a_context_that_holds_itself() -> None:
    context = Context()
    context.run(FIRST.set, context)
    assert without_address(context) == "<contextvars_cy.Context {first=<contextvars_cy.Context {...}>}>"


def test_the_error_of_a_value_is_the_errors_of_the_context() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    context = context_of({FIRST: Broken()})
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            repr(context)


def test_an_error_shows_no_values() -> None:
    context = context_of({FIRST: "secret"})
    with context, pytest.raises(RuntimeError, match="^cannot enter context: <contextvars_cy.Context object at 0x.*>"):
        context.run(int)


def test_an_assignment_shows_its_variables() -> None:
    with assign({SECOND: "secret", FIRST: 2}) as assignment:
        assert without_address(assignment) == "<Assignment of {first, second}>"
    assert without_address(assignment) == "<Assignment undone of {first, second}>"
    assert without_address(assign({})) == "<Assignment of {}>"
    assert without_address(assign({ContextVar(""): 1, FIRST: 2})) == "<Assignment of {, first}>"


def test_a_local_shows_the_attributes_of_the_current_context() -> None:
    class Request(Local):
        pass

    request = Request()
    name = f"<{__name__}.{Request.__qualname__}"
    with copy_context():
        request.user = "ada"
        request.itself = request
        assert without_address(request) == f"{name} {{itself={{...}}, user='ada'}}>"
    assert without_address(request) == f"{name} {{}}>"
