"""What runs in a Context of its own behaves as it would without, but for the variables."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import sys
import threading
import traceback
import types
import warnings
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextvars_cy import Context, ContextVar, current_context, isolated
from interpreters import GIL, needs_room_at_the_end, needs_room_to_leave

Stepped = Generator[Any, Any, Any]

VAR: ContextVar[Any] = ContextVar("VAR", default="default")


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    with Context():
        yield


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The errors of finalisers, which have nobody to be raised to."""
    errors: list[object] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda about: errors.append((type(about.exc_value), str(about.exc_value)))
    )
    return errors


def outcome(call: Callable[..., object], *args: object) -> object:
    try:
        return call(*args)
    except BaseException as error:
        return type(error), error.args


def finish(awaitable: Awaitable[object]) -> Any:
    """Run what does not wait."""
    steps = awaitable.__await__()
    try:
        steps.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def in_thread(function: Callable[..., object], *args: object) -> object:
    results = []
    thread = threading.Thread(target=lambda: results.append(outcome(function, *args)))
    thread.start()
    thread.join()
    return results[0]


class Wait:
    """Awaited, it gives the value to whoever runs the steps, and returns what that one sends."""

    def __init__(self, value: object) -> None:
        self.values = [value]

    def __await__(self) -> Stepped:
        return (yield self.values.pop())


# ---- functions ----


@isolated
def set_and_get(value: object) -> Any:
    """Set it."""
    before = VAR.get()
    VAR.set(value)
    return before, VAR.get()


def test_what_a_function_sets_stays_inside() -> None:
    VAR.set("outside")
    assert set_and_get("inside") == ("outside", "inside")
    assert set_and_get(value="again") == ("outside", "again")
    assert VAR.get() == "outside"


def test_each_call_has_its_own_copy() -> None:
    @isolated
    def nested(depth: int) -> list[int]:
        VAR.set(depth)
        deeper = nested(depth - 1) if depth else []
        return [*deeper, VAR.get()]

    assert nested(3) == [0, 1, 2, 3]
    assert VAR.get() == "default"


def test_a_function_keeps_its_name_and_signature() -> None:
    assert set_and_get.__name__ == "set_and_get"
    assert set_and_get.__doc__ == "Set it."
    assert str(inspect.signature(set_and_get)) == "(value: 'object') -> 'Any'"
    assert pickle.loads(pickle.dumps(set_and_get)) is set_and_get


def test_an_error_of_a_function_passes() -> None:
    with pytest.raises(TypeError, match="set_and_get"):
        set_and_get()  # type: ignore[call-arg]

    @isolated
    def fail() -> None:
        VAR.set("inside")
        raise error

    error = KeyError("key")
    with pytest.raises(KeyError) as caught:
        fail()
    assert caught.value is error
    assert VAR.get() == "default"


class Methods:
    @isolated
    def method(self, value: object) -> tuple[object, object]:
        return self, set_and_get(value)

    @classmethod
    @isolated
    def of_class(cls, value: object) -> tuple[object, object]:
        return cls, set_and_get(value)

    @staticmethod
    @isolated
    def static(value: object) -> object:
        return set_and_get(value)

    @property
    @isolated
    def attribute(self) -> object:
        return set_and_get("attribute")

    @contextmanager
    @isolated
    def manager(self) -> Iterator[tuple[object, object]]:
        with VAR.set("inside"):
            yield self, VAR.get()


def test_methods_are_functions() -> None:
    methods = Methods()
    assert methods.method(1) == (methods, ("default", 1))
    assert methods.of_class(1) == Methods.of_class(1) == (Methods, ("default", 1))
    assert methods.static(1) == Methods.static(1) == ("default", 1)
    assert methods.attribute == ("default", "attribute")
    with methods.manager() as entered:
        assert (entered, VAR.get()) == ((methods, "inside"), "default")
    assert isolated(methods.method)(1) == (methods, ("default", 1))


class WithManagers:
    manager = contextmanager(set_and_get)
    __call__ = asynccontextmanager(set_and_get)


