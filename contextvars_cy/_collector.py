"""Where the garbage collector has to wait."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

if sys.implementation.name == "pypy" or sys.version_info >= (3, 12):

    def while_none_is_collected(call: Callable[..., T], *args: Any) -> T:
        """Call C code that sets a native variable, or copies a native Context.

        Before Python 3.12 any allocation may run the collector, also those in the middle of this. What a finaliser sets
        there is lost (CPython issue 148891), and frees the map that CPython is reading.
        """
        return call(*args)

else:

    def while_none_is_collected(call: Callable[..., T], *args: Any) -> T:
        if not _collects():
            return call(*args)
        try:
            # One step, so that no signal handler and no other thread finds the collector stopped.
            _, result, _ = map(_call_partial, (_stop, partial(call, *args), _resume))
        except BaseException:
            _resume()
            raise
        return result  # type: ignore[no-any-return]

    _call_partial: Any = partial.__call__
    _stop, _resume, _collects = partial(gc.disable), partial(gc.enable), gc.isenabled
