"""Replaces the standard library's `contextvars` with ours for later imports, and puts it back."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .._backend import host
from .._context.standard_library import contextvars
from .._context.twin import Context, ContextVar, Token, copy_context, show_native_variables
from .._sealed import PACKAGE
from .ctypes import adapt_ctypes
from .loops import adapt_loops
from .pprint import adapt_pprint
from .when_imported import when_imported

_NAMES = ("contextvars", "_contextvars")
_EXPORTED = ("Context", "ContextVar", "Token", "copy_context")
_replaced: dict[str, ModuleType | None] = {}


def install() -> None:
    """Make `import contextvars` give our Context, ContextVar, Token and copy_context. O(m) for m modules.

    Call it in the first line of a program: a module that was imported before keeps what it has, and a RuntimeWarning
    names it. On the native host both work together, and modules of the standard library and event loops in C are meant
    to keep the original. Our Contexts then also show native variables, such as decimal's. A second call does nothing.

    >>> install()
    >>> import contextvars
    >>> contextvars.ContextVar is ContextVar
    True
    >>> uninstall()
    """
    if _replaced:
        return
    early = _modules_with_native_names()
    if early:
        warnings.warn(
            "contextvars_cy.install() was called after the import of modules that keep the standard library's context "
            f"variables: {', '.join(early)}; call it before they are imported",
            RuntimeWarning,
            stacklevel=2,
        )
    for name in _NAMES:
        module = ModuleType(name, "Context variables after PEP 567, by contextvars_cy.")
        module.__spec__ = ModuleSpec(name, loader=None, origin=PACKAGE)
        exported = (Context, ContextVar, Token, copy_context)
        module.__dict__.update(zip(_EXPORTED, exported), __all__=_EXPORTED, _native=contextvars)
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


def _modules_with_native_names() -> list[str]:
    """The modules that took the standard library's names, except its own, ours, and those of another copy of ours."""
    native = {id(sys.modules.get(name)) for name in _NAMES} | {id(getattr(contextvars, name)) for name in _EXPORTED}
    native.discard(id(None))
    return sorted(
        name
        for name, module in sys.modules.copy().items()
        if name.partition(".")[0] not in _STANDARD
        and f"{name.rsplit('.', 2)[0]}._context.standard_library" not in sys.modules
        # Not `isinstance`: a cffi library claims to be a module, and looking at a lazy module imports it.
        and issubclass(type(module), ModuleType)
        and any(id(value) in native for value in list(_namespace_of(module).values()))
    )


_namespace_of: Callable[[ModuleType], dict[str, Any]] = vars(ModuleType)["__dict__"].__get__
# Python 3.9 has no such list; these of its modules have the names.
_NAMED_ON_3_9 = (*_NAMES, "_pydecimal", "asyncio", "test", "unittest")
_STANDARD = getattr(sys, "stdlib_module_names", _NAMED_ON_3_9)


@functools.cache
def _adapt_ctypes() -> None:
    # Once, for good: it changes nothing for native Contexts. PyPy has no C API there.
    if sys.implementation.name == "cpython":
        when_imported("ctypes", "pythonapi", adapt_ctypes)


adapt_loops()
when_imported("pprint", "PrettyPrinter", adapt_pprint)