@pytest.mark.parametrize(
    ("decorator", "made"),
    [
        ("classmethod", classmethod(set_and_get)),
        ("staticmethod", staticmethod(set_and_get)),
        ("property", property(set_and_get)),
        ("cached_property", functools.cached_property(set_and_get)),
        ("partialmethod", functools.partialmethod(set_and_get)),
        ("singledispatchmethod", functools.singledispatchmethod(set_and_get)),
        ("contextmanager", contextmanager(set_and_get)),
        ("contextmanager", WithManagers().manager),
        ("contextmanager", functools.partial(WithManagers.manager, 1)),
        ("asynccontextmanager", asynccontextmanager(set_and_get)),
        ("asynccontextmanager", WithManagers()),
    ],
)
def test_it_belongs_below_decorators_that_call_or_step_later(decorator: str, made: Any) -> None:
    with pytest.raises(TypeError, match=f"^@isolated belongs below @{decorator}, next to the function$"):
        isolated(made)


def test_what_it_refuses() -> None:
    takes = r"^isolated\(\) takes a function, a generator, an async generator or a coroutine, not"
    with pytest.raises(TypeError, match=f"{takes} the list object$"):
        isolated([])  # type: ignore[type-var]
    with pytest.raises(TypeError, match=f"{takes} the class Methods$"):
        isolated(Methods)
    with pytest.raises(TypeError):
        isolated()  # type: ignore[call-arg]


def test_a_result_that_stands_for_another_is_not_asked() -> None:
    class Proxy:
        def __getattribute__(self, name: str) -> None:
            raise ZeroDivisionError(name)

    proxy = Proxy()
    assert isolated(lambda: proxy)() is proxy


def test_a_result_with_methods_of_these_names_is_not_closed() -> None:
    class Closable:
        closed = False

        def throw(self) -> None:
            pass

        def close(self) -> None:
            self.closed = True

    result = isolated(lambda: Closable())()
    assert type(result) is Closable
    assert not result.closed


# ---- generators, async generators and coroutines: what they set ----


def generator(value: object = "inside") -> Stepped:
    token = VAR.set(value)
    try:
        while True:
            value = yield VAR.get()
            if value is not None:
                VAR.set(value)
    finally:
        VAR.reset(token)
        seen_at_the_end.append(VAR.get())


async def async_generator(value: object = "inside") -> AsyncGenerator[Any, Any]:
    token = VAR.set(value)
    try:
        while True:
            value = yield VAR.get()
            if value is not None:
                VAR.set(value)
    finally:
        VAR.reset(token)
        seen_at_the_end.append(VAR.get())


async def coroutine(value: object = "inside") -> None:
    token = VAR.set(value)
    try:
        while True:
            value = await Wait(VAR.get())
            if value is not None:
                VAR.set(value)
    finally:
        VAR.reset(token)
        seen_at_the_end.append(VAR.get())


seen_at_the_end: list[object] = []


@pytest.fixture(params=[generator, async_generator, coroutine], ids=["generator", "async generator", "coroutine"])
def function(request: pytest.FixtureRequest) -> Any:
    seen_at_the_end.clear()
    return request.param


def send(stepped: Any, value: object = None) -> Any:
    return finish(stepped.asend(value)) if isinstance(stepped, AsyncGenerator) else stepped.send(value)


def throw(stepped: Any, error: BaseException) -> Any:
    return finish(stepped.athrow(error)) if isinstance(stepped, AsyncGenerator) else stepped.throw(error)


def close(stepped: Any) -> Any:
    return finish(stepped.aclose()) if isinstance(stepped, AsyncGenerator) else stepped.close()


def test_what_it_sets_stays_inside(function: Callable[..., Any]) -> None:
    VAR.set("outside")
    stepped = isolated(function)()
    assert send(stepped) == "inside"
    assert VAR.get() == "outside"
    VAR.set("changed outside")
    assert send(stepped) == "inside"
    assert send(stepped, "changed inside") == "changed inside"
    assert VAR.get() == "changed outside"
    close(stepped)
    assert VAR.get() == "changed outside"
    assert seen_at_the_end == ["outside"]


