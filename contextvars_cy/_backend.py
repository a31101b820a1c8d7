"""Which twin runs, on which host, and why: the only reader of the environment.

`CONTEXTVARS_CY_BACKEND` is unset (the compiled twin if it works), `cython` (that one or a RuntimeError) or `pure`.
`CONTEXTVARS_CY_HOST` is unset or `native` (the snapshot rides inside Python's own context) or `thread` (a stack of our
own, one per thread).
`CONTEXTVARS_CY_DEBUG` is `1` (errors about a token say where it was made, a LookupError why there is no value, warnings
what was lost), `0`, or unset: `1` under `python -X dev`.

A wrong value is not an ImportError: programs for which the package is optional catch that, and would silently run on
the standard library's variables.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

BACKENDS = ("cython", "pure")
HOSTS = ("native", "thread")
NAMES = ("CONTEXTVARS_CY_BACKEND", "CONTEXTVARS_CY_DEBUG", "CONTEXTVARS_CY_HOST")
MISSING = "no compiled extension is installed for this Python"
EXTENSIONS = tuple(f"{__package__}.{name}" for name in ("_hamt.trie_cy", "_hamt.hamt_cy", "_context.context_cy"))


def _choice(variable: str, choices: tuple[str, ...]) -> str:
    value = os.environ.get(variable, "")
    if value and value not in choices:
        raise ValueError(f"{variable}={value!r}: choose one of {', '.join(choices)}, or leave it unset")
    return value


def _warn_of_misspelt_names() -> None:
    for name in os.environ:
        if name.startswith("CONTEXTVARS_CY_") and name not in NAMES:
            # Imported here, because few programs need it.
            from difflib import get_close_matches

            nearest = get_close_matches(name, NAMES, 1, 0.9)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(NAMES)}"
            warnings.warn(f"the environment variable {name} does nothing; {hint}", RuntimeWarning, stacklevel=2)


def obstacle() -> tuple[str, Exception | None]:
    """Why the compiled backend cannot run here, and the error behind it; an empty text if it can."""
    if not all(find_spec(name) for name in EXTENSIONS):
        return MISSING, None
    try:
        # The interpreter keeps an extension from one `Py_Initialize` to the next. Importing it then can crash from 3.14
        # on, because it still holds freed strings.
        if "_contextvars_cy_has_ended" in sys.builtin_module_names:
            raise ImportError("it can serve one interpreter, and that one has ended; this is another in its process")
        _import_extensions()
        engine: Any = import_module(EXTENSIONS[-1])
        # If the package was removed from `sys.modules`, the extension still uses the modules of its first import, so
        # the rest must too.
        sys.modules.update(getattr(engine, "modules", {}))
    except Exception as error:
        return f"the compiled extension cannot be loaded: {type(error).__name__}: {error}", error
    return "", None


def own_modules() -> dict[str, ModuleType]:
    """The package and those of its modules that are imported."""
    return {name: module for name, module in sys.modules.copy().items() if f"{name}.".startswith(f"{__package__}.")}


def keep_modules() -> None:
    """After the package's first import, make the extension keep its modules."""
    engine: Any = import_module(EXTENSIONS[-1])
    engine.modules = {name: module for name, module in own_modules().items() if name not in (__package__, __name__)}


def _import_extensions() -> None:
    for name in EXTENSIONS:
        module = import_module(name)
        # Cython registers a module also under the name it was compiled with. In a copy of the package under another
        # name, that is another copy's name.
        compiled_name = name.replace(f"{__package__}.", "contextvars_cy.", 1)
        if compiled_name != name and sys.modules.get(compiled_name) is module:
            del sys.modules[compiled_name]


def explained(why_not: str) -> tuple[str, str]:
    """The obstacle and its cause, and the remedy; an empty text if there is none."""
    if why_not != MISSING:
        return why_not, "reinstall contextvars_cy where a C compiler works"
    from ._why_pure import explanation

    return explanation()


def _check_host() -> None:
    """If a package is removed from `sys.modules`, it is imported afresh, but the interpreter keeps its extensions."""
    at_work = import_module(EXTENSIONS[-1]).host
    if at_work != host:
        raise RuntimeError(
            f"CONTEXTVARS_CY_HOST asks for the {host} host, but in this process the compiled backend runs on the "
            f"{at_work} host already; set the variable before contextvars_cy is imported for the first time"
        )


def _choose_backend(chosen: str) -> tuple[str, str]:
    """The backend and the reason for it; all modules come from the same backend."""
    if chosen == "pure":
        return "pure", "CONTEXTVARS_CY_BACKEND asks for it"
    why_not, error = obstacle()
    if not why_not:
        _check_host()
        return "cython", "CONTEXTVARS_CY_BACKEND asks for it" if chosen else "the compiled extension works"
    if chosen:
        reason, remedy = explained(why_not)
        ways = f"{remedy}; or choose the pure backend" if remedy else "choose the pure backend"
        raise RuntimeError(f"CONTEXTVARS_CY_BACKEND=cython, but {reason}; {ways}") from error
    # CPython's words for an interpreter with a GIL of its own: nothing can be done about that, and a pool makes many.
    if error and "does not support loading in subinterpreters" not in why_not:
        warnings.warn(f"contextvars_cy runs the pure backend, because {why_not}", RuntimeWarning, stacklevel=2)
    return "pure", why_not


_warn_of_misspelt_names()
# These come first, because the compiled twin reads both during its import.
host = _choice("CONTEXTVARS_CY_HOST", HOSTS) or "native"
debug = {"": sys.flags.dev_mode, "0": False, "1": True}[_choice("CONTEXTVARS_CY_DEBUG", ("0", "1"))]
asked_for = _choice("CONTEXTVARS_CY_BACKEND", BACKENDS)
backend, reason = _choose_backend(asked_for)
