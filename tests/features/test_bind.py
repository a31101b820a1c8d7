"""Functions that take the Context along: where they are called does not matter, and nothing comes back."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, apply, assign, bind, copy_context
from refusals import refuses

VARIABLES: list[ContextVar[Any]] = [ContextVar(name, default=f"{name} unset") for name in ("one", "two", "three")]
ONE, TWO, THREE = VARIABLES


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    with Context():
        yield


def in_a_thread(function: Callable[[], object]) -> object:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_it_sees_the_values_of_when_it_was_bound() -> None:
    ONE.set("bound")
    get = bind(ONE.get)
    ONE.set("later")
    assert [get(), in_a_thread(get), Context().run(get), ONE.get()] == ["bound"] * 3 + ["later"]


def test_nothing_comes_back_and_no_call_sees_another() -> None:
    exchange = bind(lambda value: ONE.set(value).old_value)
    ONE.set("here")
    missing = Context().run(ONE.set, 1).old_value
    assert [exchange(1), exchange(2), exchange(3)] == [missing] * 3
    assert ONE.get() == "here"


def test_calls_at_once_have_copies_of_their_own() -> None:
    barrier = threading.Barrier(8)
    seen: dict[int, list[object]] = {}

    def call(number: int) -> None:
        seen[number] = [TWO.get()]
        TWO.set(number)
        barrier.wait()
        seen[number].append(TWO.get())

    TWO.set("bound")
    bound = bind(call)
    threads = [threading.Thread(target=bound, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {number: ["bound", number] for number in range(8)}


def test_it_may_call_itself() -> None:
    def count(number: int) -> list[object]:
        found = ONE.get()
        ONE.set(number)
        return [found] if number == 0 else [found, *bound(number - 1), ONE.get()]

    ONE.set("bound")
    bound = bind(count)
    assert bound(2) == ["bound", "bound", "bound", 1, 2]


def test_an_error_passes_and_the_next_call_is_as_the_first() -> None:
    def fail(value: int) -> None:
        ONE.set(value)
        raise ZeroDivisionError(value)

    bound = bind(fail)
    for value in (1, 2):
        with pytest.raises(ZeroDivisionError, match=str(value)):
            bound(value)
    assert ONE not in copy_context()


def test_only_some_variables() -> None:
    ONE.set(1)
    TWO.set(2)
    see = bind(copy_context, only=[ONE, THREE])
    ONE.set("later")
    THREE.set("later")
    assert dict(see()) == {ONE: 1}
    assert dict(bind(copy_context, [])()) == {}
    assert bind(TWO.get, only=(var for var in [ONE]))() == "two unset"


def test_only_some_values_are_kept_alive() -> None:
    class Value:
        pass

    kept, others = Value(), Value()
    ONE.set(kept)
    TWO.set(others)
    bound = bind(ONE.get, only=[ONE])
    found = weakref.ref(kept), weakref.ref(others)
    ONE.set(None)
    TWO.set(None)
    del kept, others
    gc.collect()
    assert [found[0]() is bound(), found[1]()] == [True, None]


@pytest.mark.parametrize("wrong", ["name", 1, None], ids=repr)
def test_only_what_is_a_variable(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"^a ContextVar key was expected, got {wrong!r}$"):
        bind(ONE.get, only=[ONE, wrong])


@pytest.mark.parametrize(
    "wrong", [ONE, 1, "name", contextvars.ContextVar("theirs")], ids=["ours", "1", "name", "theirs"]
)
def test_only_takes_many_variables(wrong: Any) -> None:
    for name, call in (("bind", lambda: bind(ONE.get, only=wrong)), ("apply", lambda: apply(Context(), only=wrong))):
        refusal = f"{name}() takes an iterable of variables as only, not {wrong!r}: write only=[variable]"
        with refuses(TypeError, refusal):
            call()


def test_only_what_can_be_called() -> None:
    with pytest.raises(TypeError, match=r"^bind\(\) takes a callable, not Context$"):
        bind(copy_context())  # type: ignore[call-overload]


class Greeter:
    def greet(self, name: str) -> str:
        """Say who greets whom."""
        return f"{ONE.get()} greets {name}"

    greet_from_nowhere = bind(greet)

    def __call__(self, name: str) -> str:
        return self.greet(name)


@pytest.mark.parametrize(
    "callee",
    [Greeter().greet, functools.partial(Greeter.greet, Greeter()), Greeter()],
    ids=["method", "partial", "object"],
)
def test_whatever_can_be_called(callee: Callable[[str], str]) -> None:
    with ONE.set("ada"):
        bound = bind(callee)
    assert bound("bob") == "ada greets bob"


def test_a_bound_function_is_a_method_of_its_class() -> None:
    with ONE.set("ada"):
        assert Greeter().greet_from_nowhere("bob") == "one unset greets bob"


def test_a_class_can_be_bound() -> None:
    class Seen:
        def __init__(self, number: int, *, word: str) -> None:
            self.seen = ONE.get(), number, word

    with ONE.set("ada"):
        make = bind(Seen)
    assert make(1, word="a").seen == ("ada", 1, "a")


def test_it_looks_like_the_function() -> None:
    def add(left: int, right: int = 2) -> int:
        """Add two numbers."""
        return left + right

    add.mark = "kept"  # type: ignore[attr-defined]
    bound: Any = bind(add)
    assert (bound.__name__, bound.__doc__, bound.mark) == ("add", "Add two numbers.", "kept")
    assert inspect.signature(bound) == inspect.signature(add)
    assert bound.__wrapped__ is add


def test_of_what_makes_a_coroutine_or_a_generator_the_making_alone_is_bound() -> None:
    async def coroutine() -> object:
        return ONE.get()

    def generator() -> Iterator[object]:
        yield ONE.get()

    with ONE.set("bound"):
        make_coroutine, make_generator = bind(coroutine), bind(generator)
    asks = inspect if sys.version_info >= (3, 12) else asyncio
    assert asks.iscoroutinefunction(make_coroutine) and not asks.iscoroutinefunction(make_generator)
    ONE.set("caller")
    with pytest.raises(StopIteration, match="^caller$"):
        make_coroutine().send(None)
    assert list(make_generator()) == ["caller"]


def test_callbacks_of_an_event_loop() -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        seen: list[object] = []
        with ONE.set("bound"):
            see = bind(lambda *_: seen.append(ONE.get()))
        loop.call_soon(see)
        loop.call_later(0, see)
        future = loop.create_future()
        future.add_done_callback(see)
        future.set_result(None)
        await asyncio.sleep(0.01)
        await loop.run_in_executor(None, see)
        return seen

    assert asyncio.run(main()) == ["bound"] * 4


SCHEDULERS: dict[str, Callable[[asyncio.AbstractEventLoop, Callable[..., object]], object]] = {
    "call_soon": lambda loop, bound: loop.call_soon(bound),
    "call_soon_threadsafe": lambda loop, bound: loop.call_soon_threadsafe(bound),
    "call_later": lambda loop, bound: loop.call_later(1000, bound),
    "call_at": lambda loop, bound: loop.call_at(loop.time() + 1000, bound),
    "add_done_callback": lambda loop, bound: loop.create_future().add_done_callback(bound),
    "Timer": lambda loop, bound: threading.Timer(1000, bound).start(),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_what_calls_later_keeps_no_other_value_where_it_is_called_in_an_empty_context(scheduler: str) -> None:
    class Value:
        pass

    async def main() -> tuple[object, object]:
        value = Value()
        found = weakref.ref(value)
        threads = threading.enumerate()
        with assign({ONE: "kept", TWO: value}):
            handle = Context().run(SCHEDULERS[scheduler], asyncio.get_running_loop(), bind(ONE.get, only=[ONE]))
        del value
        gc.collect()
        kept = found()
        for thread in set(threading.enumerate()) - set(threads):
            thread.cancel()  # type: ignore[attr-defined]
        return handle, kept

    assert asyncio.run(main())[1] is None
