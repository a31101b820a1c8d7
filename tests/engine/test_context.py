"""Context: a mapping, a copy, a place to run code in."""

from __future__ import annotations

import collections.abc
import copy
import gc
import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import contextvars_cy
from contextvars_cy import (
    Context,
    ContextVar,
    Hamt,
    ThreadState,
    Token,
    copy_context,
    current_context,
    thread_state,
)
from interpreters import counts_on_the_gil, needs_the_usual_frames
from refusals import as_errors_name, refuses

pytestmark = pytest.mark.usefixtures("context_of_its_own")


VAR: ContextVar[object] = ContextVar("VAR", default="default")
OTHER: ContextVar[object] = ContextVar("OTHER")


def context_with(**values: object) -> Context:
    context = Context()
    names = {"var": VAR, "other": OTHER}
    for name, value in values.items():
        context.run(names[name].set, value)
    return context


# ---- a mapping ----


def test_an_empty_context() -> None:
    context = Context()
    assert len(context) == 0 and not context
    assert list(context) == list(context.keys()) == list(context.values()) == list(context.items()) == []
    assert VAR not in context
    assert context.get(VAR) is None and context.get(VAR, 1) == 1
    with pytest.raises(KeyError) as caught:
        context[VAR]
    assert caught.value.args == (VAR,)


def test_a_context_is_a_mapping_of_what_was_set_in_it() -> None:
    context = context_with(var=1, other=None)
    assert dict(context) == dict(context.items()) == {VAR: 1, OTHER: None}
    assert len(context) == 2
    assert VAR in context and OTHER in context
    assert context[OTHER] is None and context.get(OTHER, 1) is None
    assert set(context) == set(context.keys()) == {VAR, OTHER}
    assert sorted(context.values(), key=str) == [1, None]
    assert isinstance(context, collections.abc.Mapping)


@pytest.mark.parametrize("kind", ["keys", "values", "items"])
def test_keys_values_and_items_are_iterators_with_the_length_of_the_context(kind: str) -> None:
    context = context_with(var=1, other=2)
    iterator = getattr(context, kind)()
    assert iter(iterator) is iterator
    assert len(iterator) == 2
    next(iterator)
    assert len(list(iterator)) == 1
    assert len(iterator) == 2
    with pytest.raises(StopIteration):
        next(iterator)


def test_an_iterator_walks_the_snapshot_of_its_beginning() -> None:
    context = context_with(var=1)
    iterator = iter(context)
    context.run(OTHER.set, 2)
    assert list(iterator) == [VAR]


@pytest.mark.parametrize(
    "access", [lambda context: context["a"], lambda context: "a" in context, lambda context: context.get("a")]
)
def test_keys_are_variables(access: Callable[[Context], object]) -> None:
    with refuses(TypeError, "a ContextVar key was expected, got 'a'"):
        access(Context())


def test_contexts_are_compared_by_content() -> None:
    assert Context() == Context()
    assert context_with(var=1, other=2) == context_with(other=2, var=1)
    assert context_with(var=1) != context_with(var=2)
    assert context_with(var=1) != context_with(var=1, other=2)
    assert context_with(var=1) != context_with(other=1)
    assert Context() != {} and Context() != 1
    with pytest.raises(TypeError):
        Context() < Context()  # type: ignore[operator]


def test_comparison_is_by_identity_first() -> None:
    nan = float("nan")
    assert context_with(var=nan) == context_with(var=nan)


def test_an_error_in_a_comparison_passes_through() -> None:
    class Hostile:
        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        context_with(var=Hostile()) == context_with(var=Hostile())


def test_hundreds_of_variables() -> None:
    variables: list[ContextVar[int]] = [ContextVar(f"variable {number}") for number in range(500)]
    context = Context()
    for number, var in enumerate(variables):
        context.run(var.set, number)
    assert dict(context) == {var: number for number, var in enumerate(variables)}
    assert [context.run(var.get) for var in variables] == list(range(500))