def test_the_context_is_copied_where_it_is_created(function: Callable[..., Any]) -> None:
    VAR.set("created")
    stepped, other = isolated(function)(), isolated(function())
    VAR.set("begun")
    send(stepped), send(other)
    close(stepped), close(other)
    assert seen_at_the_end == ["created", "created"]


def test_each_has_its_own(function: Callable[..., Any]) -> None:
    stepped = [isolated(function)(number) for number in range(3)]
    for _ in range(3):
        assert [send(one) for one in stepped] == [0, 1, 2]
    for one in stepped:
        close(one)


def test_steps_in_another_context_and_in_another_thread(function: Callable[..., Any]) -> None:
    stepped = isolated(function)()
    assert Context().run(send, stepped) == "inside"
    assert in_thread(send, stepped, "thread") == "thread"
    assert send(stepped) == "thread"
    in_thread(close, stepped)
    assert seen_at_the_end == ["default"]
    assert VAR.get() == "default"


def test_an_error_thrown_in_and_an_error_that_comes_out(function: Callable[..., Any]) -> None:
    stepped = isolated(function)()
    send(stepped)
    error = KeyError("key")
    with pytest.raises(KeyError) as caught:
        throw(stepped, error)
    assert caught.value is error
    assert seen_at_the_end == ["default"]


def collect() -> None:
    # PyPy finalises what others that it finalises refer to at the next collection.
    for _ in range(1 if sys.implementation.name == "cpython" else 4):
        gc.collect()


def test_the_garbage_collector_closes_it_in_its_own_context(
    function: Callable[..., Any], unraisable: list[object]
) -> None:
    VAR.set("outside")
    stepped = isolated(function)()
    send(stepped)
    VAR.set("changed outside")
    kept = [stepped]
    del stepped
    Context().run(kept.clear)
    Context().run(collect)
    assert seen_at_the_end == ["outside"]
    assert unraisable == []


def test_the_garbage_collector_finds_it_in_a_reference_cycle(
    function: Callable[..., Any], unraisable: list[object]
) -> None:
    class Owner:
        @isolated
        def steps(self) -> object:
            return function()

    VAR.set("outside")
    owner: Any = Owner()
    owner.stepped = owner.steps()
    send(owner.stepped)
    owner.cycle = owner
    VAR.set("changed outside")
    found = weakref.ref(owner)
    del owner
    collect()
    assert found() is None
    # Without the GIL the collector goes by addresses, and may close the inner one first.
    if GIL:
        assert seen_at_the_end == ["outside"]
        assert unraisable == []


