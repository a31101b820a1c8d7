"""Gives event loops that take only native Contexts the one that ours wraps. Under `install`, asyncio's own modules and
loops in C keep the native `contextvars`.

A loop in C or Rust runs its callbacks only in native Contexts, and so do asyncio's eager tasks, and all its tasks from
Python 3.15 on. Given one of ours they lose the callback or hang. So on the native host this wraps all that takes a
`context`: asyncio's class of tasks, and every loop that is not built on asyncio's own. On the thread host, whose
Contexts wrap no native one, such a task refuses ours.
"""

from __future__ import annotations

import functools
import sys
from types import FunctionType, ModuleType
from typing import Any

from .._backend import host
from .._context.standard_library import contextvars
from .._context.twin import Context, ContextVar, Token, copy_context, give_tasks_native_contexts, in_native_context
from .when_imported import when_imported

# The methods of a loop that take a Context.
METHODS = ("create_task", "call_soon", "call_soon_threadsafe", "call_later", "call_at")


def adapt_loops() -> None:
    """Adapt asyncio, and all present and future loops."""
    when_imported("asyncio", "BaseEventLoop", adapt_asyncio)


def adapt_tasks(asyncio: Any) -> None:
    """Make tasks that take only native Contexts take ours; on the thread host, refuse them at that line."""
    in_c = getattr(sys.modules.get("_asyncio"), "Task", None)
    # From Python 3.12 on it has eager tasks.
    if sys.version_info >= (3, 12) and in_c is not None:
        adapted = give_tasks_native_contexts(in_c)
        if not adapted and host == "native":
            adapt_factories(asyncio)
    if sys.version_info >= (3, 15):
        give_tasks_native_contexts(asyncio.tasks._PyTask)


def adapt_factories(asyncio: Any) -> None:
    """The fallback if the class itself cannot be changed."""
    create = asyncio.create_eager_task_factory

    @functools.wraps(create)
    def create_eager_task_factory(*args: Any, **options: Any) -> Any:
        return in_native_context(create(*args, **options))

    eager_task_factory = in_native_context(asyncio.eager_task_factory)
    for module in (asyncio, asyncio.tasks):
        module.eager_task_factory = eager_task_factory
        module.create_eager_task_factory = create_eager_task_factory
    asyncio.BaseEventLoop.create_task = in_native_context(asyncio.BaseEventLoop.create_task)


def adapt_asyncio(asyncio: Any) -> None:
    # On the thread host, asyncio's Python code follows the stack of a thread if it has our names.
    if host == "native":
        for name, module in sys.modules.copy().items():
            if name.startswith("asyncio."):
                keep_native_names(module)
    adapt_tasks(asyncio)
    loops = asyncio.AbstractEventLoop
    for loop in subclasses(loops):
        adapt_loop(asyncio, loop)
    before = vars(loops).get("__init_subclass__")

    def adapt_subclass(cls: type, /, **options: Any) -> None:
        if before is None:
            super(loops, cls).__init_subclass__(**options)
        else:
            before.__get__(None, cls)(**options)
        adapt_loop(asyncio, cls)

    loops.__init_subclass__ = classmethod(adapt_subclass)


def subclasses(cls: type) -> set[type]:
    return set(cls.__subclasses__()).union(*map(subclasses, cls.__subclasses__()))


def adapt_loop(asyncio: Any, loop: Any) -> None:
    if issubclass(loop, asyncio.BaseEventLoop):
        return
    methods = {}
    for name in METHODS:
        owner = next(cls for cls in loop.__mro__ if name in vars(cls))
        # A method of another loop class was adapted when that class was made.
        if owner is loop or not issubclass(owner, asyncio.AbstractEventLoop):
            methods[name] = getattr(loop, name)
    if not all(isinstance(method, FunctionType) for method in methods.values()):
        # C code takes Contexts from the Python module around it.
        keep_native_names(sys.modules.get(loop.__module__))
    if host == "native":
        for name, method in methods.items():
            setattr(loop, name, in_native_context(method))


def keep_native_names(module: ModuleType | None) -> None:
    """Put the standard library's `contextvars` and its names back into the module, in place of ours."""
    replaced = sys.modules.get("contextvars")
    if module is None or getattr(replaced, "Context", None) is not Context:
        return
    native = {
        id(replaced): contextvars,
        id(Context): contextvars.Context,
        id(ContextVar): contextvars.ContextVar,
        id(Token): contextvars.Token,
        id(copy_context): contextvars.copy_context,
    }
    for name, value in list(vars(module).items()):
        if id(value) in native:
            vars(module)[name] = native[id(value)]
