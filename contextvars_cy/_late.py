"""For finalisers and hooks that use the package when the interpreter ends and takes modules apart.

It sets every name of a module in `sys.modules` to None if the module is still held when all others are gone; then our
functions would find None in place of each other. Last of all it empties `builtins`.
"""

from __future__ import annotations

import atexit
import builtins
import sys
from types import ModuleType

from ._backend import EXTENSIONS, own_modules


def keep_builtins() -> None:
    """Copy the built-in names into every module of this package, except those that it has already."""
    kept = {name: value for name, value in vars(builtins).items() if not name.startswith("_")}
    for name, module in own_modules().items():
        if name != __package__:
            vars(module).update({**kept, **vars(module)})


def _keep_names() -> None:
    """Replace the modules with copies: later imports still find everything, and only the copies are cleared."""
    for name, module in own_modules().items():
        # An extension needs no names.
        if name not in EXTENSIONS:
            copy = ModuleType(name)
            vars(copy).update(vars(module))
            sys.modules[name] = copy


atexit.register(_keep_names)
