"""Event loops under `install`: asyncio's own modules keep the native `contextvars`, and loops in C take our Contexts.

A task of Python 3.15, an eager task of any Python, and whatever uvloop runs, run in native Contexts only. asyncio makes
one wherever it runs a program or serves a connection; our variables ride inside it. A Context that a program makes, and
gives to such a loop, is handed on as the native one that it wraps.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ._standard_library import contextvars

# By the module to wait for: the class of its loops, and their methods in C that take a Context.
LOOPS = {
    "asyncio": ("BaseEventLoop", ["create_task"]),
    "uvloop": ("Loop", ["create_task", "call_soon", "call_soon_threadsafe", "call_later", "call_at"]),
}


class LoopsFinder:
    """Has loops adapted as soon as they are imported: importing them for every program would be slow, and too early
    for those that patch what asyncio imports."""

    def __init__(self) -> None:
        self.undo: list[Callable[[], None]] = []

    def start(self) -> None:
        sys.meta_path.insert(0, self)
        for name in LOOPS:
            module = sys.modules.get(name)
            # One that is being imported has no loops yet, and is adapted by whoever imports it.
            if module and hasattr(module, LOOPS[name][0]):
                self.adapt(module)

    def stop(self) -> None:
        sys.meta_path.remove(self)
        while self.undo:
            self.undo.pop()()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in LOOPS:
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, found), None)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def load_and_adapt(module: ModuleType) -> None:
                load(module)
                if self in sys.meta_path:
                    self.adapt(module)

            spec.loader.exec_module = load_and_adapt  # type: ignore[method-assign]
        return spec

    def adapt(self, module: ModuleType) -> None:
        for name, part in sys.modules.copy().items():
            if name.startswith("asyncio.") and hasattr(part, "contextvars"):
                part.__dict__["contextvars"] = contextvars
        kind, methods = LOOPS[module.__name__]
        loops = getattr(module, kind)
        for name in methods:
            inherited = name not in vars(loops)
            method = getattr(loops, name)
            setattr(loops, name, in_native_context(method))
            self.undo.append(
                functools.partial(delattr, loops, name)
                if inherited
                else functools.partial(setattr, loops, name, method)
            )


def in_native_context(method: Callable[..., Any]) -> Callable[..., Any]:
    from . import Context

    @functools.wraps(method)
    def run(loop: Any, /, *args: Any, **options: Any) -> Any:
        context = options.get("context")
        if type(context) is Context:
            options["context"] = context.native
        return method(loop, *args, **options)

    return run
