"""Random bodies, stepped by random scripts, do the same isolated as without.

The bodies are generated as source, with `await`, `yield from` and `yield` in every `try`, `except` and `finally`, and
what they call is isolated as well. They set a variable at first, and log what it is wherever they are.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import types
import warnings
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from contextvars_cy import Context, ContextVar, isolated

VAR = ContextVar("VAR", default="default")
# Each example ends with a collection, so there are few.
FEW = settings(max_examples=8)


@pytest.fixture(autouse=True)
def short_collections() -> Iterator[None]:
    """Collections that leave out what was there before."""
    if sys.implementation.name != "cpython":
        yield
        return
    gc.freeze()
    yield
    gc.unfreeze()


# ---- bodies ----

Statement = tuple[Any, ...]
RAISED = ["KeyError", "GeneratorExit", "asyncio.CancelledError"]
# A loop may leave what it iterates over, which PyPy closes only if there is a `try` in it.
CALLS = ["call", "for"] if sys.implementation.name == "cpython" else ["call"]
CAUGHT = ["KeyError", "GeneratorExit", "Exception", "BaseException"]


def statements() -> st.SearchStrategy[Statement]:
    """A `try`, and in all its parts what waits, raises, returns and calls, and more of them."""
    plain: list[st.SearchStrategy[Statement]] = [st.just((kind,)) for kind in ("yield", "wait", "other", "return")]
    plain.append(st.tuples(st.just("raise"), st.sampled_from([*RAISED, ""])))

    def compound(inner: st.SearchStrategy[Statement]) -> st.SearchStrategy[Statement]:
        block = st.lists(inner, min_size=1, max_size=3)
        return st.one_of(trying(inner, inner), st.tuples(st.sampled_from(CALLS), block))

    def trying(inner: st.SearchStrategy[Statement], last: st.SearchStrategy[Statement]) -> st.SearchStrategy[Statement]:
        block = st.lists(inner, min_size=1, max_size=3)
        handlers = st.lists(st.tuples(st.sampled_from(CAUGHT), block), max_size=2)
        return st.tuples(st.just("try"), block, handlers, st.lists(last, max_size=2))

    return trying(st.recursive(st.one_of(plain), compound, max_leaves=5), st.one_of(plain))


class Source:
    """The source of a body: a function `body(log)` of one of the four kinds."""

    # How each kind yields, waits for a coroutine or generator, for an object of another type, and calls.
    KINDS = {
        "generator": ("def", "(yield {n})", "(yield from steps({n}))", "(yield from Waited({n}, log))", "yield from"),
        "coroutine": ("async def", "(await Yielded({n}))", "(await wait({n}))", "(await Waited({n}, log))", "await"),
        "async generator": ("async def", "(yield {n})", "(await wait({n}))", "(await Waited({n}, log))", "await"),
    }

    def __init__(self, kind: str, statement: Statement) -> None:
        self.numbers = iter(range(1000))
        self.lines: list[str] = []
        self.function("body", kind, [statement], 0, yields=True)

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text.replace("{n}", str(next(self.numbers)) if "{n}" in text else ""))

    def function(self, name: str, kind: str, block: list[Statement], depth: int, yields: bool = False) -> None:
        define, yielding, *_ = self.KINDS[kind]
        self.line(depth, "@isolated")
        if kind == "generator":
            self.line(depth, "@made")
        self.line(depth, f"{define} {name}(log):")
        self.line(depth + 1, "VAR.set('inside')")
        self.block(kind, block, depth + 1)
        if yields:
            # So that it is of its kind.
            self.line(depth + 1, f"log({yielding})")

    def block(self, kind: str, block: list[Statement], depth: int) -> None:
        if not block:
            self.line(depth, "pass")
        for statement in block:
            getattr(self, "write_" + statement[0])(kind, depth, *statement[1:])

    def write_yield(self, kind: str, depth: int) -> None:
        self.line(depth, f"log({self.KINDS[kind][1]})")

    def write_wait(self, kind: str, depth: int) -> None:
        self.line(depth, f"log({self.KINDS[kind][2]})")

    def write_other(self, kind: str, depth: int) -> None:
        self.line(depth, f"log({self.KINDS[kind][3]})")

    def write_return(self, kind: str, depth: int) -> None:
        self.line(depth, "return" if kind == "async generator" else "return {n}")

    def write_raise(self, kind: str, depth: int, error: str) -> None:
        self.line(depth, f"raise {error}" + ("({n})" if error else ""))

    def write_try(
        self,
        kind: str,
        depth: int,
        block: list[Statement],
        handlers: list[tuple[str, list[Statement]]],
        last: list[Statement],
    ) -> None:
        self.line(depth, "try:")
        self.block(kind, block, depth + 1)
        for error, handler in handlers:
            self.line(depth, f"except {error} as error:")
            self.line(depth + 1, "log(error)")
            self.block(kind, handler, depth + 1)
        if last or not handlers:
            self.line(depth, "finally:")
            self.line(depth + 1, "log('finally')")
            self.block(kind, last, depth + 1)

    def write_call(self, kind: str, depth: int, block: list[Statement]) -> None:
        number = next(self.numbers)
        called = "coroutine" if kind == "async generator" else kind
        self.function(f"called{number}", called, block, depth, yields=True)
        self.line(depth, f"log(({self.KINDS[kind][4]} called{number}(log)))")

    def write_for(self, kind: str, depth: int, block: list[Statement]) -> None:
        number = next(self.numbers)
        called = "generator" if kind == "generator" else "async generator"
        self.function(f"called{number}", called, block, depth, yields=True)
        self.line(depth, f"{'for' if kind == 'generator' else 'async for'} item in called{number}(log):")
        self.line(depth + 1, "log(item)")
        self.write_yield(kind, depth + 1)

    def compile(self, **names: object) -> Any:
        namespace = {**globals(), "isolated": isolated, "made": unchanged, **names}
        with warnings.catch_warnings():
            # Of `return` in a `finally`.
            warnings.simplefilter("ignore", SyntaxWarning)
            exec("\n".join(self.lines), namespace)
        return namespace["body"]


def unchanged(function: object) -> object:
    return function


class Waited:
    """What is waited for, of a type that is no generator, as a future is."""

    def __init__(self, value: object, log: Callable[[object], object]) -> None:
        self.value = value
        self.log = log

    def __iter__(self) -> Waited:
        return self

    __await__ = __iter__

    def __next__(self) -> object:
        return self.send(None)

    def send(self, value: object) -> object:
        if self.value is None:
            raise StopIteration(value)
        value, self.value = self.value, None
        return value

    def throw(self, kind: Any, value: Any = None, traceback: object = None) -> None:
        error = kind if value is None else value
        self.log(error)
        raise error

    def close(self) -> None:
        self.log("closed")


class Yielded:
    def __init__(self, value: object) -> None:
        self.value = value

    def __await__(self) -> Generator[object, object, object]:
        return (yield self.value)


def steps(value: object) -> Generator[object, object, object]:
    return (yield value)


async def wait(value: object) -> object:
    return await Yielded(value)


def summary(value: object) -> object:
    """What can be compared of a value, of an exception with all those that it came of."""
    found = []
    while isinstance(value, BaseException):
        found.append((type(value), value.args))
        # Of what is thrown in, PyPy asks whoever throws, and not the generator, what it came of.
        value = value.__context__ if sys.implementation.name == "cpython" else None
    return found or value


class Log(list[Any]):
    """What has happened."""

    def __call__(self, value: object) -> None:
        self.append((VAR.get(), summary(value)))

    def outcome(self, call: Callable[..., Any], *args: Any) -> Any:
        # A fresh exception, because it remembers who has handled it.
        args = [arg("thrown") if isinstance(arg, type) else arg for arg in args]  # type: ignore[assignment]
        try:
            result = call(*args)
        except BaseException as error:
            # Not kept, nor its frames.
            self.append(("raised", summary(error)))
            del args
            return None
        self.append(("returned", result))
        return result

    def finaliser(self, about: sys.UnraisableHookArgs) -> None:
        self.append(("not raisable", type(about.exc_value), str(about.exc_value)))

    def until_it_is_asked_to_close_again(self) -> list[Any]:
        """Without what comes after a body has gone on where it was finalised.

        It is in a frame that is no more, and with the isolated one, which is two, it is asked again.
        """
        for index, entry in enumerate(self):
            if entry[0] == "not raisable" and "ignored GeneratorExit" in entry[2]:
                return self[:index]
        return self[:]


Make = Callable[[Log], Any]


def follow(make: Make, take: Callable[..., None], *args: object) -> list[Any]:
    """The log of the steps that are taken, and of the finaliser in the end."""
    log = Log()
    hook, sys.unraisablehook = sys.unraisablehook, log.finaliser
    try:
        with Context(), warnings.catch_warnings():
            # Of steps that are not taken.
            warnings.simplefilter("ignore")
            take(make, log, *args)
            # What is left in reference cycles too.
            gc.collect()
    finally:
        sys.unraisablehook = hook
    return log.until_it_is_asked_to_close_again()


def compare(source: Source, take: Callable[..., None], *args: object, **names: object) -> None:
    note("\n".join(source.lines))
    plain = follow(source.compile(isolated=unchanged, **names), take, *args)
    note("\n".join(map(str, plain)))
    assert follow(source.compile(**names), take, *args) == plain


# ---- generators and coroutines ----

Script = list[tuple[Any, ...]]
THROWN = [KeyError, GeneratorExit, asyncio.CancelledError]
STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([None, None, "value"])),
    st.tuples(st.just("throw"), st.sampled_from(THROWN)),
    st.just(("close",)),
)


def step(make: Make, log: Log, script: Script) -> None:
    stepped = make(log)
    log.outcome(stepped.send, None)
    for name, *args in script:
        log.outcome(getattr(stepped, name), *args)
    close(stepped, log)


def close(stepped: Any, log: Log) -> None:
    # Each time that it goes on instead, it comes further.
    log.outcome(stepped.close)
    while log[-1][0] == "raised" and "ignored GeneratorExit" in str(log[-1]):
        log.outcome(stepped.close)


def step_from_another(make: Make, log: Log, script: Script) -> None:
    """In a generator that delegates to it."""

    def another(log: Log) -> Generator[Any, Any, None]:
        stepped = make(log)
        try:
            log.append(("result", (yield from stepped)))
        except BaseException as error:
            log.append(("error", summary(error)))
            raise
        finally:
            close(stepped, log)

    step(another, log, script)


def step_awaited(make: Make, log: Log, script: Script) -> None:
    """In a coroutine that awaits it."""

    async def another(log: Log) -> None:
        stepped = make(log)
        try:
            log.append(("result", await stepped))
        except BaseException as error:
            log.append(("error", summary(error)))
            raise
        finally:
            close(stepped, log)

    step(another, log, script)


@FEW
@given(statements(), st.lists(STEPS, max_size=8))
@pytest.mark.parametrize("take", [step, step_from_another])
def test_a_generator_is_the_same_as_without(take: Callable[..., None], statement: Statement, script: Script) -> None:
    compare(Source("generator", statement), take, script)


@FEW
@given(statements(), st.lists(STEPS, max_size=8))
@pytest.mark.parametrize("take", [step, step_from_another, step_awaited])
def test_a_generator_that_can_be_awaited_is_the_same_as_without(
    take: Callable[..., None], statement: Statement, script: Script
) -> None:
    compare(Source("generator", statement), take, script, made=types.coroutine)


@FEW
@given(statements(), st.lists(STEPS, max_size=8))
@pytest.mark.parametrize("take", [step, step_awaited])
def test_a_coroutine_is_the_same_as_without(take: Callable[..., None], statement: Statement, script: Script) -> None:
    compare(Source("coroutine", statement), take, script)


# ---- async generators ----

ASYNC_STEPS = st.one_of(
    st.tuples(st.just("asend"), st.sampled_from([None, None, "value"])),
    st.tuples(st.just("athrow"), st.sampled_from(THROWN)),
    st.just(("aclose",)),
    *[st.tuples(st.just("send"), st.integers(0, 3), st.sampled_from([None, None, "value"]))] * 3,
    st.tuples(st.just("throw"), st.integers(0, 3), st.sampled_from(THROWN)),
    st.tuples(st.just("close"), st.integers(0, 3)),
)


def step_async(make: Make, log: Log, script: Script) -> None:
    """Make steps and take them, the latest and those that have been left."""
    stepped = make(log)
    begun: list[Any] = []
    for name, *args in script:
        if name in ("asend", "athrow", "aclose"):
            args = [arg("thrown") if isinstance(arg, type) else arg for arg in args]
            begun.insert(0, getattr(stepped, name)(*args))
            log.outcome(begun[0].send, None)
        elif args[0] < len(begun):
            log.outcome(getattr(begun[args[0]], name), *args[1:])
    for taken in begun:
        finish(taken, log)
    close_async(stepped, log)


def finish(taken: Any, log: Log) -> None:
    log.outcome(taken.send, None)
    while log[-1][0] == "returned":
        log.outcome(taken.send, None)


def close_async(stepped: Any, log: Log) -> None:
    finish(stepped.aclose(), log)
    while "ignored GeneratorExit" in str(log[-1]):
        finish(stepped.aclose(), log)


@FEW
@given(statements(), st.lists(ASYNC_STEPS, max_size=12))
def test_an_async_generator_is_the_same_as_without(statement: Statement, script: Script) -> None:
    compare(Source("async generator", statement), step_async, script)


# ---- under asyncio ----


class Paused:
    """Awaited, it lets the loop run once, and gives the value."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __await__(self) -> Generator[None, None, object]:
        yield
        return self.value


