"""What is dropped is freed: at once where no cycle is in the way, by the collector where one is."""

from __future__ import annotations

import gc
import platform
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, Hamt, copy_context, current_context
from interpreters import SANITIZED, too_long_to_trace

pytestmark = pytest.mark.usefixtures("context_of_its_own")

VAR: ContextVar[object] = ContextVar("VAR")
Freed = Callable[[weakref.ref[Any]], object]


class Value:
    var: ContextVar[Value]


@pytest.fixture
def freed() -> Iterator[Freed]:
    """Whether the referent is gone: without the collector's help on CPython, which frees at the last reference."""
    gc.collect()
    gc.disable()
    collect = int if platform.python_implementation() == "CPython" else gc.collect
    yield lambda reference: collect() or reference() is None
    gc.enable()


def test_a_value_dies_with_its_context(freed: Freed) -> None:
    context, value = Context(), Value()
    context.run(VAR.set, value)
    reference = weakref.ref(value)
    del value
    assert not freed(reference)
    del context
    assert freed(reference)


def test_a_replaced_value_dies_with_its_token(freed: Freed) -> None:
    VAR.set(Value())
    reference = weakref.ref(VAR.get())
    token = VAR.set(None)
    assert not freed(reference)
    del token
    assert freed(reference)


def test_a_token_keeps_no_value_of_another_variable(freed: Freed) -> None:
    other: ContextVar[Value] = ContextVar("other")
    value_token = other.set(Value())
    reference = weakref.ref(other.get())
    token = VAR.set(1)
    other.reset(value_token)
    del value_token
    assert freed(reference)
    VAR.reset(token)


def test_an_iterator_that_has_ended_keeps_nothing_but_its_map(freed: Freed) -> None:
    context = Context()
    context.run(VAR.set, Value())
    reference = weakref.ref(context[VAR])
    iterator = context.values()
    assert list(iterator) and list(iterator) == []
    del context, iterator
    assert freed(reference)


def test_a_callable_that_keeps_its_exception_dies(freed: Freed) -> None:
    class Job:
        def __call__(self) -> None:
            try:
                1 / 0
            except ZeroDivisionError as error:
                self.error = error
            self = None  # type: ignore[assignment]

    def run_one() -> weakref.ref[Job]:
        job = Job()
        Context().run(job)
        reference = weakref.ref(job)
        del job
        return reference

    assert freed(run_one())


def test_a_kept_exception_keeps_no_context(freed: Freed) -> None:
    def fail_in_a_context() -> tuple[ValueError, weakref.ref[object]]:  # type: ignore[return]
        context = Context()
        context.run(VAR.set, Value())
        reference = weakref.ref(context[VAR])
        try:
            context.run(int, "x")
        except ValueError as error:
            del context
            return error, reference

    error, reference = fail_in_a_context()
    assert type(error) is ValueError
    assert freed(reference)


@pytest.mark.parametrize(
    "tie",
    [
        lambda value, context: setattr(value, "context", context),
        lambda value, context: setattr(value, "token", context.run(VAR.set, None)),
        lambda value, context: setattr(value, "iterator", context.items()),
        lambda value, context: setattr(value, "inner", context.copy()),
        lambda value, context: setattr(value, "hamt", Hamt().set(value, value)),
    ],
    ids=["context", "token", "iterator", "copy", "map"],
)
def test_cycles_are_collected(tie: Callable[[Value, Context], object]) -> None:
    context, value = Context(), Value()
    context.run(VAR.set, value)
    tie(value, context)
    reference = weakref.ref(value)
    del context, value
    gc.collect()
    assert reference() is None


def test_a_variable_whose_default_refers_to_it_is_collected() -> None:
    value = Value()
    value.var = ContextVar("var", default=value)
    reference = weakref.ref(value)
    del value
    gc.collect()
    assert reference() is None


def test_the_current_context_does_not_keep_itself_alive() -> None:
    reference = weakref.ref(Context().run(current_context))
    gc.collect()
    assert reference() is None


def test_setting_and_resetting_leaves_no_objects_behind() -> None:
    def work() -> None:
        for number in range(1000):
            token = VAR.set(number)
            context = copy_context()
            context.run(VAR.set, context)
            VAR.reset(token)

    work()
    gc.collect()
    before = len(gc.get_objects())
    work()
    gc.collect()
    assert abs(len(gc.get_objects()) - before) < 50


# In WebAssembly CPython counts none.
if platform.python_implementation() == "CPython" and sys.getallocatedblocks():

    @pytest.mark.skipif(SANITIZED, reason="the interpreter counts none of malloc's blocks")
    @too_long_to_trace
    def test_a_hundred_thousand_operations_leave_not_one_block_behind() -> None:
        def work() -> int:
            for number in range(25_000):
                token = VAR.set(number)
                copy_context().run(VAR.get)
                VAR.reset(token)
            gc.collect()
            return sys.getallocatedblocks()

        work()
        before = work()
        after = work()
        # The first count is itself one block.
        assert after == before + 1