# ---- copies, and the current one ----


def test_a_copy_goes_its_own_way() -> None:
    original = context_with(var=1)
    duplicate = original.copy()
    assert duplicate == original and duplicate is not original
    duplicate.run(VAR.set, 2)
    original.run(OTHER.set, 3)
    assert (original[VAR], duplicate[VAR]) == (1, 2)
    assert OTHER not in duplicate


def test_copy_context_copies_the_current_values() -> None:
    VAR.set(1)
    duplicate = copy_context()
    VAR.set(2)
    assert duplicate[VAR] == 1
    assert duplicate is not current_context()


def test_current_context_is_the_context_itself() -> None:
    context = current_context()
    assert current_context() is context
    VAR.set(1)
    assert context[VAR] == 1
    assert context.run is not None and thread_state().context is context


def test_inside_a_context_the_current_one_is_the_very_object() -> None:
    context = Context()
    assert context.run(current_context) is context
    with context:
        assert current_context() is context
        inner = context.copy()
        with inner:
            assert current_context() is inner
        assert current_context() is context


def test_the_current_context_keeps_its_values_when_nobody_holds_it() -> None:
    context = Context()
    with context:
        VAR.set(1)
        before = current_context().copy()
        gc.collect()
        assert current_context() == before
        assert VAR.get() == 1


# ---- run ----


def test_run_hands_everything_on() -> None:
    context = Context()
    assert context.run(lambda *args, **kwargs: (args, kwargs)) == ((), {})
    assert context.run(lambda *args, **kwargs: (args, kwargs), 1, 2, callable=3, self=4) == (
        (1, 2),
        {"callable": 3, "self": 4},
    )
    with pytest.raises(ZeroDivisionError):
        context.run(lambda: 1 / 0)
    assert context.run(int) == 0


def test_run_needs_something_to_run() -> None:
    with pytest.raises(TypeError, match=r"run\(\) missing 1 required positional argument"):
        Context().run()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'int' object is not callable"):
        Context().run(1)  # type: ignore[arg-type]


def test_what_is_set_in_run_stays_there() -> None:
    context = Context()
    token = context.run(VAR.set, 1)
    assert VAR.get() == "default" and context[VAR] == 1
    context.run(VAR.reset, token)
    assert VAR not in context


def test_nested_contexts_are_left_in_turn() -> None:
    first, second = context_with(var=1), context_with(var=2)
    assert first.run(lambda: (VAR.get(), second.run(VAR.get), VAR.get())) == (1, 2, 1)
    with first, second:
        assert VAR.get() == 2
    assert VAR.get() == "default"


def test_what_cannot_be_called_is_told_with_keywords_too() -> None:
    context = Context()
    with pytest.raises(TypeError, match="'int' object is not callable"):
        context.run(1, a=2)  # type: ignore[arg-type]
    with context, pytest.raises(RuntimeError, match="is already entered"):
        context.run(1, a=2)  # type: ignore[arg-type]


@needs_the_usual_frames
def test_too_deep_a_recursion_leaves_every_context() -> None:
    contexts = []

    def descend() -> None:
        contexts.append(Context())
        contexts[-1].run(descend)

    before = current_context()
    with pytest.raises(RecursionError):
        descend()
    assert current_context() is before
    for context in contexts:
        context.run(int)


def test_run_may_recurse_through_copies() -> None:
    def descend(depth: int) -> object:
        VAR.set(depth)
        if depth:
            copy_context().run(descend, depth - 1)
        return VAR.get()

    assert copy_context().run(descend, 100) == 100


# ---- with, and what is refused ----


def test_with_runs_its_body_in_the_context() -> None:
    context = context_with(var=1)
    with context as entered:
        assert entered is context
        assert VAR.get() == 1
        VAR.set(2)
    assert VAR.get() == "default"
    assert context[VAR] == 2
    with context:
        assert VAR.get() == 2


