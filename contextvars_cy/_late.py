"""For finalisers and hooks that use the package when the interpreter ends and takes modules apart.

It sets every name of a module to None if that is still held when all others are gone; then our functions would find
None for one another. It does so to what it finds in `sys.modules`. Last of all it empties `builtins`.
"""

from __future__ import annotations

import atexit
import builtins
import sys
from types import ModuleType

from ._backend import EXTENSIONS, own_modules


def keep_builtins() -> None:
    """Give every module of this package the built-in names as its own, but for those that it has already."""
    kept = {name: value for name, value in vars(builtins).items() if not name.startswith("_")}
    for name, module in own_modules().items():
        if name != __package__:
            vars(module).update({**kept, **vars(module)})


def _keep_names() -> None:
    """Put copies in the place of the modules: whoever imports them yet finds all, and the copies are taken apart."""
    for name, module in own_modules().items():
        # An extension needs no names.
        if name not in EXTENSIONS:
            copy = ModuleType(name)
            vars(copy).update(vars(module))
            sys.modules[name] = copy


atexit.register(_keep_names)