async def pause(value: object) -> object:
    await asyncio.sleep(0)
    return value


def future(value: object, log: Log) -> asyncio.Future[object]:
    waited = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: waited.cancelled() or waited.set_result(value))  # type: ignore[func-returns-value]
    return waited


WAITS = {"Yielded": Paused, "wait": pause, "Waited": future}


async def take_in_a_task(log: Log, awaitable: Awaitable[object], cancelled_after: list[int]) -> None:
    """Await it in a task, and cancel that once the loop has run so often."""

    async def await_it() -> object:
        return await awaitable

    task = asyncio.create_task(await_it())
    for count in cancelled_after:
        for _ in range(count):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait({task})
    log.outcome(task.result)


class InOrder(weakref.WeakKeyDictionary[Any, None]):
    """For a loop's asynchronous generators, which it closes in the end: in the order of a set, that of addresses."""

    def add(self, generator: object) -> None:
        self[generator] = None

    def discard(self, generator: object) -> None:
        self.pop(generator, None)


def run(main: Callable[..., Coroutine[Any, Any, object]], make: Make, log: Log, *args: object) -> None:
    """Run it with another value outside, if the bodies are isolated: they log the one inside."""
    outside = "outside" if hasattr(make, "__wrapped__") else "inside"

    async def with_value() -> None:
        asyncio.get_running_loop()._asyncgens = InOrder()  # type: ignore[attr-defined]
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, about: log.append(("told to the loop", summary(about.get("exception", about["message"]))))
        )
        await main(make, log, *args)
        assert VAR.get() == outside

    # The loop closes in this one what is left to it.
    VAR.set(outside)
    asyncio.run(with_value())


