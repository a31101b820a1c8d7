"""Makes the garbage collector wait."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

# Looked up now, because `gc` loses its names when the interpreter ends.
_CALL: Any = partial.__call__
_STOP, _RESUME, _collects = partial(gc.disable), partial(gc.enable), gc.isenabled
_RUNS_ANYWHERE = sys.implementation.name != "pypy" and sys.version_info < (3, 12)


def while_none_is_collected(call: Callable[..., T], *args: Any) -> T:
    """Call C code that sets a native variable, or copies a native Context.

    Before Python 3.12 any allocation may run the collector, even in the middle of this call. What a finaliser sets
    there is lost, and frees the map that CPython is reading (CPython issue 148891).
    """
    if not (_RUNS_ANYWHERE and _collects()):
        return call(*args)
    try:
        # One step, so that no signal handler or other thread runs while the collector is stopped.
        _, result, _ = map(_CALL, (_STOP, partial(call, *args), _RESUME))
    except BaseException:
        _RESUME()
        raise
    return result  # type: ignore[no-any-return]
