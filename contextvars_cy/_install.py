"""The standard library's `contextvars`, replaced by ours for whoever imports it from now on, and put back."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from ._backend import host
from ._install_loops import LoopsFinder
from ._standard_library import contextvars

_NAMES = ("contextvars", "_contextvars")
_replaced: dict[str, ModuleType | None] = {}
_finder: LoopsFinder | None = None


def install() -> None:
    """Make `import contextvars` give our Context, ContextVar, Token and copy_context. O(1).

    Call it in the first line of a program: a module that was imported before keeps what it has, which on the native
    host works together with ours; asyncio's own modules get the standard library's there. Calling it again changes
    nothing.

    >>> install()
    >>> import contextvars
    >>> contextvars.ContextVar is ContextVar
    True
    >>> uninstall()
    """
    global _finder
    if _replaced:
        return
    from . import Context, ContextVar, Token, copy_context

    exported = (Context, ContextVar, Token, copy_context)
    names = tuple(export.__name__ for export in exported)
    for name in _NAMES:
        module = ModuleType(name, "Context variables after PEP 567, by contextvars_cy.")
        module.__spec__ = ModuleSpec(name, loader=None, origin=__package__)
        module.__dict__.update(zip(names, exported), __all__=names, _native=contextvars)
        _replaced[name] = sys.modules.get(name)
        sys.modules[name] = module
    if host == "native":
        _finder = LoopsFinder()
        _finder.start()


def uninstall() -> None:
    """Undo `install`: `import contextvars` gives the standard library's again. Without an `install`, it does nothing.

    >>> uninstall()
    """
    global _finder
    if _finder:
        _finder.stop()
        _finder = None
    while _replaced:
        name, module = _replaced.popitem()
        if module is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = module