def test_an_exception_leaves_every_context() -> None:
    first, second = context_with(var=1), context_with(var=2)
    with pytest.raises(ZeroDivisionError), first, second:
        1 / 0
    assert VAR.get() == "default"
    for context in (first, second):
        context.run(int)


def test_a_context_is_entered_once_at_a_time() -> None:
    context = Context()
    text = f"cannot enter context: {as_errors_name(context)} is already entered"
    with context:
        with refuses(RuntimeError, text):
            context.run(int)
        with refuses(RuntimeError, text), context:
            pass
        with refuses(RuntimeError, text):
            thread_state().enter(context)
        with refuses(RuntimeError, text):
            Context().run(context.run, int)
        assert current_context() is context
    context.run(int)


def test_a_context_entered_by_another_thread_is_refused() -> None:
    context, entered, leave = Context(), threading.Event(), threading.Event()

    def hold() -> None:
        with context:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        entered.wait()
        with refuses(RuntimeError, f"cannot enter context: {as_errors_name(context)} is already entered"):
            context.run(int)
        assert len(context) == 0
    finally:
        leave.set()
        thread.join()
    context.run(int)


def test_exits_out_of_order_are_refused() -> None:
    first, second = Context(), Context()
    with refuses(RuntimeError, f"cannot exit context: {as_errors_name(first)} has not been entered"):
        first.__exit__(None, None, None)
    with first:
        with second:
            with refuses(RuntimeError, "cannot exit context: thread state references a different context object"):
                first.__exit__(None, None, None)
            assert current_context() is second
        assert current_context() is first


def test_a_callable_that_leaves_its_context_is_told() -> None:
    context = Context()
    with refuses(RuntimeError, f"cannot exit context: {as_errors_name(context)} has not been entered"):
        context.run(context.__exit__, None, None, None)
    inner = Context()
    with refuses(RuntimeError, "cannot exit context: thread state references a different context object"):
        context.run(inner.__enter__)
    inner.__exit__(None, None, None)
    context.__exit__(None, None, None)


def test_an_error_of_the_callable_is_handed_on_as_it_is() -> None:
    error = RuntimeError("cannot enter context: some other is already entered")

    def fail() -> None:
        raise error

    with pytest.raises(RuntimeError) as caught:
        Context().run(fail)
    assert caught.value is error
    assert error.args == ("cannot enter context: some other is already entered",)
    assert error.__cause__ is None and error.__context__ is None


def test_what_an_error_holds_is_not_looked_at() -> None:
    class Hostile:
        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

    def fail() -> None:
        raise RuntimeError(Hostile())

    with pytest.raises(RuntimeError) as caught:
        Context().run(fail)
    assert type(caught.value.args[0]) is Hostile


# ---- what comes in between ----


@counts_on_the_gil
@pytest.mark.parametrize("act", ["set", "reset"])
def test_a_set_in_the_middle_of_a_set_is_not_lost(act: str) -> None:
    """A signal handler may run at any call, and so does a profiling function."""
    fired = 0
    for number in range(40):
        token = VAR.set("before")
        OTHER.set("before")
        events = 0

        def interrupt(*_: object, number: int = number) -> None:
            nonlocal events, fired
            events += 1
            if events == number:
                sys.setprofile(None)
                fired += 1
                OTHER.set(number)

        sys.setprofile(interrupt)
        try:
            VAR.set("after") if act == "set" else VAR.reset(token)
        finally:
            sys.setprofile(None)
        if events == number > 0:
            assert OTHER.get() == number
        assert VAR.get() == ("after" if act == "set" else "default")
    # Compiled code calls nothing that a profiling function is told of.
    assert fired > 0 or contextvars_cy.backend == "cython"


# ---- the types ----

TYPES = [Context, ContextVar, Token, ThreadState, Hamt, type(Context().keys())]