def test_one_that_has_not_begun_goes_quietly(function: Callable[..., Any], unraisable: list[object]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        isolated(function)()
        isolated(function())
        closed = isolated(function)()
        if function is not async_generator:
            closed.close()
        del closed
        gc.collect()
    name = function.__qualname__
    never = [f"coroutine {name!r} was never awaited"] * 2 if function is coroutine else []
    assert [str(warning.message) for warning in caught] == never
    assert seen_at_the_end == []
    assert unraisable == []


def test_it_is_what_it_was(function: Callable[..., Any]) -> None:
    plain, stepped = function(), isolated(function)()
    assert type(stepped) is type(plain)
    assert (stepped.__name__, stepped.__qualname__) == (plain.__name__, plain.__qualname__)
    assert function.__name__ in repr(stepped)
    for refused in (copy.copy, pickle.dumps):
        with pytest.raises((TypeError, pickle.PicklingError)):
            refused(stepped)
    assert weakref.ref(stepped)() is stepped
    if function is not async_generator:
        plain.close(), stepped.close()  # type: ignore[union-attr]


def test_functions_of_functions(function: Callable[..., Any]) -> None:
    class Callable:
        def __call__(self, value: object) -> object:
            return function(value)

    for callable in (functools.partial(function, 1), lambda: function(1), functools.partial(Callable(), 1)):
        stepped = isolated(callable)()
        assert send(stepped) == 1
        assert VAR.get() == "default"
        close(stepped)
    assert seen_at_the_end == ["default"] * 3


def test_of_itself_it_is_isolated_again(function: Callable[..., Any]) -> None:
    stepped = isolated(isolated(function))()
    assert send(stepped) == "inside"
    close(stepped)
    assert seen_at_the_end == ["default"]


def test_its_context_cannot_be_entered_twice() -> None:
    @isolated
    def steps() -> Iterator[Any]:
        yield current_context()
        yield

    stepped = steps()
    context = next(stepped)
    with pytest.raises(RuntimeError, match="^cannot enter context: <contextvars_cy.Context object at .*> is already"):
        context.run(next, stepped)


def test_a_generator_that_steps_itself() -> None:
    @isolated
    def steps() -> Iterator[object]:
        yield outcome(next, stepped)

    stepped = steps()
    assert next(stepped) == (ValueError, ("generator already executing",))


# ---- the same as without ----


class Swallowed(Exception):
    pass


def bodies() -> Iterable[Callable[..., Any]]:
    def plain(log: list[object]) -> Stepped:
        received = yield "first"
        while received != "end":
            received = yield received
        return "returned"

    def swallows(log: list[object]) -> Stepped:
        for number in range(3):
            try:
                log.append((yield number))
            except Exception as error:
                log.append((type(error), error.args, type(error.__context__)))
        return "returned"

    def goes_on(log: list[object]) -> Stepped:
        for number in range(3):
            try:
                yield number
            except GeneratorExit as error:
                log.append((type(error), error.args, type(error.__context__)))
        return "returned"

    def returns(log: list[object]) -> Stepped:
        try:
            yield "first"
        except BaseException as error:
            log.append(type(error))
            return "returned"

    def replaces(log: list[object]) -> Stepped:
        try:
            yield "first"
        except BaseException:
            raise Swallowed("another") from None

    def stops(log: list[object]) -> Stepped:
        yield "first"
        raise StopIteration("stopped")

    def stops_async(log: list[object]) -> Stepped:
        yield "first"
        raise StopAsyncIteration("stopped")

    def delegates(log: list[object]) -> Stepped:
        log.append((yield from swallows(log)))
        yield "last"

    def at_once(log: list[object]) -> Stepped:
        raise Swallowed("at once")
        yield

    return locals().values()


THROWN = [KeyError, GeneratorExit]
if not hasattr(sys, "gettotalrefcount"):
    # A debug build of CPython ends itself where these are thrown into generators that have not begun.
    THROWN += [StopIteration, StopAsyncIteration]
# PyPy closes nothing before a collection, and each example ends with one.
OFTEN = settings(max_examples=100 if sys.implementation.name == "cpython" else 10)
STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([None, None, "value", "end"])),
    st.tuples(st.just("throw"), st.sampled_from(THROWN)),
    st.just(("close",)),
)


def follow(make: Callable[[list[object]], object], steps: Iterable[tuple[Any, ...]]) -> list[object]:
    """All that becomes of the steps, and of the finaliser in the end."""
    log: list[object] = []
    hook, sys.unraisablehook = (
        sys.unraisablehook,
        lambda about: log.append((type(about.exc_value), str(about.exc_value))),
    )
    try:
        take(make(log), steps, log)
        if sys.implementation.name != "cpython":
            gc.collect()
    finally:
        sys.unraisablehook = hook
    return log


def take(stepped: object, steps: Iterable[tuple[Any, ...]], log: list[object]) -> None:
    for name, *args in steps:
        # Fresh exceptions, because they remember who has handled them.
        args = [arg("thrown") if isinstance(arg, type) else arg for arg in args]
        log.append(outcome(getattr(stepped, name), *args))


@OFTEN
@given(st.lists(STEPS, max_size=8))
@pytest.mark.parametrize("body", bodies(), ids=lambda body: body.__name__)
def test_a_generator_is_the_same_as_without(body: Callable[..., Any], steps: list[tuple[Any, ...]]) -> None:
    steps = [*steps, *[("close",)] * 4]
    assert follow(isolated(body), steps) == follow(body, steps)


