"""ContextVar and Token: get, set, reset, in the words of CPython 3.14."""

from __future__ import annotations

import importlib
import os
import pickle
import re
import types
from collections.abc import Callable
from typing import Any

import pytest

import contextvars_cy
from contextvars_cy import MISSING, Context, ContextVar, Token
from refusals import refuses

pytestmark = pytest.mark.usefixtures("context_of_its_own")


def test_the_backend_and_host_that_were_asked_for_are_the_ones_that_run() -> None:
    assert contextvars_cy.backend == os.environ["CONTEXTVARS_CY_BACKEND"]
    assert contextvars_cy.host == os.environ["CONTEXTVARS_CY_HOST"]
    twin = "context_cy" if contextvars_cy.backend == "cython" else "context_py"
    assert ContextVar is importlib.import_module(f"contextvars_cy._context.{twin}").ContextVar


class UnhashableName(str):
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ContextVar(), "ContextVar() takes exactly 1 positional argument (0 given)"),  # type: ignore[call-overload]
        (lambda: ContextVar(1), "context variable name must be a str"),  # type: ignore[call-overload]
        (lambda: ContextVar(UnhashableName("a")), "unhashable type: 'UnhashableName'"),
    ],
)
def test_a_variable_needs_a_name(call: Callable[[], object], text: str) -> None:
    with refuses(TypeError, text):
        call()


@pytest.mark.parametrize(
    "call",
    [lambda: ContextVar("a", 1), lambda: ContextVar("a", other=1), lambda: ContextVar(name="a")],  # type: ignore[call-overload]
)
def test_a_variable_takes_a_name_by_position_and_a_default_by_keyword(call: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        call()


def test_the_name_is_read_only() -> None:
    var: ContextVar[str] = ContextVar("var")
    assert var.name == "var"
    with pytest.raises(AttributeError):
        var.name = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        var.other = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "call",
    [
        lambda var, token: var.get(1, 2),
        lambda var, token: var.get(default=1),
        lambda var, token: var.set(),
        lambda var, token: var.reset(),
        lambda var, token: token.__exit__(),
        lambda var, token: token.__exit__(None, None, None, None),
    ],
)
def test_a_call_with_wrong_arguments_changes_nothing(call: Callable[[ContextVar[str], Token[str]], object]) -> None:
    var: ContextVar[str] = ContextVar("var")
    token = var.set("set")
    with pytest.raises(TypeError):
        call(var, token)
    assert var.get() == "set"
    var.reset(token)


def test_get_prefers_the_value_then_the_argument_then_the_default() -> None:
    var = ContextVar("var", default="default")
    assert var.get() == "default"
    assert var.get("argument") == "argument"
    var.set("value")
    assert var.get() == var.get("argument") == "value"


def test_get_of_an_unset_variable_is_a_lookup_error_with_the_variable() -> None:
    var: ContextVar[str] = ContextVar("var")
    with pytest.raises(LookupError) as caught:
        var.get()
    assert type(caught.value) is LookupError
    assert caught.value.args == (var,)


@pytest.mark.parametrize("value", [None, MISSING, Token.MISSING, NotImplemented, ...])
def test_no_value_is_taken_for_the_absence_of_one(value: object) -> None:
    var = ContextVar("var", default=value)
    assert var.get() is value
    assert ContextVar("other").get(value) is value
    token = var.set(value)
    assert var.get("argument") is value
    again = var.set(1)
    assert again.old_value is value
    var.reset(again)
    assert var.get("argument") is value
    var.reset(token)
    assert var.get("argument") == "argument"


def test_the_token_tells_the_variable_and_its_old_value() -> None:
    var: ContextVar[object] = ContextVar("var", default="default")
    first, second = var.set(1), var.set(2)
    assert first.var is second.var is var
    assert first.old_value is Token.MISSING is MISSING
    assert second.old_value == 1
    assert repr(MISSING) == "<Token.MISSING>"
    with refuses(TypeError, "cannot pickle <Token.MISSING>: it is compared by identity"):
        pickle.dumps(MISSING)
    for name in ("var", "old_value"):
        with pytest.raises(AttributeError):
            setattr(first, name, 1)


