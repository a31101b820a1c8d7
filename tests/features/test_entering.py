"""A Context is entered by `with`: beside other context managers, in fixtures, and where it must not be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator, Iterator

import pytest

from contextvars_cy import Context, ContextVar, copy_context, current_context

USER = ContextVar("user", default="nobody")
DIFFERENT = "^cannot exit context: thread state references a different context object$"


@pytest.fixture
def signed_in() -> Iterator[Context]:
    with copy_context() as context:
        USER.set("ada")
        yield context


@pytest.fixture
def in_a_second(signed_in: Context) -> Iterator[Context]:
    with copy_context() as context:
        USER.set("grace")
        yield context


def test_a_fixture_that_enters_one_gives_the_test_its_values(signed_in: Context) -> None:
    assert current_context() is signed_in
    assert USER.get() == "ada"


def test_such_fixtures_are_nested(signed_in: Context, in_a_second: Context) -> None:
    assert current_context() is in_a_second
    assert (USER.get(), signed_in[USER]) == ("grace", "ada")


def test_nothing_of_them_is_left() -> None:
    assert USER.get() == "nobody"


def test_on_an_exit_stack() -> None:
    outside = current_context()
    contexts = [Context(), Context()]
    with contextlib.ExitStack() as stack:
        for number, context in enumerate(contexts):
            assert stack.enter_context(context) is context
            stack.enter_context(USER.set(str(number)))
        assert current_context() is contexts[1]
    # The stack has undone each set in the Context where it was made, and then left that.
    assert current_context() is outside
    assert [USER in context for context in contexts] == [False, False]


def test_an_exit_stack_that_is_closed_elsewhere_leaves_nothing_entered() -> None:
    outside = current_context()
    context = Context()
    with contextlib.ExitStack() as stack:
        stack.enter_context(context)
        later = stack.pop_all()
    assert current_context() is context
    later.close()
    assert current_context() is outside


def test_an_exception_leaves_it_and_goes_on() -> None:
    context = Context()
    with pytest.raises(ZeroDivisionError), context:
        USER.set("ada")
        1 / 0
    assert USER.get() == "nobody"
    assert context[USER] == "ada"


def test_in_the_body_of_an_async_with() -> None:
    @contextlib.asynccontextmanager
    async def connection() -> AsyncIterator[None]:
        await asyncio.sleep(0)
        yield
        await asyncio.sleep(0)

    async def main() -> str:
        async with connection():
            with copy_context() as context:
                token = USER.set("ada")
                assert USER.get() == "ada"
                USER.reset(token)
                USER.set("grace")
            await asyncio.sleep(0)
            assert USER.get() == "nobody"
        return context[USER]

    assert asyncio.run(main()) == "grace"


def test_it_is_no_asynchronous_context_manager() -> None:
    async def main() -> None:
        async with copy_context():  # type: ignore[attr-defined]
            pass

    with pytest.raises((TypeError, AttributeError), match="asynchronous context manager protocol|__aenter__|__aexit__"):
        asyncio.run(main())


def test_a_generator_that_is_suspended_in_one_leaves_its_caller_in_it() -> None:
    def numbers() -> Generator[int, None, None]:
        with Context():
            yield 1

    outside = current_context()
    suspended = numbers()
    next(suspended)
    assert current_context() is not outside
    with Context():
        # Closed within another, it cannot leave its own; once that is left, its own is.
        with pytest.raises(RuntimeError, match=DIFFERENT):
            suspended.close()
    inner = current_context()
    assert inner is not outside
    inner.__exit__(None, None, None)
    assert current_context() is outside


def test_left_out_of_order() -> None:
    outside = current_context()
    first, second = Context(), Context()
    first.__enter__()
    second.__enter__()
    with pytest.raises(RuntimeError, match=DIFFERENT):
        first.__exit__(None, None, None)
    assert current_context() is second
    second.__exit__(None, None, None)
    first.__exit__(None, None, None)
    assert current_context() is outside


def test_what_was_set_inside_is_not_reset_outside() -> None:
    with copy_context():
        token = USER.set("ada")
    with pytest.raises(ValueError, match="was created in a different Context"):
        USER.reset(token)