@OFTEN
@given(st.lists(STEPS, max_size=8))
@pytest.mark.parametrize("body", bodies(), ids=lambda body: body.__name__)
def test_yield_from_is_the_same_as_without(body: Callable[..., Any], steps: list[tuple[Any, ...]]) -> None:
    def delegating(log: list[object], body: Callable[..., Any]) -> Stepped:
        stepped = body(log)
        try:
            log.append((yield from stepped))
        finally:
            log.extend(outcome(stepped.close) for _ in range(4))

    with_it = functools.partial(delegating, body=isolated(body))
    assert follow(with_it, steps) == follow(functools.partial(delegating, body=body), steps)


@OFTEN
@given(st.lists(STEPS, max_size=8))
@pytest.mark.parametrize("body", bodies(), ids=lambda body: body.__name__)
def test_a_coroutine_is_the_same_as_without(
    body: Callable[[list[object]], Stepped], steps: list[tuple[Any, ...]]
) -> None:
    async def awaiting(log: list[object]) -> object:
        return await types.coroutine(body)(log)

    steps = [("send", None), *steps, *[("close",)] * 4]
    assert follow(isolated(awaiting), steps) == follow(awaiting, steps)


async def async_plain(log: list[object]) -> AsyncGenerator[Any, Any]:
    received = yield "first"
    while received != "end":
        received = yield received


async def async_swallows(log: list[object]) -> AsyncGenerator[Any, Any]:
    for number in range(3):
        try:
            log.append((yield number))
        except BaseException as error:
            log.append((type(error), error.args, type(error.__context__)))


async def async_replaces(log: list[object]) -> AsyncGenerator[Any, Any]:
    try:
        yield "first"
    except BaseException:
        raise Swallowed("another") from None


async def async_stops(log: list[object]) -> AsyncGenerator[Any, Any]:
    yield "first"
    raise StopIteration("stopped")


async def async_stops_async(log: list[object]) -> AsyncGenerator[Any, Any]:
    yield "first"
    raise StopAsyncIteration("stopped")


async def async_at_once(log: list[object]) -> AsyncGenerator[Any, Any]:
    raise Swallowed("at once")
    yield


class Finished:
    """An async generator of which each step is finished at once."""

    def __init__(self, stepped: Any) -> None:
        self.stepped = stepped

    def send(self, value: object) -> object:
        return finish(self.stepped.asend(value))

    def throw(self, error: BaseException) -> object:
        return finish(self.stepped.athrow(error))

    def close(self) -> object:
        return finish(self.stepped.aclose())


@OFTEN
@given(st.lists(STEPS, max_size=8))
@pytest.mark.parametrize(
    "body",
    [async_plain, async_swallows, async_replaces, async_stops, async_stops_async, async_at_once],
    ids=lambda body: body.__name__,
)
def test_an_async_generator_is_the_same_as_without(body: Callable[..., Any], steps: list[tuple[Any, ...]]) -> None:
    with_it = follow(lambda log: Finished(isolated(body)(log)), steps)
    assert with_it == follow(lambda log: Finished(body(log)), steps)


# ---- exceptions and memory ----