@pytest.mark.parametrize("kind", TYPES)
def test_no_type_can_be_subclassed(kind: type) -> None:
    with refuses(TypeError, f"type 'contextvars_cy.{kind.__name__}' is not an acceptable base type"):
        type("Derived", (kind,), {})


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: Context(1), TypeError, "Context() does not accept any arguments"),  # type: ignore[arg-type]
        (lambda: Context(a=1), TypeError, "Context() does not accept any arguments"),  # type: ignore[arg-type]
        (lambda: Token(), RuntimeError, "Tokens can only be created by ContextVars"),
        (lambda: Token(VAR), RuntimeError, "Tokens can only be created by ContextVars"),  # type: ignore[arg-type]
        (lambda: Token.__new__(Token), RuntimeError, "Tokens can only be created by ContextVars"),
        (lambda: ThreadState(), RuntimeError, "a thread has one ThreadState; ask thread_state() for it"),
    ],
)
def test_what_cannot_be_made_by_a_call(call: Callable[[], object], kind: type[BaseException], text: str) -> None:
    with refuses(kind, text):
        call()


def test_a_context_may_be_made_by_new() -> None:
    assert len(Context.__new__(Context)) == 0
    assert Context(**{}) == Context(*())


def test_nobody_iterates_backwards() -> None:
    with pytest.raises(TypeError):
        reversed(Context())  # type: ignore[call-overload]


@pytest.mark.parametrize("make", [Context, lambda: VAR.set(1)], ids=["Context", "Token"])
def test_unhashable_types(make: Callable[[], object]) -> None:
    value = make()
    with pytest.raises(TypeError, match="unhashable type"):
        hash(value)
    assert not isinstance(value, collections.abc.Hashable)


@pytest.mark.parametrize("make", [Context, Hamt, thread_state], ids=["Context", "Hamt", "ThreadState"])
def test_weakly_referenceable_types(make: Callable[[], object]) -> None:
    value = make()
    assert weakref.ref(value)() is value


WAYS_OUT = {
    "ContextVar": 'contextvars_cy.travel.register(variable, "its-name")',
    "Context": "contextvars_cy.travel.capture(context)",
    "Token": "contextvars_cy.travel.capture()",
}


@pytest.mark.parametrize("make", [Context, lambda: VAR, lambda: VAR.set(1), thread_state, lambda: Context().keys()])
@pytest.mark.parametrize("protocol", range(6))
def test_what_does_not_pickle_says_the_way_out(make: Callable[[], object], protocol: int) -> None:
    value = make()
    name = type(value).__name__
    with pytest.raises(TypeError, match=f"^cannot pickle 'contextvars_cy.{name}' object") as raised:
        pickle.dumps(value, protocol)
    assert WAYS_OUT.get(name, "") in str(raised.value)


@pytest.mark.parametrize("make", [lambda: VAR.set(1), thread_state, lambda: Context().keys()])
@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy])
def test_nothing_is_copied_by_accident(make: Callable[[], object], act: Callable[[object], object]) -> None:
    value = make()
    with pytest.raises(TypeError, match=f"^cannot pickle 'contextvars_cy.{type(value).__name__}' object"):
        act(value)


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy])
def test_a_copied_variable_is_the_variable(act: Callable[[Any], Any]) -> None:
    var: ContextVar[list[int]] = ContextVar("var", default=[])
    assert act(var) is var
    assert act({"options": [var]}) == {"options": [var]}


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy])
def test_a_copied_context_has_the_same_values(act: Callable[[Context], Context]) -> None:
    value, context = threading.Lock(), Context()
    context.run(VAR.set, value)
    copied = act(context)
    assert copied is not context and copied[VAR] is value
    copied.run(VAR.set, 2)
    assert context[VAR] is value


@pytest.mark.parametrize("kind", TYPES)
def test_types_name_the_package(kind: type) -> None:
    assert kind.__module__ == "contextvars_cy"


def test_no_attributes_are_added() -> None:
    value: object
    for value in (Context(), VAR, VAR.set(1), thread_state(), Hamt()):
        with pytest.raises(AttributeError):
            value.other = 1  # type: ignore[union-attr]
