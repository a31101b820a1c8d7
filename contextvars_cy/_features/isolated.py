"""Functions, generators and coroutines with a Context of their own, on the public names alone.

What a function returns to be run step by step, a generator, an async generator or a coroutine, is put into another of
its kind, a native one. So event loops, the garbage collector and `inspect` find what they know, and each step that is
taken outside takes one inside, in the Context.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from functools import partial, update_wrapper
from sys import is_finalizing, modules
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, coroutine
from typing import Any, TypeVar, Union

from .._context.twin import Context, copy_context
from .._sealed import published

# What generators and coroutines are usually annotated as.
T = TypeVar("T", bound=Union[Callable[..., Any], Iterator[Any], AsyncIterator[Any], Awaitable[Any]])

# Python's own, found quickly, and those of Cython and of others.
_STEPPED = (GeneratorType, CoroutineType, AsyncGeneratorType, Generator, Coroutine, AsyncGenerator)


@published
def isolated(target: T, /) -> T:
    """Have a function, a generator, an async generator or a coroutine run in a Context of its own.

    What it sets is not seen outside, and what others set meanwhile is not seen inside; the values themselves are the
    same objects. As a decorator, `@isolated`, it copies the current Context at each call, and all that the call makes
    runs in that copy: the function, and every step of the generator, async generator or coroutine that it returns.
    `isolated(generator)` copies it there, for one that has not begun. O(1) for each call and each step.

    Whoever closes a generator, an event loop or the garbage collector too, its `finally` blocks run in its own
    Context. TypeError for anything else than a function, a generator, an async generator or a coroutine, and above a
    decorator that takes the steps itself, as `@contextmanager` does; RuntimeError for a step while its Context is
    entered elsewhere, and for an async generator that had begun before.

    After PEP 568, which Python has deferred.

    >>> colour = ContextVar("colour", default="blue")
    >>> @isolated
    ... def shades():
    ...     with colour.set("red"):
    ...         yield "light " + colour.get()
    ...         yield "dark " + colour.get()
    >>> for shade in shades():
    ...     print(shade, "/", colour.get())
    light red / blue
    dark red / blue
    """
    given: Any = target
    # A function first: when the interpreter ends, abstract base classes end before us.
    if not isinstance(given, FunctionType) and isinstance(given, _STEPPED):
        return _isolate(given, _Body())  # type: ignore[no-any-return]
    decorator = _decorator_of(given)
    if decorator is not None:
        raise TypeError(f"@isolated belongs below @{decorator}, next to the function")
    if isinstance(given, type) or not callable(given):
        name = f"class {given.__name__}" if isinstance(given, type) else f"{type(given).__name__} object"
        raise TypeError(f"isolated() takes a function, a generator, an async generator or a coroutine, not the {name}")

    def run_isolated(*args: Any, **kwargs: Any) -> Any:
        # The body first: of a reference cycle, the garbage collector finalises the oldest first, and an inner
        # generator would be closed in the collector's Context.
        body = _Body()
        result = body.context.run(given, *args, **kwargs)
        # Of the type, because the result may be a proxy, which asks others. And attributes first, because the test for
        # a subclass takes longer than all the rest.
        kind = type(result)
        if (hasattr(kind, "throw") or hasattr(kind, "athrow")) and issubclass(kind, _STEPPED):
            return _isolate(result, body)
        return result

    update_wrapper(run_isolated, given)
    mark_if_coroutine_function(run_isolated, given)
    return run_isolated  # type: ignore[return-value]


def _decorator_of(given: Any) -> str | None:
    """The name of the decorator that made what would call the function, or take the steps of its generator, later."""
    kind = type(given)
    if issubclass(kind, staticmethod) or not callable(given):
        return kind.__name__ if hasattr(kind, "__get__") else None
    if isinstance(given, partial):
        return _decorator_of(given.func)
    # Not imported: that would be a good part of importing the package, and who uses it has it. At the end it is gone.
    contextlib = modules.get("contextlib")
    if contextlib is None:
        return None
    for name in ("contextmanager", "asynccontextmanager"):
        # All the functions that it makes have one code. A bound method has its function's.
        if getattr(contextlib, name)(given).__code__ in [
            getattr(called, "__code__", None) for called in (given, kind.__call__)
        ]:
            return name
    return None


def mark_if_coroutine_function(function: Any, given: Any) -> None:
    """Mark the function where the given one is a coroutine function."""
    # Here and below, because importing it took a third of the time of importing the package.
    try:
        import inspect
    except Exception:
        if not is_finalizing():
            raise
        # It is not to be had any more, and nobody asks.
        return
    if not inspect.iscoroutinefunction(given):
        return
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        # asyncio's own mark, which is all that there was.
        from asyncio import coroutines

        function._is_coroutine = coroutines._is_coroutine  # type: ignore[attr-defined]


class _Body:
    """What is stepped, by `send` and `throw`, and the Context for it; awaited, it takes its steps there."""

    __slots__ = ("closed_by", "context", "inner")

    context: Context
    # None where it has ended.
    inner: Any
    # The GeneratorExit that ended the waiting, to be thrown in.
    closed_by: GeneratorExit | None

    def __new__(cls) -> _Body:
        # No `__init__`: one for whose frame the stack has no room would leave `__del__` none either.
        self = object.__new__(cls)
        self.inner = self.closed_by = None
        self.context = copy_context()
        return self

    def __await__(self) -> Generator[Any, Any, Any]:
        return _generator(self, True)

    def __del__(self) -> None:
        # Either it has not begun, and where it is a coroutine, the outer one says that it was never awaited. Or it goes
        # with a reference cycle.
        inner, self.inner = self.inner, None
        if inner is not None:
            self.context.run(inner.close)


def _isolate(inner: Any, body: _Body) -> Any:
    outer: Any
    if hasattr(inner, "athrow"):
        outer = _async_generator(inner, body)
    else:
        body.inner = inner
        if hasattr(inner, "__await__"):
            outer = _coroutine(body)
        elif isinstance(inner, GeneratorType) and inner.gi_code.co_flags & _ITERABLE_COROUTINE:
            outer = _iterable_coroutine(body, False)
        else:
            outer = _generator(body, False)
    for name in ("__name__", "__qualname__"):
        setattr(outer, name, getattr(inner, name, type(inner).__name__))
    return outer


async def _coroutine(body: _Body) -> Any:
    while True:
        try:
            return await body
        except GeneratorExit as error:
            if body.inner is None:
                raise
            body.closed_by = error


def _generator(body: _Body, awaited: bool) -> Generator[Any, Any, Any]:
    inner = body.inner
    run = body.context.run
    step, argument = inner.send, None
    if body.closed_by is not None:
        step, argument = inner.throw, _as_thrown(body.closed_by)
        body.closed_by = None
    left = False
    try:
        while True:
            try:
                # In a list, so that what is yielded is not kept while the consumer works on it.
                yielded = [run(step, argument)]
            except StopIteration as stop:
                # Closed after that, a step of an async generator would close that (CPython 3.13 and later).
                body.inner = None
                return stop.value
            finally:
                # Not kept either; and an exception keeps this frame.
                step = argument = None
            try:
                step, argument = inner.send, (yield yielded.pop())
            except BaseException as error:
                if body.inner is None:
                    # The garbage collector has finalised the body first.
                    raise
                if awaited and isinstance(error, GeneratorExit):
                    # What is awaited is closed before the exception is thrown into what awaits it, and must end here;
                    # but the inner one may go on to await. So the one that awaits this throws it in.
                    left = True
                    raise
                step, argument = inner.throw, _as_thrown(error)
    finally:
        try:
            # An interrupt in here ends this one, and not the inner. (Where the garbage collector has finalised the body
            # first, that is about to close it.)
            if body.inner is not None and not left:
                run(inner.close)
        finally:
            # What was awaited keeps what was thrown in.
            if not left:
                body.inner = None
            inner = None


# Awaited as well as iterated over, as a generator of types.coroutine is: that marks the function it is given.
_iterable_coroutine = coroutine(FunctionType(_generator.__code__, globals()))
_ITERABLE_COROUTINE = _iterable_coroutine.__code__.co_flags & ~_generator.__code__.co_flags


async def _async_generator(inner: AsyncGenerator[Any, Any], body: _Body) -> AsyncGenerator[Any, Any]:
    body.inner = _first_step(inner)
    try:
        while True:
            try:
                yielded = [await body]
            except StopAsyncIteration:
                return
            except GeneratorExit as error:
                # As in `_coroutine`.
                if body.inner is None:
                    raise
                body.closed_by = error
                continue
            try:
                body.inner = inner.asend((yield yielded.pop()))
            except BaseException as error:
                body.inner = inner.athrow(_as_thrown(error))
    finally:
        # As in `_generator`.
        body.inner = inner.aclose()
        await body


def _as_thrown(error: BaseException) -> BaseException:
    """The exception without the frame that has caught it."""
    assert error.__traceback__ is not None
    return error.with_traceback(error.__traceback__.tb_next)


def _first_step(generator: AsyncGenerator[Any, Any]) -> Any:
    """Begin an async generator that the event loop is not to know, because it would close it in a Context of its own.

    The loop knows the one outside, and closes that.
    """
    begun: list[Any] = []
    hooks = sys.get_asyncgen_hooks()
    try:
        sys.set_asyncgen_hooks(begun.append, _leave_to_the_outer_one)
        step = generator.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)
    if not begun and isinstance(generator, AsyncGeneratorType):
        with warnings.catch_warnings():
            # Python 3.13 and later warn of a step that nobody takes.
            warnings.simplefilter("ignore")
            del step
        raise RuntimeError(f"isolated() takes an async generator before its first step; {generator!r} has begun")
    return step


def _leave_to_the_outer_one(generator: AsyncGenerator[Any, Any]) -> None:
    pass