def frames(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def test_a_traceback_has_few_frames_more() -> None:
    def fail(received: object) -> None:
        raise KeyError(received)

    def caught(body: Callable[[], Stepped]) -> Any:
        stepped = body()
        next(stepped)
        try:
            stepped.send("value")
        except KeyError as error:
            return frames(error)

    def body() -> Stepped:
        fail((yield))

    plain = caught(body)
    assert plain == ["caught", "body", "fail"]
    with_it = caught(isolated(body))
    assert [name for name in with_it if name in plain] == plain
    # The step, and on the pure backend what runs it in the Context.
    assert len(with_it) <= len(plain) + 4


def test_an_error_thrown_in_keeps_its_traceback() -> None:
    def body() -> Stepped:
        while True:
            try:
                yield
            except KeyError as error:
                seen.append(frames(error))

    def thrown() -> KeyError:
        try:
            raise KeyError
        except KeyError as error:
            return error

    seen: list[list[str]] = []
    for make in (body, isolated(body)):
        stepped = make()
        next(stepped)
        error = thrown()
        for _ in range(3):
            stepped.throw(error)
    assert seen[:3] == seen[3:]


class Value:
    pass


def values() -> Iterator[Value]:
    while True:
        try:
            yield Value()
        except KeyError:
            pass


async def async_values() -> AsyncIterator[Value]:
    while True:
        try:
            yield Value()
        except KeyError:
            pass


async def waits_with_values() -> None:
    while True:
        try:
            await Wait(Value())
        except KeyError:
            pass


@pytest.fixture
def collected_by_reference_counts() -> Iterator[Callable[[], object]]:
    """Without the garbage collector, where reference counts do."""
    gc.collect()
    gc.disable()
    yield (lambda: None) if sys.implementation.name == "cpython" else gc.collect
    gc.enable()


@pytest.mark.parametrize("make", [values, async_values, waits_with_values])
def test_nothing_is_kept_alive(make: Callable[..., Any], collected_by_reference_counts: Callable[[], object]) -> None:
    stepped = isolated(make)()
    found: Any = [weakref.ref(send(stepped)) for _ in range(2)]
    sent = Value()
    found += [weakref.ref(sent), weakref.ref(send(stepped, sent))]
    error: Any = KeyError()
    error.value = sent
    found += [weakref.ref(throw(stepped, error))]
    del sent, error
    collected_by_reference_counts()
    assert [reference() for reference in found] == [None] * len(found)
    close(stepped)
    found = weakref.ref(stepped)
    del stepped
    collected_by_reference_counts()
    assert found() is None


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_that_comes_out_is_in_no_reference_cycle(
    function: Callable[..., Any], begun: bool, collected_by_reference_counts: Callable[[], object]
) -> None:
    stepped = isolated(function)()
    if begun:
        send(stepped)
    found = []

    def error() -> KeyError:
        value = Value()
        found.append(weakref.ref(value))
        return KeyError(value)

    try:
        # No helper, whose frame would keep the error.
        if function is async_generator:
            stepped.athrow(error()).send(None)
        else:
            stepped.throw(error())
    except KeyError:
        pass
    collected_by_reference_counts()
    assert found[0]() is None


# ---- under an event loop ----


def run(main: Callable[[], Coroutine[Any, Any, object]]) -> object:
    """Run the coroutine function in a Context of its own, since the thread host refuses to set in the base one."""
    return Context().run(asyncio.run, isolated(main)())


def test_tasks_have_what_they_set() -> None:
    @isolated
    async def worker(number: int) -> object:
        with VAR.set(number):
            for _ in range(3):
                await asyncio.sleep(0)
                assert VAR.get() == number
        return VAR.get()

    @isolated
    async def ticks(number: int) -> AsyncIterator[object]:
        with VAR.set(number):
            for _ in range(3):
                await asyncio.sleep(0)
                yield VAR.get()

    @isolated
    async def consumer(number: int) -> list[tuple[object, object]]:
        VAR.set("consumer")
        return [(value, VAR.get()) async for value in ticks(number)]

    async def main() -> None:
        VAR.set("main")
        assert await asyncio.gather(*(worker(number) for number in range(10))) == ["main"] * 10
        consumed = await asyncio.gather(*(asyncio.create_task(consumer(number)) for number in range(10)))
        assert consumed == [[(number, "consumer")] * 3 for number in range(10)]
        assert VAR.get() == "main"

    run(main)


def test_the_task_is_the_same_inside() -> None:
    @isolated
    async def inner() -> object:
        await asyncio.sleep(0)
        return asyncio.current_task()

    @isolated
    async def steps() -> AsyncIterator[object]:
        await asyncio.sleep(0)
        yield asyncio.current_task()

    async def main() -> None:
        task = asyncio.current_task()
        assert await inner() is task
        assert [one async for one in steps()] == [task]

    run(main)


def test_timeouts_and_cancellation_reach_it() -> None:
    ended = []

    @isolated
    async def wait() -> None:
        with VAR.set("inside"):
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(0)
                ended.append((sys.exc_info()[0], VAR.get()))

    @isolated
    async def ticks() -> AsyncIterator[None]:
        with VAR.set("inside"):
            try:
                yield
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(0)
                ended.append((sys.exc_info()[0], VAR.get()))

    async def consume() -> None:
        async for _ in ticks():
            pass

    @isolated
    async def wait_inside() -> object:
        with VAR.set("around"):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(wait(), 0.001)
            return VAR.get()

    async def main() -> None:
        for stepped in (wait(), consume()):
            task = asyncio.create_task(stepped)
            for _ in range(3):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await wait_inside() == "around"

    run(main)
    assert ended == [(asyncio.CancelledError, "inside")] * 3


def closing_steps(ended: list[object]) -> Callable[[], AsyncGenerator[object, None]]:
    @isolated
    async def steps() -> AsyncGenerator[object, None]:
        token = VAR.set("inside")
        try:
            while True:
                yield VAR.get()
        finally:
            await asyncio.sleep(0)
            VAR.reset(token)
            ended.append(VAR.get())

    return steps


def test_the_loop_closes_what_was_left_in_its_own_context() -> None:
    ended: list[object] = []
    steps = closing_steps(ended)

    async def main() -> None:
        VAR.set("outside")
        async for _ in steps():
            VAR.set("changed outside")
            break
        gc.collect()
        while not ended:
            await asyncio.sleep(0)
        assert ended == ["outside"]
        kept.append(steps())
        VAR.set("changed again")
        async for _ in kept[0]:
            # The loop finds it when it ends.
            break

    kept: list[AsyncGenerator[object, None]] = []
    run(main)
    assert ended == ["outside", "changed outside"]


def test_the_loop_closes_what_was_left_in_a_reference_cycle() -> None:
    class Owner:
        @isolated
        async def steps(self) -> AsyncGenerator[object, None]:
            token = VAR.set("inside")
            try:
                yield self
            finally:
                await asyncio.sleep(0)
                VAR.reset(token)
                ended.append(VAR.get())

    async def main() -> None:
        owner: Any = Owner()
        owner.stepped = owner.steps()
        await owner.stepped.__anext__()
        del owner
        gc.collect()
        while not ended:
            await asyncio.sleep(0)
        assert ended == ["default"]

    ended: list[object] = []
    run(main)
    assert ended == ["default"]


def test_it_is_closed_by_hand_in_its_own_context() -> None:
    ended: list[object] = []
    steps = closing_steps(ended)

    async def main() -> None:
        closed = steps()
        await closed.__anext__()
        await asyncio.create_task(closed.aclose())
        assert ended == ["default"]
        with pytest.raises(StopAsyncIteration):
            await closed.__anext__()

    run(main)


def test_two_tasks_cannot_step_an_async_generator_at_once() -> None:
    @isolated
    async def steps() -> AsyncGenerator[None, None]:
        await asyncio.sleep(0)
        yield

    async def main() -> None:
        stepped = steps()
        first = asyncio.create_task(stepped.__anext__())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="asynchronous generator is already running$"):
            await stepped.__anext__()
        await first

    run(main)


