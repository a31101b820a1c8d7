"""The interpreter's end: finalisers and hooks may use the package when its modules are taken apart already.

The interpreter sets every name of a module to None if that is still held when all others are gone; then our functions
would find None for one another. It does so to what it finds in `sys.modules`.
"""

from __future__ import annotations

import atexit
import sys
from types import ModuleType


def _hide_modules() -> None:
    """Put copies in the place of our modules: whoever imports them yet finds all, and the copies are taken apart."""
    for name, module in list(sys.modules.items()):
        if name == __package__ or name.startswith(f"{__package__}."):
            copy = ModuleType(name)
            vars(copy).update(vars(module))
            sys.modules[name] = copy


atexit.register(_hide_modules)
