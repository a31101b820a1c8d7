"""Adapts a module when it is imported: importing it for every program would be slow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def when_imported(name: str, part: str, adapt: Callable[[Any], None]) -> Callable[[], None]:
    """Call `adapt(module)`, now if the module has that part already, else at the end of its import. What it returns
    ends the waiting."""
    finder = _Finder(name, adapt)
    module = sys.modules.get(name)
    if hasattr(module, part):
        adapt(module)
    # There are no finders when the interpreter ends.
    elif sys.meta_path is not None:
        sys.meta_path.insert(0, finder)
    return finder.leave


class _Finder:
    """Finds one module, as the other finders do, and removes itself when that is imported."""

    def __init__(self, name: str, adapt: Callable[[Any], None]) -> None:
        self.name = name
        self.adapt = adapt

    def leave(self) -> None:
        if sys.meta_path is not None and self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name:
            return None
        finders = list(sys.meta_path)
        # Those before this one have found nothing, and may be of this kind, for the same module.
        later = finders[finders.index(self) + 1 :] if self in finders else finders
        found = (finder.find_spec(name, path, target) for finder in later)
        spec = next(filter(None, found), None)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def load_and_adapt(module: ModuleType) -> None:
                load(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                    self.adapt(module)

            spec.loader.exec_module = load_and_adapt  # type: ignore[method-assign]
        return spec
