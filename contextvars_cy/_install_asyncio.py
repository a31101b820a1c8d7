"""asyncio under `install`: its own modules keep the native `contextvars`, and a task takes our Contexts too.

A task of Python 3.15, an eager task of any Python, and uvloop run in native Contexts only. asyncio makes one wherever
it runs a program or serves a connection; our variables ride inside it.
"""

from __future__ import annotations

import contextvars
import functools
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class AsyncioFinder:
    """Has asyncio adapted as soon as it is imported: importing it for every program would be slow, and too early for
    those that patch what it imports."""

    restore: Callable[[], None] | None = None

    def start(self) -> None:
        sys.meta_path.insert(0, self)
        if "asyncio.base_events" in sys.modules:
            self.adapt()

    def stop(self) -> None:
        sys.meta_path.remove(self)
        if self.restore:
            self.restore()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "asyncio":
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, found), None)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def load_and_adapt(module: ModuleType) -> None:
                load(module)
                self.adapt()

            spec.loader.exec_module = load_and_adapt  # type: ignore[method-assign]
        return spec

    def adapt(self) -> None:
        from asyncio import BaseEventLoop

        from contextvars_cy import Context

        for name, module in sys.modules.copy().items():
            if name.startswith("asyncio.") and hasattr(module, "contextvars"):
                module.__dict__["contextvars"] = contextvars

        create_task: Callable[..., Any] = BaseEventLoop.create_task
        self.restore = functools.partial(setattr, BaseEventLoop, "create_task", create_task)

        @functools.wraps(create_task)
        def create_task_in_native_context(loop: Any, coro: Any, **options: Any) -> Any:
            context = options.get("context")
            if type(context) is Context:
                options["context"] = context.native
            return create_task(loop, coro, **options)

        BaseEventLoop.create_task = create_task_in_native_context  # type: ignore[assignment, method-assign]
