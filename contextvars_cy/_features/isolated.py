"""Functions, generators and coroutines with their own Context, using only the public names.

A generator, async generator or coroutine is wrapped in a native one of its kind. So event loops, the garbage collector
and `inspect` find what they know, and each step of the outer one takes a step of the inner one, in the Context.
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

# The usual annotations of generators and coroutines.
T = TypeVar("T", bound=Union[Callable[..., Any], Iterator[Any], AsyncIterator[Any], Awaitable[Any]])

# Python's own types, for a quick test, and those of Cython and others.
_STEPPED = (GeneratorType, CoroutineType, AsyncGeneratorType, Generator, Coroutine, AsyncGenerator)


@published
def isolated(target: T, /) -> T:
    """Run a function, a generator, an async generator or a coroutine in its own Context.

    Code outside does not see what it sets, and it does not see what is set outside meanwhile; the values themselves are
    the same objects. As a decorator, `@isolated` copies the current Context at each call. The function runs in that
    copy, and so does every step of the generator, async generator or coroutine that it returns. `isolated(generator)`
    makes the copy at once, for a generator that has not begun. O(1) for each call and each step.

    A generator's `finally` blocks run in its own Context, even if an event loop or the garbage collector closes it.
    TypeError for anything but a function, a generator, an async generator or a coroutine, and above a decorator that
    takes the steps itself, such as `@contextmanager`; RuntimeError for a step while its Context is entered elsewhere,
    and for an async generator that has begun.

    Modelled on PEP 568, which Python deferred.

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
    return isolate(target, copy_context, "isolated")


def isolate(target: T, make: Callable[[], Context], name: str) -> T:
    """As `isolated`, in the Context that `make` returns; errors have the name."""
    given: Any = target
    # Test for a function first: when the interpreter ends, abstract base classes fail before this does.
    if not isinstance(given, FunctionType) and isinstance(given, _STEPPED):
        return _isolate(given, _Body(make, name))  # type: ignore[no-any-return]
    decorator = _decorator_of(given)
    if decorator is not None:
        raise TypeError(f"@{name} belongs below @{decorator}, next to the function")
    if isinstance(given, type) or not callable(given):
        kind = f"class {given.__name__}" if isinstance(given, type) else f"{type(given).__name__} object"
        raise TypeError(f"{name}() takes a function, a generator, an async generator or a coroutine, not the {kind}")

    def run_isolated(*args: Any, **kwargs: Any) -> Any:
        # Make the body first: in a reference cycle the garbage collector finalises the oldest object first, and would
        # close an inner generator in the collector's Context.
        body = _Body(make, name)
        result = body.context.run(given, *args, **kwargs)
        # Ask the type, because the result may be a proxy, which forwards. Attributes first, because the test for a
        # subclass takes longer than all the rest.
        kind = type(result)
        if (hasattr(kind, "throw") or hasattr(kind, "athrow")) and issubclass(kind, _STEPPED):
            return _isolate(result, body)
        return result

    update_wrapper(run_isolated, given)
    mark_if_coroutine_function(run_isolated, given)
    return run_isolated  # type: ignore[return-value]


def _decorator_of(given: Any) -> str | None:
    """The decorator that made this object, if the object calls the function, or steps its generator, later."""
    kind = type(given)
    if issubclass(kind, staticmethod) or not callable(given):
        return kind.__name__ if hasattr(kind, "__get__") else None
    if isinstance(given, partial):
        return _decorator_of(given.func)
    # Not imported: that would be a good part of importing the package, and its users have it. At the end it is gone.
    contextlib = modules.get("contextlib")
    if contextlib is None:
        return None
    for name in ("contextmanager", "asynccontextmanager"):
        # All functions made by one decorator share their code. A bound method has its function's.
        if getattr(contextlib, name)(given).__code__ in [
            getattr(called, "__code__", None) for called in (given, kind.__call__)
        ]:
            return name
    return None


def mark_if_coroutine_function(function: Any, given: Any) -> bool:
    """Mark the function if the given one is a coroutine function, and return whether it is."""
    # Imported here, because it takes long.
    try:
        import inspect
    except Exception:
        if not is_finalizing():
            raise
        # It is gone by now, and no code needs the mark.
        return False
    if not inspect.iscoroutinefunction(given):
        return False
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        # Before 3.12 there was only asyncio's own mark.
        from asyncio import coroutines

        function._is_coroutine = coroutines._is_coroutine  # type: ignore[attr-defined]
    return True


class _Body:
    """The inner object, stepped by `send` and `throw`, and its Context; awaiting this steps it there."""

    __slots__ = ("closed_by", "context", "inner", "name")

    context: Context
    # Of the function that was given the inner one, for an error.
    name: str
    # None if it has ended.
    inner: Any
    # The GeneratorExit that ended the wait, to throw into it.
    closed_by: GeneratorExit | None

    def __new__(cls, make: Callable[[], Context], name: str) -> _Body:
        # No `__init__`: if the stack had no room for its frame, `__del__` would have none either.
        self = object.__new__(cls)
        self.inner = self.closed_by = None
        self.name = name
        self.context = make()
        return self

    def __await__(self) -> Generator[Any, Any, Any]:
        return _generator(self, True)

    def __del__(self) -> None:
        # Either it has not begun, and a coroutine's outer one warns that it was never awaited. Or it is part of a
        # reference cycle.
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
                # In a list, so that this frame does not keep the yielded object while the consumer works on it.
                yielded = [run(step, argument)]
            except StopIteration as stop:
                # Closing a step after its end would close its async generator (CPython 3.13 and later).
                body.inner = None
                return stop.value
            finally:
                # Not kept either: an exception keeps this frame.
                step = argument = None
            try:
                step, argument = inner.send, (yield yielded.pop())
            except BaseException as error:
                if body.inner is None:
                    # The garbage collector has finalised the body first.
                    raise
                if awaited and isinstance(error, GeneratorExit):
                    # Python closes an awaited object before it throws the exception into the awaiting one, so this must
                    # end here; but the inner one may await again. So the awaiting coroutine throws it in.
                    left = True
                    raise
                step, argument = inner.throw, _as_thrown(error)
    finally:
        try:
            # An interrupt in here ends this one, but not the inner one. (If the garbage collector has finalised the
            # body first, the body is about to close it.)
            if body.inner is not None and not left:
                run(inner.close)
        finally:
            # An awaited object keeps what was thrown in.
            if not left:
                body.inner = None
            inner = None


# Can be awaited and iterated over, like a generator of types.coroutine, which marks the function it gets.
_iterable_coroutine = coroutine(FunctionType(_generator.__code__, globals()))
_ITERABLE_COROUTINE = _iterable_coroutine.__code__.co_flags & ~_generator.__code__.co_flags


async def _async_generator(inner: AsyncGenerator[Any, Any], body: _Body) -> AsyncGenerator[Any, Any]:
    body.inner = _first_step(inner, body.name)
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
    """The exception without the frame that caught it."""
    assert error.__traceback__ is not None
    return error.with_traceback(error.__traceback__.tb_next)


def _first_step(generator: AsyncGenerator[Any, Any], name: str) -> Any:
    """Begin an async generator without the event loop's knowledge: the loop would close it in another Context.

    The loop knows the outer one, and closes that.
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
            # Python 3.13 and later warn of a step that is never taken.
            warnings.simplefilter("ignore")
            del step
        raise RuntimeError(f"{name}() takes an async generator before its first step; {generator!r} has begun")
    return step


def _leave_to_the_outer_one(generator: AsyncGenerator[Any, Any]) -> None:
    pass
