"""Code that runs in the middle of an operation and uses the same variables, where CPython's own code crashed."""

from __future__ import annotations

import gc
import re
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from collected import at_each_allocation
from contextvars_cy import MISSING, Context, ContextVar, copy_context, current_context, thread_state
from interpreters import counts_on_the_gil, crashes_without_the_gil

pytestmark = pytest.mark.usefixtures("context_of_its_own")

VAR: ContextVar[Any] = ContextVar("VAR", default="default")
OTHER: ContextVar[object] = ContextVar("OTHER", default="default")


def test_values_whose_comparison_sets_the_variable_being_compared() -> None:
    """CPython issue 142829."""

    class Value:
        def __eq__(self, other: object) -> bool:
            for context in (one, two):
                if context is current_context():
                    VAR.set("replaced")
                else:
                    context.run(VAR.set, "replaced")
            gc.collect()
            return True

    one, two = Context(), Context()
    one.run(VAR.set, Value())
    two.run(VAR.set, Value())
    assert one == two
    assert one[VAR] == two[VAR] == "replaced"
    one.run(VAR.set, Value())
    two.run(VAR.set, Value())
    assert one.run(lambda: current_context() == two)
    assert one[VAR] == two[VAR] == "replaced"


# The collector of PyPy cannot be told when to run.
if hasattr(gc, "set_threshold"):

    @pytest.fixture
    def collector_at_every_allocation() -> Iterator[None]:
        threshold = gc.get_threshold()
        gc.set_threshold(1, 1, 1)
        yield
        gc.set_threshold(*threshold)

    @counts_on_the_gil
    @pytest.mark.usefixtures("frozen", "collector_at_every_allocation")
    def test_finalisers_that_set_variables_in_the_middle_of_a_set() -> None:
        """CPython issue 148891."""
        set_by_finalisers: set[int] = set()

        class Finalised:
            def __init__(self, number: int) -> None:
                self.number = number
                self.itself = self

            def __del__(self) -> None:
                last.set(self.number)
                finalised[self.number % 8].set(self.number)
                set_by_finalisers.add(self.number)

        last: ContextVar[int] = ContextVar("last")
        finalised: list[ContextVar[int]] = [ContextVar(f"finalised {number}") for number in range(8)]
        others: list[ContextVar[int]] = [ContextVar(f"other {number}") for number in range(40)]
        for number in range(500):
            Finalised(number)
            var = others[number % 40]
            token = var.set(number)
            assert var.get() == number
            if number % 3 == 0:
                var.reset(token)
                assert var.get(MISSING) is token.old_value
            context = copy_context()
            assert context.run(var.get, None) == context.get(var)
        gc.collect()
        assert set_by_finalisers == set(range(500))
        for number, var in enumerate(finalised):
            assert var.get() % 8 == number
        assert last.get() in set_by_finalisers


def test_a_replaced_value_whose_finaliser_sets_and_reads_the_same_variable() -> None:
    class Value:
        def __del__(self) -> None:
            seen.append(VAR.get())
            OTHER.set(len(seen))

    seen: list[object] = []
    VAR.set(Value())
    VAR.set("after")
    gc.collect()
    assert seen == ["after"]
    assert (VAR.get(), OTHER.get()) == ("after", 1)


if hasattr(gc, "set_threshold"):

    @pytest.mark.usefixtures("frozen", "collector_at_every_allocation")
    def test_a_finaliser_that_leaves_the_context_in_which_a_variable_is_being_set() -> None:
        class Leaves:
            def __init__(self) -> None:
                self.itself = self

            def __del__(self) -> None:
                # So that the Context's memory is used again, and by what.
                made = [Context() for _ in range(300)]
                del made
                state.exit(state.context)
                used.extend((size,) * size for size in range(1, 20) for _ in range(1000))

        state = thread_state()
        used: list[object] = []
        outer = state.context
        gc.disable()
        # More than are kept for their memory, which asks for none.
        tokens = [VAR.set(number) for number in range(200)]
        for number in range(5):
            state.enter(Context())
            Leaves()
            gc.enable()
            tokens.append(VAR.set(number))
            gc.collect()
            gc.disable()
            assert state.context is outer
        gc.enable()
        used.clear()
        assert re.search("Context ({|object)", str([gc.get_referents(token) for token in tokens]))


@pytest.mark.parametrize(
    "read",
    [VAR.get, lambda: copy_context()[VAR], lambda: current_context().copy()[VAR], lambda: copy_context().run(VAR.get)],
    ids=["get", "copy_context", "copy", "run"],
)
def test_a_finaliser_that_sets_while_the_context_is_read_or_copied(read: Callable[[], object]) -> None:
    def act() -> None:
        # More than are kept for their memory, which asks for none.
        assert all(isinstance(seen, list) for seen in [read() for _ in range(300)])

    VAR.set([])
    at_each_allocation(act, lambda: (VAR.set(list(VAR.get())), OTHER.set([VAR.get()])), 30)
    assert OTHER.get() == [[]]