def test_reset_brings_the_old_value_back_in_any_order() -> None:
    var: ContextVar[int] = ContextVar("var")
    first, second = var.set(1), var.set(2)
    var.reset(first)
    assert var.get(None) is None
    var.reset(second)
    assert var.get() == 1


def test_reset_refuses_what_is_no_token() -> None:
    var: ContextVar[int] = ContextVar("var")
    with refuses(TypeError, "expected an instance of Token, got 1"):
        var.reset(1)  # type: ignore[arg-type]


def test_reset_makes_its_checks_in_order_and_changes_nothing_when_one_fails() -> None:
    var: ContextVar[int] = ContextVar("var")
    other: ContextVar[int] = ContextVar("other")
    elsewhere = Context().run(var.set, 1)
    with refuses(ValueError, f"{elsewhere!r} was created by a different ContextVar"):
        other.reset(elsewhere)
    with refuses(ValueError, f"{elsewhere!r} was created in a different Context"):
        var.reset(elsewhere)
    assert " used " not in repr(elsewhere)
    assert var.get(None) is None

    used = var.set(1)
    var.reset(used)
    var.set(2)
    for which in (var, other):
        with refuses(RuntimeError, f"{used!r} has already been used once"):
            which.reset(used)
        with refuses(RuntimeError, f"{used!r} has already been used once"):
            Context().run(which.reset, used)
    assert var.get() == 2


def test_a_token_refused_elsewhere_still_serves_at_home() -> None:
    var: ContextVar[int] = ContextVar("var")
    home = Context()
    token = home.run(var.set, 1)
    with pytest.raises(ValueError):
        var.reset(token)
    with pytest.raises(ValueError):
        home.copy().run(var.reset, token)
    home.run(var.reset, token)
    assert var not in home


def test_with_set_restores_on_the_way_out() -> None:
    var = ContextVar("var", default="outside")
    with var.set("inside") as token:
        assert type(token) is Token
        assert var.get() == "inside"
    assert var.get() == "outside"
    with pytest.raises(ZeroDivisionError), var.set("inside"):
        1 / 0
    assert var.get() == "outside"


def test_leaving_with_set_by_a_used_token_is_an_error() -> None:
    var: ContextVar[int] = ContextVar("var")
    with pytest.raises(RuntimeError, match="has already been used once"):
        with var.set(1) as token:
            var.reset(token)


def test_reprs_are_those_of_the_standard_library() -> None:
    var: ContextVar[object] = ContextVar("var")
    assert re.fullmatch(r"<ContextVar name='var' at 0x[0-9a-f]+>", repr(var))
    var = ContextVar("var", default=[1])
    assert re.fullmatch(r"<ContextVar name='var' default=\[1\] at 0x[0-9a-f]+>", repr(var))
    token = var.set(1)
    assert re.fullmatch(rf"<Token var={re.escape(repr(var))} at 0x[0-9a-f]+>", repr(token))
    var.reset(token)
    assert re.fullmatch(rf"<Token used var={re.escape(repr(var))} at 0x[0-9a-f]+>", repr(token))


def test_variables_are_told_apart_by_identity() -> None:
    first: ContextVar[int] = ContextVar("var")
    second: ContextVar[int] = ContextVar("var")
    assert first == first and first != second
    assert hash(first) != hash(second)
    assert len({first, second, first}) == 2


@pytest.mark.parametrize("kind", [ContextVar, Token])
def test_subscription(kind: Any) -> None:
    alias = kind[int]
    assert type(alias) is types.GenericAlias
    assert (alias.__origin__, alias.__args__) == (kind, (int,))


def test_a_context_has_no_subscription() -> None:
    with pytest.raises(TypeError):
        Context[int]  # type: ignore[misc]