def test_the_hooks_see_the_one_outside_alone() -> None:
    seen = []
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(lambda one: seen.append(("began", id(one))), lambda one: seen.append(("left", id(one))))
    try:
        stepped = isolated(async_generator)()
        send(stepped)
        during = sys.get_asyncgen_hooks()
        address = id(stepped)
        del stepped
        gc.collect()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    assert seen == [("began", address), ("left", address)]
    assert during != hooks


def test_an_async_generator_that_has_begun_is_refused() -> None:
    stepped = async_generator()
    send(stepped)
    begun = isolated(stepped)
    with pytest.raises(RuntimeError, match="^isolated.. takes an async generator before its first step; <async.gen"):
        send(begun)
    assert send(stepped) == "inside"
    close(stepped)


def test_what_loops_ask_of_it() -> None:
    @isolated
    async def called() -> str:
        return "returned"

    assert (inspect if sys.version_info >= (3, 12) else asyncio).iscoroutinefunction(called)
    awaited = called()
    assert asyncio.iscoroutine(awaited)
    assert inspect.iscoroutine(awaited)
    assert finish(awaited) == "returned"
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        finish(awaited)


def test_a_generator_stepped_by_threads_of_an_executor() -> None:
    @isolated
    def rows() -> Iterator[tuple[int, object]]:
        token = VAR.set("inside")
        try:
            for number in range(3):
                yield number, VAR.get()
        finally:
            VAR.reset(token)

    async def main() -> None:
        loop, stepped = asyncio.get_running_loop(), rows()
        found = [await loop.run_in_executor(None, next, stepped, None) for _ in range(4)]
        assert found == [(0, "inside"), (1, "inside"), (2, "inside"), None]

    run(main)


