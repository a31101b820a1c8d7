"""Threads and thread pools run their work in the Context of whoever wants it done: the same on every Python."""

from __future__ import annotations

import asyncio
import concurrent.futures
import decimal
import functools
import gc
import itertools
import os
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytest

from collected import at_each_allocation
from contextvars_cy import (
    Context,
    ContextVar,
    WatchEvent,
    assign,
    bind,
    copy_context,
    current_context,
    executors,
    host,
    watch,
)
from contextvars_cy.executors import Thread, ThreadPoolExecutor, run_in_executor
from interpreters import sets_a_trace_function
from refusals import refuses

T = TypeVar("T", bound=threading.Thread)

VARIABLES: list[ContextVar[Any]] = [ContextVar(name, default=f"{name} unset") for name in ("one", "two")]
ONE, TWO = VARIABLES


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    with Context():
        yield


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """A pool whose only thread was started by somebody with other values."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        with assign({ONE: "another's", TWO: "another's"}):
            pool.submit(int).result()
        yield pool


# ---- the pool ----


def test_a_call_sees_the_values_of_when_it_was_submitted(pool: ThreadPoolExecutor) -> None:
    started, go_on = threading.Event(), threading.Event()
    pool.submit(lambda: [started.set(), go_on.wait()])  # type: ignore[func-returns-value]
    started.wait()
    ONE.set("submitted")
    waiting = pool.submit(ONE.get)
    ONE.set("later")
    go_on.set()
    assert [waiting.result(), pool.submit(ONE.get).result(), ONE.get()] == ["submitted", "later", "later"]
    assert pool.submit(TWO.get).result() == "two unset"


def test_nothing_comes_back_and_no_call_sees_another(pool: ThreadPoolExecutor) -> None:
    assert pool.submit(ONE.set, 1).result().old_value is pool.submit(ONE.set, 2).result().old_value
    assert ONE.get() == "one unset"


def test_arguments_and_errors_pass(pool: ThreadPoolExecutor) -> None:
    assert pool.submit(dict, [("a", 1)], fn=2, self=3).result() == {"a": 1, "fn": 2, "self": 3}
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result()
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)


def test_a_pool_in_a_pool(pool: ThreadPoolExecutor) -> None:
    def outer() -> object:
        ONE.set("outer")
        with ThreadPoolExecutor(1) as inner:
            return inner.submit(ONE.get).result()

    assert pool.submit(outer).result() == "outer"


def test_a_context_is_let_go_when_the_call_is_done(pool: ThreadPoolExecutor) -> None:
    class Value:
        pass

    value = Value()
    found = weakref.ref(value)
    with ONE.set(value):
        future = pool.submit(int)
    future.result()
    pool.submit(int).result()
    del value
    gc.collect()
    assert found() is None


@pytest.mark.parametrize("options", [{}, {"timeout": 60}, {"chunksize": 2}])
def test_map_has_a_copy_for_each_call(pool: ThreadPoolExecutor, options: dict[str, Any]) -> None:
    def exchange(left: int, right: str) -> tuple[object, str]:
        return ONE.set(left).old_value, right

    ONE.set("mapped")
    results = pool.map(exchange, [1, 2, 3], "abc", **options)
    ONE.set("later")
    assert list(results) == [("mapped", "a"), ("mapped", "b"), ("mapped", "c")]


@pytest.mark.parametrize("options", [{}] + [{"buffersize": 1}] * (sys.version_info >= (3, 14)), ids=repr)
def test_map_is_of_the_context_in_which_it_was_called(pool: ThreadPoolExecutor, options: dict[str, Any]) -> None:
    def numbers() -> Iterator[int]:
        for number in range(3):
            yield number
            ONE.set("set by the iterable")

    ONE.set("mapped")
    results = pool.map(lambda _: ONE.get(), numbers(), **options)
    assert Context().run(list, results) == ["mapped"] * 3


def test_the_initializer_runs_where_the_pool_was_made() -> None:
    seen = []

    def start(word: str) -> None:
        seen.append((word, ONE.get(), TWO.get()))
        TWO.set("initialized")

    ONE.set("maker")
    with ThreadPoolExecutor(2, "worker", start, ("hello",)) as pool:
        with ONE.set("submitter"):
            barrier = threading.Barrier(2)
            futures = [pool.submit(lambda: [barrier.wait(), TWO.get()]) for _ in range(2)]
            assert [future.result()[1] for future in futures] == ["two unset"] * 2
    assert seen == [("hello", "maker", "two unset")] * 2


def test_an_initializer_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        ThreadPoolExecutor(1, initializer="no function")  # type: ignore[arg-type]


def test_an_initializer_that_fails_breaks_the_pool(caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(1, initializer=divmod, initargs=(1, 0)) as pool:
        with pytest.raises(concurrent.futures.thread.BrokenThreadPool):
            pool.submit(int).result()
    assert "ZeroDivisionError" in caplog.text


def test_callbacks_of_futures_are_bound(pool: ThreadPoolExecutor) -> None:
    go_on, seen = threading.Event(), []
    future = pool.submit(go_on.wait)
    with ONE.set("bound"):
        future.add_done_callback(bind(lambda _: seen.append(ONE.get())))
    go_on.set()
    pool.submit(int).result()
    assert seen == ["bound"]


def test_tasks_of_two_threads_are_not_mixed_up(quick_switches: None) -> None:
    def client(name: str) -> None:
        for number in range(100):
            ONE.set((name, number))
            assert pool.submit(ONE.get).result() == (name, number)
        done.append(name)

    done: list[str] = []
    with ThreadPoolExecutor(3) as pool:
        threads = [threading.Thread(target=client, args=[name]) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(done) == list("abcd")


# ---- the thread ----


def run_thread(thread: T) -> T:
    thread.start()
    thread.join()
    assert not thread.is_alive()
    return thread


def test_a_thread_runs_in_a_copy_of_the_context_of_its_start() -> None:
    seen = []
    ONE.set("made")
    thread = Thread(target=lambda: seen.extend([ONE.get(), ONE.set("thread").old_value, ONE.get()]))
    ONE.set("started")
    run_thread(thread)
    assert seen == ["started", "started", "thread"]
    assert ONE.get() == "started"


def test_a_thread_runs_in_the_context_that_it_is_given() -> None:
    context, seen = Context(), []
    ONE.set("starter")
    thread = Thread(
        target=lambda: seen.extend([current_context() is context, ONE.get(), ONE.set("thread")]), context=context
    )
    run_thread(thread)
    assert seen[:2] == [True, "one unset"]
    assert (context[ONE], ONE.get()) == ("thread", "starter")
    # And is done with it.
    assert context.run(ONE.get) == "thread"


def test_arguments_are_those_of_the_thread() -> None:
    seen = []
    thread = Thread(None, lambda *args, **kwargs: seen.append((args, kwargs)), "name", [1], {"a": 2}, daemon=True)
    assert (thread.name, thread.daemon) == ("name", True)
    run_thread(thread)
    assert seen == [((1,), {"a": 2})]
    run_thread(Thread())


class Worker(Thread):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[object] = []

    def run(self) -> None:
        super().run()
        self.seen.append(ONE.get())


class MixedIn:
    def run(self) -> None:
        self.seen.append("mixed in")  # type: ignore[attr-defined]
        super().run()  # type: ignore[misc]


class MixedWorker(MixedIn, Worker):
    pass


def test_the_run_of_a_subclass_runs_there() -> None:
    ONE.set("starter")
    assert run_thread(Worker()).seen == ["starter"]
    assert run_thread(MixedWorker(target=ONE.set, args=["target"])).seen == ["mixed in", "target"]
    worker = Worker()
    worker.run = lambda: worker.seen.append(("assigned", ONE.get()))  # type: ignore[method-assign]
    assert run_thread(worker).seen == [("assigned", "starter")]


def test_threads_of_threads() -> None:
    def outer() -> None:
        ONE.set("outer")
        run_thread(Thread(target=lambda: seen.append(ONE.get())))

    seen: list[object] = []
    run_thread(Thread(target=outer))
    assert seen == ["outer"]


def test_a_thread_starts_once() -> None:
    go_on, seen = threading.Event(), []
    thread = Thread(target=lambda: [go_on.wait(), seen.append(ONE.get())])  # type: ignore[func-returns-value]
    ONE.set("first")
    thread.start()
    ONE.set("second")
    with pytest.raises(RuntimeError, match="threads can only be started once"):
        thread.start()
    go_on.set()
    thread.join()
    with pytest.raises(RuntimeError, match="threads can only be started once"):
        thread.start()
    assert seen == ["first"]
    assert "run" not in vars(thread)


def interrupt(function: Callable[[], object], moment: int) -> bool:
    """Call the function, with a KeyboardInterrupt before a line of our module, or a call of its; whether one came."""

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        nonlocal moment
        ours = frame.f_code.co_filename == executors.__file__
        if event == "line" or event == "call" and frame.f_back.f_code.co_filename == executors.__file__:  # type: ignore[union-attr]
            moment -= 1
            if moment == 0:
                raise KeyboardInterrupt
        return trace if ours else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return moment <= 0


@sets_a_trace_function
@pytest.mark.parametrize("given", [False, True])
def test_a_start_that_was_interrupted_can_be_tried_again(given: bool) -> None:
    for moment in itertools.count(1):
        seen: list[object] = []
        ONE.set("first")
        context = copy_context() if given else None
        thread = Thread(target=lambda seen=seen: seen.append(ONE.get()), context=context)
        came = interrupt(thread.start, moment)
        ONE.set("second")
        if not came:
            break
        try:
            thread.start()
        except RuntimeError:
            # It was running already, and had only to be waited for.
            assert thread.ident
        thread.join()
        assert seen == ["first"] if given else seen in (["first"], ["second"])
    assert moment > 5


@pytest.mark.parametrize("given", [False, True])
def test_a_start_that_failed_can_be_tried_again(monkeypatch: pytest.MonkeyPatch, given: bool) -> None:
    def fail(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    seen = []
    ONE.set("first")
    context = copy_context() if given else None
    thread = Thread(target=lambda: seen.append(ONE.get()), context=context)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            thread.start()
    ONE.set("second")
    run_thread(thread)
    assert seen == ["first" if given else "second"]


def test_start_may_be_wrapped_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """As error trackers do it: they look for the function behind `run`, and put one of theirs there."""
    start, seen = threading.Thread.start, []

    def wrap(run: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(run)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            seen.append("wrapped")
            return run(threading.current_thread(), *args[1:], **kwargs)

        return wrapper

    def start_wrapped(thread: Thread) -> None:
        thread.run = wrap(getattr(thread.run, "__func__", thread.run))  # type: ignore[method-assign]
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_wrapped)
    ONE.set("starter")
    run_thread(Thread(target=lambda: seen.append(ONE.get())))
    assert run_thread(Worker()).seen == ["starter"]
    assert seen == ["wrapped", "starter", "wrapped"]


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    errors: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: errors.append(repr(arguments.exc_value)))
    return errors


def test_errors_are_reported(reported: list[str]) -> None:
    context = Context()
    run_thread(Thread(target=divmod, args=(1, 0), context=context))
    run_thread(Thread(target=int, context=current_context()))
    assert len(reported) == 2
    assert reported[0].startswith("ZeroDivisionError")
    assert reported[1].startswith("RuntimeError") and "is already entered" in reported[1]
    assert context.run(int) == 0


@pytest.mark.parametrize("wrong", [{}, 1, "context"], ids=repr)
def test_only_a_context_is_a_context(wrong: Any) -> None:
    refusal = f"Thread() takes a Context of contextvars_cy as context, not {wrong!r}"
    with pytest.raises(TypeError, match=re.escape(refusal)):
        Thread(context=wrong)


@pytest.mark.parametrize("wrong", [1, "target"], ids=repr)
def test_only_what_can_be_called_is_called(wrong: Any, pool: ThreadPoolExecutor) -> None:
    for refused, call in [
        ("submit() takes a callable", lambda: pool.submit(wrong)),
        ("map() takes a callable", lambda: pool.map(wrong, [1])),
        ("Thread() takes a callable as target", lambda: Thread(target=wrong)),
        ("run_in_executor() takes a callable second", lambda: run_in_executor(None, wrong)),
        ("run_in_executor() takes an executor, or None for the loop's own, first", lambda: run_in_executor(wrong, int)),
    ]:
        with refuses(TypeError, f"{refused}, not {wrong!r}"):
            call()  # type: ignore[no-untyped-call]


def test_a_thread_that_is_done_is_collected_with_its_context() -> None:
    class Value:
        pass

    value = Value()
    found = weakref.ref(value)
    with ONE.set(value):
        run_thread(Thread(target=int))
    del value
    gc.collect()
    assert found() is None


# ---- asyncio ----


@pytest.mark.parametrize("kind", [None, concurrent.futures.ThreadPoolExecutor, ThreadPoolExecutor])
def test_run_in_executor(kind: type[concurrent.futures.ThreadPoolExecutor] | None) -> None:
    async def main() -> list[object]:
        executor: Any = kind and kind(1)
        ONE.set("awaited")
        future = run_in_executor(executor, lambda word: (word, ONE.set("thread").old_value), "hello")
        assert asyncio.isfuture(future)
        ONE.set("later")
        seen = [await future, ONE.get()]
        with pytest.raises(ZeroDivisionError):
            await run_in_executor(executor, divmod, 1, 0)
        if executor:
            executor.shutdown()
        return seen

    assert asyncio.run(main()) == [("hello", "awaited"), "later"]


def test_the_default_executor_of_a_loop() -> None:
    async def main() -> tuple[object, object]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        ONE.set("awaited")
        return await loop.run_in_executor(None, ONE.get), await asyncio.to_thread(ONE.get)

    assert asyncio.run(main()) == ("awaited", "awaited")


def test_whoever_waits_may_be_cancelled() -> None:
    async def main() -> object:
        with ThreadPoolExecutor(1) as pool:
            go_on = threading.Event()
            running = pool.submit(go_on.wait)
            waiting = run_in_executor(pool, ONE.get)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(waiting, 0.01)
            assert waiting.cancelled()
            go_on.set()
            await asyncio.wrap_future(running)
            ONE.set("after")
            return await run_in_executor(pool, ONE.get)

    assert asyncio.run(main()) == "after"


def test_without_a_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        run_in_executor(None, int)


# ---- decimal, whose context is mutable, and rides in a native Context ----


def change_precision(precision: int) -> int:
    before = decimal.getcontext().prec
    decimal.getcontext().prec = precision
    return before


def in_a_pool(function: Callable[..., object], *args: object) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def by_map(function: Callable[..., object], *args: object) -> object:
    with ThreadPoolExecutor(1) as pool:
        return list(pool.map(function, *([argument] for argument in args)))[0]


def in_a_thread(function: Callable[..., object], *args: object) -> object:
    seen: list[object] = []
    run_thread(Thread(target=lambda: seen.append(function(*args))))
    return seen[0]


def under_a_loop(function: Callable[..., object], *args: object) -> object:
    async def main() -> object:
        return await run_in_executor(None, function, *args)

    return asyncio.run(main())


def by_bind(function: Callable[..., object], *args: object) -> object:
    bound = bind(function)
    seen: list[object] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: seen.append(bound(*args)))
        run_thread(thread)
    # The first call has changed nothing for the second.
    assert seen[0] == seen[1]
    return seen[0]


def in_an_initializer(function: Callable[..., object], *args: object) -> object:
    seen: list[object] = []
    with ThreadPoolExecutor(1, initializer=lambda: seen.append(function(*args))) as pool:
        pool.submit(int).result()
    return seen[0]


@pytest.mark.parametrize("way", [in_a_pool, by_map, in_a_thread, under_a_loop, by_bind, in_an_initializer])
def test_a_thread_has_a_copy_of_the_context_of_decimal(way: Callable[..., object]) -> None:
    with decimal.localcontext() as context:
        context.prec = 50
        # On the thread host nothing native is inherited.
        assert way(change_precision, 7) == (50 if host == "native" else decimal.DefaultContext.prec)
        assert decimal.getcontext().prec == 50
    assert decimal.getcontext().prec == decimal.DefaultContext.prec


def test_the_context_of_decimal_is_that_of_when_it_was_submitted(pool: ThreadPoolExecutor) -> None:
    go_on = threading.Event()
    pool.submit(go_on.wait)
    with decimal.localcontext() as context:
        context.prec = 50
        bound, future = bind(change_precision), pool.submit(change_precision, 7)
        context.prec = 5
        go_on.set()
        expected = 50 if host == "native" else decimal.DefaultContext.prec
        assert future.result() == expected
        assert bound(7) == (expected if host == "native" else 5)


def test_with_only_some_variables_decimal_begins_anew() -> None:
    with decimal.localcontext() as context:
        context.prec = 50
        bound = bind(change_precision, only=[ONE])
        assert [bound(7), bound(7)] == ([decimal.DefaultContext.prec] * 2 if host == "native" else [50, 7])


def test_a_finaliser_that_sets_while_the_context_of_decimal_is_copied() -> None:
    def finalise() -> None:
        ONE.set([TWO.get()])
        TWO.set(len(ONE.get()))

    decimal.getcontext()
    ONE.set([1])
    bound = bind(ONE.get)
    at_each_allocation(lambda: [bound() for _ in range(20)], finalise)
    assert bound() == [1] and TWO.get() == 1


def test_nobody_is_told_of_it(pool: ThreadPoolExecutor) -> None:
    events: list[WatchEvent] = []
    with watch(events.append):
        bound = bind(int)
        kinds = [event.kind for event in events if event.kind != "switch"]
        bound()
    # But of the copies that are seen. From Python 3.14 on the interpreter may tell of switches too.
    assert kinds == ["copy"]
    assert [event.kind for event in events if event.kind != "switch"] == ["copy", "copy", "enter", "exit"]


# ---- whatever the interpreter does ----

PROGRAM = """
from contextvars_cy import ContextVar, copy_context
from contextvars_cy.executors import Thread, ThreadPoolExecutor

variable, other = ContextVar("variable", default="unset"), ContextVar("other", default="unset")
seen = []
other.set("another's")
with ThreadPoolExecutor(1) as pool:
    copy_context().run(pool.submit, int).result()
    variable.set("submitter")
    seen.append(pool.submit(variable.get).result())
for options in ({}, {"context": copy_context()}):
    thread = Thread(target=lambda: seen.append(variable.set("thread").old_value), **options)
    thread.start()
    thread.join()
print(*seen, variable.get())
"""


@pytest.mark.parametrize("flag", ["0", "1"] if sys.version_info >= (3, 14) else [None])
def test_it_is_the_same_where_the_interpreter_has_threads_inherit(flag: str | None) -> None:
    options = [] if flag is None else ["-X", f"thread_inherit_context={flag}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, *options, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("submitter submitter submitter submitter\n", "")
