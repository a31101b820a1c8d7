"""The standard library's `contextvars`, replaced by ours for whoever imports it from now on, and put back."""

from __future__ import annotations

import functools
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

from ._backend import backend, host
from ._install_ctypes import adapt_ctypes
from ._install_loops import adapt_loops
from ._when_imported import when_imported

if TYPE_CHECKING or backend == "pure":
    from ._context_py import show_native_variables
else:
    from ._context_cy import show_native_variables

_NAMES = ("contextvars", "_contextvars")
_EXPORTED = ("Context", "ContextVar", "Token", "copy_context")
_replaced: dict[str, ModuleType | None] = {}


def install() -> None:
    """Make `import contextvars` give our Context, ContextVar, Token and copy_context. O(1).

    Call it in the first line of a program: a module that was imported before keeps what it has, which on the native
    host works together with ours; asyncio's own modules, and event loops in C, get the standard library's there. Our
    Contexts then show native variables, as decimal's, too. Calling it again changes nothing.

    >>> install()
    >>> import contextvars
    >>> contextvars.ContextVar is ContextVar
    True
    >>> uninstall()
    """
    if _replaced:
        return
    import contextvars_cy

    for name in _NAMES:
        module = ModuleType(name, "Context variables after PEP 567, by contextvars_cy.")
        module.__spec__ = ModuleSpec(name, loader=None, origin="contextvars_cy")
        module.__dict__.update({export: getattr(contextvars_cy, export) for export in _EXPORTED}, __all__=_EXPORTED)
        _replaced[name] = sys.modules.get(name)
        sys.modules[name] = module
    if host == "native":
        show_native_variables(True)
        _adapt_ctypes()


def uninstall() -> None:
    """Undo `install`: `import contextvars` gives the standard library's again. Without an `install`, it does nothing.

    >>> uninstall()
    """
    show_native_variables(False)
    while _replaced:
        name, module = _replaced.popitem()
        if module is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = module


@functools.cache
def _adapt_ctypes() -> None:
    # Once, and for good: it changes nothing for native Contexts. PyPy has no C API there.
    if sys.implementation.name == "cpython":
        when_imported("ctypes", "pythonapi", adapt_ctypes)


if host == "native":
    adapt_loops()