async def cancel_repeatedly(make: Make, log: Log, cancelled_after: list[int]) -> None:
    await take_in_a_task(log, make(log), cancelled_after)


def run_and_leave(make: Make, log: Log, *args: object) -> None:
    kept: list[object] = []
    run(step_in_tasks, make, log, kept, *args)


async def step_in_tasks(make: Make, log: Log, kept: list[object], script: Script, end: str) -> None:
    stepped = make(log)
    for name, *args, cancelled_after in script:
        args = [arg("thrown") if isinstance(arg, type) else arg for arg in args]
        await take_in_a_task(log, getattr(stepped, name)(*args), cancelled_after)
    if end == "closed":
        await take_in_a_task(log, stepped.aclose(), [])
    elif end == "left":
        # The loop closes it when it ends.
        kept.append(stepped)
        return
    del stepped
    gc.collect()
    for _ in range(40):
        await asyncio.sleep(0)
    log.append("ended")


# PyPy finalises at some later time what nobody holds.
ENDS = ["closed", "dropped", "left"] if sys.implementation.name == "cpython" else ["closed", "left"]
CANCELLED_AFTER = st.lists(st.integers(0, 4), max_size=3)
STEPS_IN_TASKS = st.one_of(
    st.tuples(st.just("asend"), st.sampled_from([None, None, "value"]), CANCELLED_AFTER),
    st.tuples(st.just("athrow"), st.sampled_from(THROWN), CANCELLED_AFTER),
    st.tuples(st.just("aclose"), CANCELLED_AFTER),
)


@FEW
@given(statements(), CANCELLED_AFTER)
def test_a_task_is_the_same_as_without(statement: Statement, cancelled_after: list[int]) -> None:
    compare(Source("coroutine", statement), functools.partial(run, cancel_repeatedly), cancelled_after, **WAITS)


@FEW
@given(
    statements(),
    st.lists(STEPS_IN_TASKS, max_size=6),
    st.sampled_from(ENDS),
)
def test_an_async_generator_under_asyncio_is_the_same_as_without(
    statement: Statement, script: Script, end: str
) -> None:
    script.insert(0, ("asend", None, []))
    compare(Source("async generator", statement), run_and_leave, script, end, **WAITS)
