"""Context variables for every Python from 3.9, with CPython 3.14's semantics, and the persistent map under them.

- `ContextVar`, `Context`, `Token`, `copy_context`: PEP 567, as in the standard library's `contextvars`.
- `assign`, `Assignment`: set many variables at once, and undo that at once.
- `apply`: bring another Context's values into the current one.
- `bind`: a function that carries the Context; `contextvars_cy.executors` has threads and thread pools that do.
- `contextvars_cy.travel` sends values to other processes, queues and services.
- `current_context`, `ThreadState`, `thread_state`: the current Context itself, and where a thread finds it.
- `fresh`: a Context with a few variables' values alone, for work that must not see those of the work before it.
- `isolated`: a Context of its own for a function, a generator or a coroutine.
- `Local`, `Proxy`: attributes of each Context's own, and an object that stands for a variable's value.
- `Hamt`, `HamtMutation`, `HamtDiff`, `MISSING`: the persistent map, many changes at once, the difference of two, and
  the mark for a missing value.
- `HamtKeys`, `HamtValues`, `HamtItems`: what its `keys`, `values` and `items` return.
- `HamtSet`, `HamtSetMutation`: the persistent set, and many changes at once.
- `watch`, `WatchEvent`, `Watcher`: watch what happens to variables and Contexts.
- `install`, `uninstall`: replace the standard library's `contextvars` with these.
- `backend`, `host`: which twin runs (`cython` or `pure`), on which host (`native` or `thread`).

PYTEST_DONT_REWRITE: pytest would, because of the plugin, and warn if this was imported before.
"""

from . import _backend
from ._backend import backend, host
from ._context.twin import (
    Assignment,
    Context,
    ContextVar,
    ThreadState,
    Token,
    assign,
    copy_context,
    current_context,
    thread_state,
)
from ._features.apply import apply
from ._features.bind import bind
from ._features.fresh import fresh
from ._features.isolated import isolated
from ._features.local import Local
from ._features.proxy import Proxy
from ._features.watch import Watcher, WatchEvent, watch
from ._hamt.diff import HamtDiff
from ._hamt.set import HamtSet, HamtSetMutation
from ._hamt.twin import Hamt, HamtItems, HamtKeys, HamtMutation, HamtValues
from ._install.install import install, uninstall
from ._late import keep_builtins
from ._sentinels import MISSING

if _backend.debug:
    from ._tracing import explaining

    del explaining
    if host == "native":
        from ._features import brought_back

        del brought_back
keep_builtins()
if backend == "cython":
    _backend.keep_modules()
del keep_builtins

try:
    from ._version import __version__ as __version__
except ModuleNotFoundError:  # The build writes it: these are sources that were not built.
    __version__ = "0.0"

__all__ = [
    "MISSING",
    "Assignment",
    "Context",
    "ContextVar",
    "Hamt",
    "HamtDiff",
    "HamtItems",
    "HamtKeys",
    "HamtMutation",
    "HamtSet",
    "HamtSetMutation",
    "HamtValues",
    "Local",
    "Proxy",
    "ThreadState",
    "Token",
    "WatchEvent",
    "Watcher",
    "apply",
    "assign",
    "backend",
    "bind",
    "copy_context",
    "current_context",
    "fresh",
    "host",
    "install",
    "isolated",
    "thread_state",
    "uninstall",
    "watch",
]


def __dir__() -> list[str]:
    """The names to complete: not what this module imports for itself."""
    return [name for name in globals() if name in __all__ or name == "executors" or name.startswith("__")]
