"""Eight threads on shared variables, Contexts and maps: no crash, no lost set, and no value of another thread.

Each scenario runs for half a second, or for as long as THREADS_SECONDS says: `make threads` runs each for six seconds.
"""

from __future__ import annotations

import collections
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

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
from interpreters import counts_on_the_gil, crashes_without_the_gil, entered_twice_without_the_gil

pytestmark = [counts_on_the_gil, pytest.mark.usefixtures("quick_switches")]

THREADS = 8
SECONDS = float(os.environ.get("THREADS_SECONDS") or 0.5)

VAR: ContextVar[Any] = ContextVar("VAR", default="default")
OTHER = ContextVar("OTHER", default=0)
MANY: list[ContextVar[object]] = [ContextVar(f"variable {number}") for number in range(40)]


def in_threads(step: Callable[[int], object]) -> None:
    """Call `step(number)` over and over in each of the threads at once; the first exception ends it, and is raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(THREADS)

    def work(number: int) -> None:
        try:
            start.wait()
            end = time.monotonic() + SECONDS
            while not failures and time.monotonic() < end:
                step(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def is_entered_elsewhere(error: BaseException) -> bool:
    return "is already entered" in str(error)


def test_shared_variables_have_values_of_each_threads_own() -> None:
    steps = [0] * THREADS

    def step(number: int) -> None:
        step = steps[number] = steps[number] + 1
        assert VAR.get() in ("default", (number, step - 1))
        VAR.set((number, step))
        with copy_context():
            for var in MANY:
                assert var.get(None) is None
                var.set((number, var))
            with VAR.set(None):
                assert VAR.get() is None
            for var in MANY:
                assert var.get() == (number, var)
        assert MANY[step % len(MANY)].get(None) is None
        token = VAR.set("to be undone")
        assert token.old_value == VAR.reset(token) or VAR.get() == (number, step)  # type: ignore[func-returns-value]

    in_threads(step)
    assert all(steps)


@crashes_without_the_gil
def test_a_context_is_read_while_another_thread_sets_in_it() -> None:
    shared, reads = Context(), [0] * THREADS
    shared.run(OTHER.set, 0)
    # OTHER first: whoever looks finds it at VAR's number, or one ahead.
    shared.run(VAR.set, 0)

    def advance() -> None:
        for _ in range(100):
            OTHER.set(OTHER.get() + 1)
            if OTHER.get() % 10 == 0:
                with MANY[OTHER.get() % len(MANY)].set(None):
                    pass
            VAR.set(VAR.get() + 1)

    def step(number: int) -> None:
        if number == 0:
            shared.run(advance)
            return
        before = shared.get(VAR)
        copy = shared.copy()
        items = dict(shared.items())
        for mapping in (copy, items):
            assert 0 <= mapping[OTHER] - mapping[VAR] <= 1
            assert 2 <= len(mapping) <= 3
        assert before <= copy[VAR] <= items[VAR] <= shared[VAR]
        assert 2 <= len(shared) <= 3 and VAR in shared
        assert copy == copy.copy() and copy != Context()
        assert (shared == copy) in (True, False)
        copy.run(VAR.set, "of the copy")
        assert type(shared[VAR]) is int
        reads[number] += 1

    in_threads(step)
    assert shared[OTHER] == shared[VAR] > 0
    assert all(reads[1:])


def enter_by_with(context: Context, function: Callable[[], object]) -> None:
    with context:
        function()


def enter_by_state(context: Context, function: Callable[[], object]) -> None:
    thread_state().enter(context)
    try:
        function()
    finally:
        thread_state().exit(context)


@entered_twice_without_the_gil
@pytest.mark.parametrize("enter", [Context.run, enter_by_with, enter_by_state], ids=["run", "with", "state"])
def test_one_context_is_entered_by_one_thread_at_a_time(
    enter: Callable[[Context, Callable[[], object]], object],
) -> None:
    shared, done, refused = Context(), [], []
    inside: list[int] = []
    shared.run(OTHER.set, 0)

    def work(number: int) -> None:
        assert not inside
        inside.append(number)
        for _ in range(10):
            before = OTHER.get()
            OTHER.set(before + 1)
            assert OTHER.get() == before + 1
        assert inside == [number]
        inside.pop()
        done.append(number)

    def step(number: int) -> None:
        VAR.set(number)
        try:
            enter(shared, lambda: work(number))
        except RuntimeError as error:
            assert is_entered_elsewhere(error)
            refused.append(number)
        assert VAR.get() == number and OTHER.get() == 0

    in_threads(step)
    assert refused and done
    assert shared[OTHER] == 10 * len(done) and VAR not in shared
    assert shared.run(current_context) is shared


def test_maps_that_share_their_tree() -> None:
    base: Hamt[Any, object] = Hamt({("base", number): number for number in range(100)})
    own, published = [base] * THREADS, [base] * THREADS

    def step(number: int) -> None:
        size = len(own[number])
        hamt = own[number].set((number, size), [number])
        hamt = hamt.update({(number, size, more): more for more in range(5)}).discard((number, size, 4))
        assert len(hamt) == size + 5
        published[number] = own[number] = hamt
        theirs = published[(number + 1) % THREADS]
        assert len(list(theirs.items())) == len(theirs)
        merged = hamt.merge(base, theirs)
        assert len(merged) == len(hamt) + len(theirs) - 100
        assert merged.diff(hamt).removed.keys() == theirs.keys() - base.keys()
        if size > 300:
            own[number] = base

    in_threads(step)
    assert dict(base) == {("base", number): number for number in range(100)}
    for hamt in [base, *own, *published]:
        hamt._check()


def test_a_mutation_loses_no_change_that_it_took() -> None:
    mutation = Hamt[object, int]({"a": 1}).mutate()
    kept: list[set[tuple[int, int]]] = [set() for _ in range(THREADS)]
    steps = [0] * THREADS

    def step(number: int) -> None:
        key = number, steps[number] % 500
        steps[number] += 1
        try:
            if key in kept[number]:
                assert mutation.pop(key) == number
                kept[number].discard(key)
            else:
                mutation[key] = number
                kept[number].add(key)
            if key[1] % 50 == 0:
                assert len(mutation) >= len(kept[number])
        except RuntimeError as error:
            assert "the mutation is in use" in str(error)
        assert (key in mutation) == (key in kept[number])
        assert mutation.get("a") == 1

    in_threads(step)
    hamt = mutation.finish()
    hamt._check()
    expected: dict[object, int] = {"a": 1, **{key: key[0] for keys in kept for key in keys}}
    assert dict(hamt) == expected


def test_an_iterator_that_threads_share() -> None:
    hamt = Hamt({number: str(number) for number in range(1000)})
    iterators = [iter(hamt.items())]

    def step(number: int) -> None:
        iterator = iterators[-1]
        try:
            for _ in range(100):
                key, value = next(iterator)
                assert value == str(key) and hamt[key] is value
        except StopIteration:
            iterators.append(iter(hamt.items()))
        except ValueError as error:
            # As any generator of Python.
            assert str(error) == "generator already executing"

    in_threads(step)
    assert len(list(hamt.items())) == 1000


@entered_twice_without_the_gil
def test_a_token_is_used_once() -> None:
    context, used = Context(), []
    tokens = [context.run(VAR.set, 1)]

    def step(number: int) -> None:
        token = tokens[-1]
        try:
            context.run(VAR.reset, token)
        except RuntimeError as error:
            assert is_entered_elsewhere(error) or "has already been used once" in str(error)
            return
        used.append(token)
        while token is tokens[-1]:
            try:
                tokens.append(context.run(VAR.set, len(used)))
            except RuntimeError as error:
                assert is_entered_elsewhere(error)

    in_threads(step)
    assert len(used) == len(set(map(id, used))) > 1
    assert len(tokens) == len(used) + 1
    assert all("Token used" in repr(token) for token in used) and "Token used" not in repr(tokens[-1])


def test_each_thread_has_its_state_and_its_current_context() -> None:
    states: dict[int, ThreadState] = {}

    def step(number: int) -> None:
        state = states.setdefault(number, thread_state())
        base = current_context()
        assert thread_state() is state
        assert current_context() is state.context is base
        with Context() as context:
            assert current_context() is state.context is context
        assert current_context() is base
        with pytest.raises(RuntimeError, match="belongs to another thread"):
            states.get((number + 1) % THREADS, state).context
            raise RuntimeError("the other one has not begun: it belongs to another thread")

    in_threads(step)
    assert len(set(map(id, states.values()))) == len(states) == THREADS


def test_contexts_made_in_one_thread_and_dropped_in_another() -> None:
    handed_over: collections.deque[tuple[Context, Token[Any], Iterator[tuple[ContextVar[Any], Any]], int]] = (
        collections.deque(maxlen=50)
    )
    finalised = []

    class Value:
        def __init__(self, number: int) -> None:
            self.number = number

        def __del__(self) -> None:
            # In whichever thread drops the last reference.
            VAR.get()
            current_context()
            finalised.append(self.number)

    def step(number: int) -> None:
        context = copy_context()
        value = Value(number)
        token = context.run(VAR.set, value)
        handed_over.append((context, token, context.items(), number))
        del context, value, token
        try:
            context, token, items, number = handed_over.popleft()
        except IndexError:
            return
        assert context[VAR].number == number
        assert [value.number for var, value in items if var is VAR] == [number]
        try:
            context.run(VAR.reset, token)
        except RuntimeError as error:
            assert is_entered_elsewhere(error)
        assert VAR not in context and VAR.get() == "default"

    in_threads(step)
    handed_over.clear()
    gc.collect()
    assert set(finalised) == set(range(THREADS))