# ---- made by others ----


def test_generators_of_other_types() -> None:
    class Counter(Generator[object, object, None]):
        def __init__(self) -> None:
            self.number = 0

        def send(self, value: object) -> object:
            VAR.set(self.number)
            self.number += 1
            return VAR.get()

        def throw(self, kind: Any, value: object = None, traceback: object = None) -> None:
            raise kind

    class AsyncCounter(AsyncGenerator[object, object]):
        def __init__(self) -> None:
            self.counter = Counter()

        async def asend(self, value: object) -> object:
            return self.counter.send(value)

        async def athrow(self, kind: Any, value: object = None, traceback: object = None) -> None:
            raise kind

    for kind in (Counter, AsyncCounter):
        stepped: Any = isolated(lambda: kind())()  # noqa: B023
        assert [send(stepped) for _ in range(3)] == [0, 1, 2]
        assert stepped.__name__ == kind.__name__
        close(stepped)
        assert VAR.get() == "default"


@types.coroutine
def waiting() -> Stepped:
    VAR.set("inside")
    return (yield "waits")


def test_a_generator_that_can_be_awaited() -> None:
    async def awaiting() -> object:
        return await isolated(waiting)()

    awaited = awaiting()
    assert awaited.send(None) == "waits"
    with pytest.raises(StopIteration, match="sent"):
        awaited.send("sent")
    assert VAR.get() == "default"


def test_a_generator_that_can_be_awaited_is_a_generator_still() -> None:
    assert list(isolated(waiting)()) == list(waiting())
    assert isinstance(isolated(waiting)(), Coroutine) is isinstance(waiting(), Coroutine)
    assert inspect.isawaitable(isolated(waiting)())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        isolated(waiting)()


@needs_room_at_the_end
@needs_room_to_leave
def test_where_the_stack_ends_there_is_one_error(unraisable: list[object]) -> None:
    @isolated
    def deeper() -> None:
        deeper()

    def from_depth(depth: int) -> object:
        return deeper() if depth == 0 else from_depth(depth - 1)

    for depth in range(6):
        with pytest.raises(RecursionError):
            from_depth(depth)
    assert unraisable == []


def interrupt_after_the_step(frame: types.FrameType, event: str, arg: Any) -> None:
    """As a signal may, when the step has been taken and is not yet told of."""
    compiled = event in ("c_return", "c_exception") and arg.__name__ == "run"
    if compiled or event == "return" and frame.f_code.co_name == "run" and "context_py" in frame.f_code.co_filename:
        raise KeyboardInterrupt


def test_after_an_interrupt_the_body_is_closed_in_its_own_context(function: Callable[..., Any]) -> None:
    VAR.set("outside")
    steps = [isolated(function)()]
    send(steps[0])
    VAR.set("changed outside")
    sys.setprofile(interrupt_after_the_step)
    try:
        with pytest.raises(KeyboardInterrupt):
            send(steps[0])
    finally:
        sys.setprofile(None)
    steps.clear()
    gc.collect()
    assert seen_at_the_end == ["outside"]
