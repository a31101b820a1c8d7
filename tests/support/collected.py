"""Code that the garbage collector runs in the middle of an operation."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any


def at_each_allocation(act: Callable[[], object], finalise: Callable[[], object], allocations: int = 150) -> None:
    """Act again and again, each time with one more allocation before the collector runs, which calls `finalise`."""

    class Finalised:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            finalise()

    # The collector of PyPy cannot be told when to run: between two acts.
    get_threshold: Any = getattr(gc, "get_threshold", tuple)
    set_threshold: Any = getattr(gc, "set_threshold", lambda *thresholds: None)
    threshold = get_threshold()
    # It need not look at what there was before.
    freeze: Any = getattr(gc, "freeze", gc.collect)
    freeze()
    try:
        for allowed in range(1, allocations):
            gc.disable()
            gc.collect()
            set_threshold(allowed)
            Finalised()
            gc.enable()
            act()
    finally:
        getattr(gc, "unfreeze", gc.collect)()
        set_threshold(*threshold)
        gc.enable()
