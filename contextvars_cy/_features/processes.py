"""Processes, and pools of processes or interpreters, whose work has the values that are registered to travel."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from .. import _backend, travel
from .bind import bind, check_callable

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")

R = TypeVar("R")


class _Carrying(concurrent.futures.Executor):
    """What the pools share, beside the standard library's class."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[R]:
        """Schedule `fn(*args, **kwargs)` with the values that are registered for processes and return its Future.

        A value that cannot travel stays here, with a `TravelWarning`. To get back what `fn` sets, submit
        `bind(fn, returns=[variable])`.

        >>> with ProcessPoolExecutor(1) as pool:
        ...     pool.submit(max, 1, 2).result()
        2
        """
        check_callable("submit() takes a callable", fn)
        return super().submit(travel.call_elsewhere, travel.departing(), fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,
    ) -> Iterator[R]:
        """Return an iterator like `map(fn, *iterables)`; each call has the registered values in a Context of its own.

        The values are those of the call of `map`, even if Python 3.14's `buffersize` delays a submission. The options
        are those of `concurrent.futures.Executor.map`.

        >>> with ProcessPoolExecutor(1) as pool:
        ...     list(pool.map(abs, [-1, -2]))
        [1, 2]
        """
        check_callable("map() takes a callable", fn)
        call = functools.partial(travel.call_elsewhere, travel.departing(), fn)
        return super().map(call, *iterables, timeout=timeout, chunksize=chunksize, **options)


class ProcessPoolExecutor(_Carrying, concurrent.futures.ProcessPoolExecutor):
    """A process pool that runs each call with the registered values of the Context that submitted it.

    The arguments are those of `concurrent.futures.ProcessPoolExecutor`. Each call has a Context of its own, in which
    nothing else is set: it sees neither what the calls before it have set, nor what the process had inherited. The
    `initializer` runs once in each process, with the values of the code that made the pool; no call sees the variables
    that it sets. `decimal`'s precision does not travel.

    >>> with ProcessPoolExecutor(max_workers=1) as pool:
    ...     pool.submit(max, 1, 2).result()
    2
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        initializer = bind(initializer) if callable(initializer) else initializer
        super().__init__(max_workers, mp_context, initializer, initargs, **options)


if sys.version_info >= (3, 14) and "InterpreterPoolExecutor" in concurrent.futures.__all__:

    class InterpreterPoolExecutor(_Carrying, concurrent.futures.InterpreterPoolExecutor):
        """A pool of interpreters that runs each call as `ProcessPoolExecutor` does; from Python 3.14 on.

        The arguments are those of `concurrent.futures.InterpreterPoolExecutor`. Its interpreters have a GIL of their
        own, so there this package runs on its pure backend; RuntimeError if CONTEXTVARS_CY_BACKEND asks for the other.

        >>> with InterpreterPoolExecutor(1) as pool:
        ...     pool.submit(max, 1, 2).result()
        2
        """

        def __init__(
            self,
            max_workers: int | None = None,
            thread_name_prefix: str = "",
            initializer: Callable[..., object] | None = None,
            initargs: tuple[Any, ...] = (),
        ) -> None:
            if _backend.asked_for == "cython":
                raise RuntimeError(
                    "CONTEXTVARS_CY_BACKEND=cython, which an interpreter with a GIL of its own cannot load: leave it "
                    "unset, and this package runs on its pure backend there"
                )
            initializer = bind(initializer) if callable(initializer) else initializer
            super().__init__(max_workers, thread_name_prefix, initializer, initargs)


class Process(multiprocessing.Process):
    """A process that runs with the values that are registered for processes, as they are when it is started.

    The arguments are those of `multiprocessing.Process`, and so is the start method. A process that is forked runs in a
    copy of the whole Context, as the standard library's does. A subclass's `run` has the values as well.

    >>> process = Process(target=max, args=[1, 2])
    >>> process.start()
    >>> process.join()
    >>> process.exitcode
    0
    """

    def start(self) -> None:
        """Start the process.

        >>> process = Process(target=print)
        >>> process.start()
        >>> process.join()
        """
        # Found before the class's own, also in the child, whether it gets this by a fork or in a pickle.
        self.run = bind(self.run)  # type: ignore[method-assign]
        try:
            super().start()
        finally:
            del self.run
