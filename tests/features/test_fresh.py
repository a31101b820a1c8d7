"""In a fresh Context only what is kept has values, and nothing that is set there is left outside."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, assign, copy_context, current_context, fresh, host, watch

TENANT: ContextVar[Any] = ContextVar("tenant", default="-")
USER: ContextVar[Any] = ContextVar("user", default="nobody")
SEEN: ContextVar[list[int]] = ContextVar("seen", default_factory=list)


@pytest.fixture(autouse=True)
def signed_in() -> Iterator[None]:
    with copy_context():
        assign({TENANT: "acme", USER: "ada"})
        SEEN.get().append(1)
        yield


def seen() -> tuple[Any, ...]:
    return TENANT.get(), USER.get(), SEEN.is_set()


KEPT = ("acme", "nobody", False)
OUTSIDE = ("acme", "ada", True)


def leave_behind() -> None:
    assign({TENANT: "left", USER: "left"})
    SEEN.get().append(2)


# ---- blocks ----


def test_a_block_has_what_is_kept_and_leaves_nothing() -> None:
    outside = current_context()
    with fresh(keep=[TENANT]) as context:
        assert current_context() is context is not outside
        assert dict(context) == {TENANT: "acme"}
        leave_behind()
    assert current_context() is outside
    assert seen() == OUTSIDE and SEEN.get() == [1]
    assert context[USER] == "left"


def test_without_keep_nothing_has_a_value() -> None:
    with fresh() as context:
        assert len(context) == 0 and seen() == ("-", "nobody", False)


def test_what_is_unset_stays_unset() -> None:
    with USER.unset(), fresh([USER, TENANT]):
        assert seen() == KEPT and not USER.is_set()


def test_the_values_are_those_of_the_moment_of_entering() -> None:
    guard = fresh(keep=iter([TENANT]))
    for tenant in ("globex", "initech"):
        with TENANT.set(tenant), guard:
            assert seen() == (tenant, "nobody", False)


def test_an_error_ends_it() -> None:
    with pytest.raises(ZeroDivisionError), fresh():
        leave_behind()
        1 / 0
    assert seen() == OUTSIDE


def test_one_object_is_entered_within_itself() -> None:
    guard = fresh(keep=[TENANT])
    with guard as outer, contextlib.ExitStack() as stack:
        TENANT.set("outer")
        inner = stack.enter_context(guard)
        assert seen() == ("outer", "nobody", False) and inner is not outer
        stack.close()
        assert current_context() is outer
    assert seen() == OUTSIDE


def test_one_object_serves_many_threads_at_once() -> None:
    guard, both = fresh(keep=[TENANT]), threading.Barrier(4)

    def work(tenant: str) -> tuple[Any, ...]:
        with TENANT.set(tenant):
            both.wait()
            with guard:
                both.wait()
                found = seen()
                USER.set(tenant)
                both.wait()
            assert not USER.is_set()
        return found

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(work, "abcd")] == [(name, "nobody", False) for name in "abcd"]


def test_a_block_that_ends_elsewhere_is_an_error() -> None:
    guard = fresh()
    with pytest.raises(RuntimeError, match="ends in another Context than it began in"):
        guard.__exit__(None, None, None)

    def numbers() -> Generator[int, None, None]:
        with fresh():
            yield 1

    outside = current_context()
    suspended = numbers()
    next(suspended)
    entered = current_context()
    with Context(), pytest.raises(RuntimeError, match="^cannot exit context: thread state references a different"):
        suspended.close()
    assert current_context() is entered
    entered.__exit__(None, None, None)
    assert current_context() is outside


def test_watchers_are_told() -> None:
    told = []
    with watch(lambda event: told.append(event.kind)), fresh():
        pass
    assert told[-2:] == ["enter", "exit"]


# ---- functions, and what takes steps ----


def test_each_call_of_a_function_has_its_own() -> None:
    @fresh(keep=[TENANT])
    def work(name: str, *, also: int = 0) -> Any:
        """Do it."""
        assert seen() == KEPT
        leave_behind()
        return name, also

    assert work("a", also=1) == ("a", 1)
    TENANT.set("acme")
    assert work("b") == ("b", 0)
    assert seen() == OUTSIDE
    assert (work.__name__, work.__doc__) == ("work", "Do it.")
    assert str(inspect.signature(work)) == "(name: 'str', *, also: 'int' = 0) -> 'Any'"


def test_a_method_has_its_own() -> None:
    class Worker:
        @fresh(keep=[TENANT])
        def work(self) -> Any:
            USER.set("left")
            return self, TENANT.get()

    worker = Worker()
    assert worker.work() == (worker, "acme")
    assert seen() == OUTSIDE


def test_every_step_of_a_generator_runs_in_it() -> None:
    ended = []

    @fresh(keep=[TENANT])
    def steps() -> Generator[Any, Any, None]:
        try:
            yield seen()
            leave_behind()
            yield seen()
        finally:
            ended.append(USER.get())

    first, second = steps(), steps()
    assert next(first) == KEPT and seen() == OUTSIDE
    assert next(first) == ("left", "left", True)
    assert next(second) == KEPT
    first.close()
    second.close()
    assert ended == ["left", "nobody"] and seen() == OUTSIDE


def test_a_generator_object_too() -> None:
    def steps() -> Generator[Any, None, None]:
        yield seen()

    assert [*fresh(keep=[TENANT])(steps())] == [KEPT]


def run(awaitable: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await awaitable

    return asyncio.run(main())


def test_every_step_of_a_coroutine_runs_in_it() -> None:
    @fresh(keep=[TENANT])
    async def work() -> Any:
        found = [seen()]
        await asyncio.sleep(0)
        leave_behind()
        await asyncio.sleep(0)
        return [*found, seen()]

    assert inspect.iscoroutinefunction(work) or asyncio.iscoroutinefunction(work)
    # Called here, because on the thread host an event loop's tasks do not have these values.
    assert run(work()) == [KEPT, ("left", "left", True)]
    assert seen() == OUTSIDE


def test_every_step_of_an_async_generator_runs_in_it() -> None:
    @fresh(keep=[TENANT])
    async def steps() -> AsyncIterator[Any]:
        yield seen()
        await asyncio.sleep(0)
        leave_behind()
        yield seen()

    async def read(generator: AsyncIterator[Any]) -> list[Any]:
        return [found async for found in generator]

    assert asyncio.run(read(steps())) == [KEPT, ("left", "left", True)]
    assert seen() == OUTSIDE


def test_a_block_in_a_coroutine() -> None:
    async def main() -> Any:
        with fresh(keep=[TENANT]):
            found = seen()
            leave_behind()
        await asyncio.sleep(0)
        return found, seen()

    found, after = Context().run(asyncio.run, main()) if host == "thread" else asyncio.run(main())
    assert (found, after) == ((KEPT, OUTSIDE) if host == "native" else (("-", "nobody", False),) * 2)


# ---- what is refused ----


@pytest.mark.parametrize("wrong", [1, None, TENANT, "tenant", lambda: None])
def test_keep_is_an_iterable(wrong: Any) -> None:
    text = re.escape(f"fresh() takes an iterable of variables as keep, not {wrong!r}: write keep=[variable]")
    with pytest.raises(TypeError, match=f"^{text}$"):
        fresh(keep=wrong)


@pytest.mark.parametrize("wrong", [1, None, "tenant", contextlib])
def test_keep_has_variables_alone(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"^a ContextVar key was expected, got {re.escape(repr(wrong))}$"):
        fresh(keep=[TENANT, wrong])


def letters() -> Iterator[str]:
    yield "a"


def test_what_it_does_not_decorate() -> None:
    guard: Callable[[Any], Any] = fresh(keep=[TENANT])
    for wrong, kind in ((1, "int object"), (Context, "class Context"), ([], "list object")):
        with pytest.raises(TypeError, match=rf"^fresh\(\) takes a function, .* or a coroutine, not the {kind}$"):
            guard(wrong)
    with pytest.raises(TypeError, match="^@fresh belongs below @contextmanager, next to the function$"):
        guard(contextlib.contextmanager(letters))
    with pytest.raises(TypeError, match="^@fresh belongs below @staticmethod"):
        guard(staticmethod(seen))


def test_its_repr_names_what_is_kept() -> None:
    assert repr(fresh(keep=[TENANT, USER])) == "<contextvars_cy.fresh keep=['tenant', 'user']>"
