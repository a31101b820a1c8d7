"""While ours are installed, a Context shows the native variables that are set in it, as the standard library's does."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, apply, bind, copy_context, current_context, install, uninstall

# What the types of a Context do not know as keys.
native: Any = contextvars.ContextVar("native")
other: Any = contextvars.ContextVar("other")
ours: ContextVar[object] = ContextVar("ours")


@pytest.fixture
def installed() -> Iterator[None]:
    with warnings.catch_warnings():
        # This process has imported what it has.
        warnings.simplefilter("ignore", RuntimeWarning)
        install()
    yield
    uninstall()


@pytest.fixture
def context() -> Context:
    context = Context()
    context.run(ours.set, 1)
    context.native.run(native.set, 2)
    return context


def anchor() -> Any:
    """The variable in which the snapshot rides."""
    context = Context()
    context.run(ours.set, 1)
    (variable,) = context.native
    return variable


def test_a_context_shows_native_variables(installed: None, context: Context) -> None:
    assert len(context) == 2
    assert dict(context.items()) == dict(context) == {ours: 1, native: 2}
    assert {*context} == {*context.keys()} == {ours, native}
    assert sorted(context.values()) == [1, 2]
    assert context[native] == 2 and context.get(native) == 2 and native in context
    assert other not in context and context.get(other) is None and context.get(other, 3) == 3
    with pytest.raises(KeyError) as error:
        context[other]
    assert error.value.args == (other,)


def test_and_it_is_compared_by_them(installed: None, context: Context) -> None:
    copy = context.copy()
    assert copy == context and not copy.diff(context)[0]
    copy.native.run(native.set, 3)
    copy.native.run(other.set, 4)
    assert copy != context
    assert (context.diff(copy).added, context.diff(copy).changed) == ({other: 4}, {native: (2, 3)})
    assert copy.diff(context).removed == {other: 4}
    context.native.run(native.set, 3)
    context.native.run(other.set, 4)
    assert copy == context


def test_a_context_of_native_variables_alone(installed: None) -> None:
    context = Context()
    context.native.run(native.set, 2)
    assert dict(context) == {native: 2} and len(context) == 1 and context != Context()


def test_the_anchor_is_never_shown(installed: None, context: Context) -> None:
    variable = anchor()
    assert variable in context.native
    assert variable not in context and variable not in {*context} and context.get(variable, "none") == "none"
    with pytest.raises(KeyError):
        context[variable]


def test_the_current_context(installed: None) -> None:
    def inside() -> tuple[Context, Context]:
        native.set("inside")
        return current_context(), copy_context()

    current, copy = Context().run(inside)
    assert current[native] == copy[native] == "inside"


def test_other_keys_are_refused(installed: None, context: Context) -> None:
    for look in (context.__getitem__, context.get, context.__contains__):
        with pytest.raises(TypeError, match="a ContextVar key was expected, got 'native'"):
            look("native")  # type: ignore[call-overload, index]


def test_what_is_brought_back_item_by_item(installed: None) -> None:
    """As asgiref and pytest-asyncio do it."""

    async def in_a_task() -> Context:
        decimal.setcontext(decimal.Context(prec=3))
        ours.set("task")
        return copy_context()

    async def main() -> tuple[int, object]:
        for variable, value in (await asyncio.create_task(in_a_task())).items():
            if variable.get(None) is not value:
                variable.set(value)
        return decimal.getcontext().prec, ours.get()

    assert copy_context().run(asyncio.run, main()) == (3, "task")


def test_our_own_functions_bring_ours_alone(installed: None, context: Context) -> None:
    def applied(only: list[ContextVar[object]] | None) -> tuple[object, object]:
        with apply(context, only):
            return ours.get(), native.get(None)

    assert Context().run(applied, None) == Context().run(applied, [ours, native]) == (1, None)
    assert context.run(bind, ours.get, only=[ours, native])() == 1


def test_without_an_install_they_are_hidden(context: Context) -> None:
    assert dict(context) == {ours: 1} and len(context) == 1
    assert context == context.copy() and context.diff(context.copy()).added == {}
    changed = context.copy()
    changed.native.run(native.set, 3)
    assert changed == context
    for look in (context.__getitem__, context.get, context.__contains__):
        with pytest.raises(TypeError, match="a ContextVar key was expected"):
            look(native)
