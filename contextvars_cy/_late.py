"""For finalisers that run when the interpreter ends: it has emptied `builtins`, and left a module its own names."""

from __future__ import annotations

import builtins
import sys


def keep_builtins() -> None:
    """Give every module of this package the built-in names as its own, but for those that it has already."""
    kept = {name: value for name, value in vars(builtins).items() if not name.startswith("_")}
    for name, module in sys.modules.copy().items():
        if name.startswith(f"{__package__}."):
            vars(module).update({**kept, **vars(module)})
