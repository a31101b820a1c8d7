"""Threads, processes and pools whose work has the values of the Context that started or submitted it.

- `ThreadPoolExecutor` and `Thread` replace those of `concurrent.futures` and `threading`.
- `run_in_executor` replaces the method of asyncio's loops.
- `ProcessPoolExecutor`, `Process`, and from Python 3.14 on `InterpreterPoolExecutor` carry the variables that are
  registered with `contextvars_cy.travel`.

The standard library's run it in an empty Context (CPython issues 86981 and 128555), or, from Python 3.14 on if
`sys.flags.thread_inherit_context` is set, in the Context that started the thread, which in a pool may belong to another
caller (dask pull request 12224). These do the same on every Python and both hosts, whatever that flag says.
"""

from __future__ import annotations

import concurrent.futures
import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from sys import modules
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar

from . import Context, bind
from ._features.bind import check_callable, copy_for_a_thread
from ._late import keep_builtins

if TYPE_CHECKING:
    import asyncio

    from typing_extensions import ParamSpec, TypeVarTuple, Unpack

    from ._features.processes import Process as Process
    from ._features.processes import ProcessPoolExecutor as ProcessPoolExecutor

    if sys.version_info >= (3, 14):
        from ._features.processes import InterpreterPoolExecutor as InterpreterPoolExecutor

    P = ParamSpec("P")
    Ts = TypeVarTuple("Ts")

R = TypeVar("R")

__all__ = ["Process", "ProcessPoolExecutor", "Thread", "ThreadPoolExecutor", "run_in_executor"]
# Imported when asked for: their modules take long, and some Pythons have no processes.
_OF_PROCESSES = ["Process", "ProcessPoolExecutor"]
# Pyodide has no interpreters.
if sys.version_info >= (3, 14) and "InterpreterPoolExecutor" in concurrent.futures.__all__:
    _OF_PROCESSES += ["InterpreterPoolExecutor"]
    __all__ += ["InterpreterPoolExecutor"]


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]


def __getattr__(name: str) -> Any:
    if name not in _OF_PROCESSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__package__}._features.processes"), name)


class ThreadPoolExecutor(concurrent.futures.ThreadPoolExecutor):
    """A thread pool that runs each call in a copy of the Context that submitted it.

    The arguments are those of `concurrent.futures.ThreadPoolExecutor`. The `initializer` runs once in each thread, in a
    copy of the Context that made the pool; no call sees the variables that it sets.

    >>> user = ContextVar("user", default="nobody")
    >>> with ThreadPoolExecutor(max_workers=1) as pool:
    ...     with user.set("ada"):
    ...         future = pool.submit(user.get)
    ...     future.result(), pool.submit(user.get).result()
    ('ada', 'nobody')
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        # Else it would run in the Context of the call that happens to start the thread.
        initializer = bind(initializer) if callable(initializer) else initializer
        super().__init__(max_workers, thread_name_prefix, initializer, initargs)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[R]:
        """Schedule `fn(*args, **kwargs)` in a copy of the current Context and return its Future.

        The Future's callbacks run outside of that copy: give `add_done_callback` a `bind(callback)`.

        >>> with ThreadPoolExecutor() as pool:
        ...     pool.submit(max, 1, 2).result()
        2
        """
        check_callable("submit() takes a callable", fn)
        return super().submit(copy_for_a_thread().run, fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,
    ) -> Iterator[R]:
        """Return an iterator like `map(fn, *iterables)`; each call runs in its own copy of the current Context.

        The copied Context is that of the call of `map`, even if Python 3.14's `buffersize` delays a submission. The
        options are those of `concurrent.futures.Executor.map`.

        >>> with ThreadPoolExecutor() as pool:
        ...     list(pool.map(abs, [-1, -2]))
        [1, 2]
        """
        check_callable("map() takes a callable", fn)
        return super().map(bind(fn), *iterables, timeout=timeout, chunksize=chunksize, **options)


class Thread(threading.Thread):
    """A thread that runs in a copy of the Context that started it, or in the Context that it is given.

    The arguments are those of `threading.Thread`, with Python 3.14's `context` on every Python: the thread runs in that
    Context itself, which keeps the values it sets. A subclass's `run` runs there as well.

    >>> user = ContextVar("user", default="nobody")
    >>> context = copy_context()
    >>> thread = Thread(target=user.set, args=["ada"], context=context)
    >>> thread.start()
    >>> thread.join()
    >>> context[user], user.get()
    ('ada', 'nobody')
    """

    # A default here, because a subclass of another Thread too, such as a Timer, calls that one's `__init__`.
    _context_to_run_in: Context | None = None

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
        context: Context | None = None,
    ) -> None:
        if context is not None and type(context) is not Context:
            raise TypeError(f"Thread() takes a Context of contextvars_cy as context, not {context!r}")
        if target is not None:
            check_callable("Thread() takes a callable as target", target)
        super().__init__(group, target, name, args, kwargs, daemon=daemon)
        self._context_to_run_in = context

    def start(self) -> None:
        """Start the thread in a copy of the current Context. RuntimeError at the second call.

        If the thread was given a Context that is entered already, its `run` fails with a RuntimeError, which
        `threading.excepthook` reports.

        >>> seen = []
        >>> thread = Thread(target=seen.append, args=["in a thread"])
        >>> thread.start()
        >>> thread.join()
        >>> seen
        ['in a thread']
        """
        run = self.run
        if self.ident is None:
            context = copy_for_a_thread() if self._context_to_run_in is None else self._context_to_run_in

            def run_in_context(thread: Thread) -> None:
                # Removed, because this and the thread hold each other.
                if thread.__dict__.pop("run", None) is None:
                    # An earlier start failed or was interrupted: run in the Context of the later one.
                    run()
                else:
                    context.run(run)

            # A method like the original, because code that wraps it too may look for its function.
            self.run = MethodType(run_in_context, self)  # type: ignore[method-assign]
        super().start()


def run_in_executor(
    executor: concurrent.futures.Executor | None, fn: Callable[[Unpack[Ts]], R], /, *args: Unpack[Ts]
) -> asyncio.Future[R]:
    """Run `fn(*args)` in the executor's thread, in a copy of the current Context; return asyncio's Future to await.

    As with the method of the running loop, None means the loop's own executor, and the call is submitted at once.
    RuntimeError if no loop runs. To an executor of processes or interpreters go the values that are registered with
    `contextvars_cy.travel`.

    >>> import asyncio
    >>> async def main():
    ...     return await run_in_executor(None, max, 1, 2)
    >>> asyncio.run(main())
    2
    """
    if executor is not None and not hasattr(executor, "submit"):
        raise TypeError(f"run_in_executor() takes an executor, or None for the loop's own, first, not {executor!r}")
    check_callable("run_in_executor() takes a callable second", fn)
    # Not imported here: it takes long, some programs patch it first, and without it no loop runs.
    loops = modules.get("asyncio")
    if loops is None:
        raise RuntimeError("no running event loop")
    run: Any = copy_for_a_thread().run
    for kind in ("process", "interpreter"):
        # Code that has one has imported it.
        module = modules.get(f"concurrent.futures.{kind}")
        if module is not None and isinstance(executor, getattr(module, f"{kind.title()}PoolExecutor")):
            from . import travel

            run = functools.partial(travel.call_elsewhere, travel.departing())
    future: asyncio.Future[R] = loops.get_running_loop().run_in_executor(executor, run, fn, *args)
    return future


keep_builtins()