def test_finalisers_that_read_variables_while_their_thread_ends() -> None:
    class Value:
        def __init__(self) -> None:
            # Memory that is freed with it, for whoever would look there.
            self.more = [object() for _ in range(50)]

        def __del__(self) -> None:
            for var in variables:
                read.append(isinstance(var.get("none"), (Value, str)))

    def set_and_read() -> None:
        for var in variables:
            var.set(Value())
        for var in variables:
            var.get()

    variables: list[ContextVar[object]] = [ContextVar(f"variable {number}") for number in range(8)]
    read: list[bool] = []
    for _ in range(20):
        assert in_threads(set_and_read) == []
    gc.collect()
    assert read and all(read)


@pytest.fixture
def eager_collector() -> Iterator[None]:
    """It collects often, and runs Python code each time, in which another thread may take its turn."""

    def collected(phase: str, info: object) -> None:
        for _ in range(50):
            pass

    # The collector of PyPy cannot be told when to run.
    if hasattr(gc, "set_threshold"):
        threshold = gc.get_threshold()
        gc.callbacks.append(collected)
        gc.set_threshold(50)
        yield
        gc.set_threshold(*threshold)
        gc.callbacks.remove(collected)
    else:
        yield


def in_threads(*functions: Callable[[], object]) -> list[BaseException]:
    """Call each in a thread of its own, all at once; the errors that they raised."""
    errors = []
    barrier = threading.Barrier(len(functions))

    def call(function: Callable[[], object]) -> None:
        barrier.wait()
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@counts_on_the_gil
@crashes_without_the_gil
@pytest.mark.usefixtures("quick_switches")
def test_reading_a_context_that_another_thread_sets_in() -> None:
    """CPython issue 155519."""
    context = Context()
    variables: list[ContextVar[list[int]]] = [ContextVar(f"variable {number}") for number in range(64)]
    done = threading.Event()

    def set_all() -> None:
        for number in range(200):
            for var in variables:
                token = var.set([number])
                if number % 2:
                    var.reset(token)
        done.set()

    def read() -> None:
        while not done.is_set():
            copied = context.copy()
            assert len(list(context)) <= 64 and len(dict(context.items())) <= 64
            assert len(copied) == len(list(copied.values()))
            assert copied == copied.copy() and isinstance(context == copied, bool)
            assert context.get(variables[0], [0]) and isinstance(variables[1] in context, bool)

    assert in_threads(lambda: context.run(set_all), read, read) == []
    assert dict(context.items()) == dict.fromkeys(variables, [198])


@counts_on_the_gil
@pytest.mark.usefixtures("quick_switches")
@pytest.mark.parametrize("kind", ["keys", "values", "items"])
def test_one_iterator_shared_by_threads(kind: str, eager_collector: None) -> None:
    """CPython issue 154535: each may miss what another took, and none sees what is not there."""
    context = Context()
    variables: list[ContextVar[int]] = [ContextVar(f"variable {number}") for number in range(2000)]
    context.run(lambda: [var.set(number) for number, var in enumerate(variables)])
    all_of_them = list(getattr(context, kind)())
    for _ in range(5):
        iterator = getattr(context, kind)()
        taken: list[list[object]] = [[], [], [], []]

        def take(own: list[object], iterator: Iterator[object] = iterator) -> None:
            # The reference's iterator says that it is in use where two threads step at once.
            while True:
                try:
                    own.append(next(iterator))
                except ValueError as error:
                    assert str(error) == "generator already executing"
                except StopIteration:
                    return

        assert in_threads(*(lambda own=own: take(own) for own in taken)) == []
        assert set(sum(taken, [])) <= set(all_of_them)


def test_a_context_is_asked_for_while_it_is_being_made() -> None:
    """As by a finaliser: at each bytecode of ours in turn, which are many on the pure backend."""

    def trace(frame: FrameType, event: str, argument: object) -> Callable[[FrameType, str, object], Any] | None:
        if not frame.f_globals.get("__name__", "").startswith("contextvars_cy."):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            moments.append(None)
            if len(moments) == moment:
                answers.append(current_context())
        return trace

    def ask() -> None:
        sys.settrace(trace)
        answers.append(current_context())
        sys.settrace(None)
        answers.append(current_context())

    moment, moments = 0, [None]
    while moment < len(moments):
        moment += 1
        moments = []
        answers: list[Context] = []
        # In a thread, because nobody has asked for its Context yet.
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert len(answers) >= 2 and all(answer is answers[0] for answer in answers)
