"""Debug mode: the LookupError of `get` tells where the variable was set, and why that is not seen."""

from __future__ import annotations

import sys
from typing import Any

from .._context.twin import implement
from .._sealed import PACKAGE, noted
from .recorder import Recorder

LIMIT = 10_000


class _WithoutValues(Recorder):
    """An error tells where a value was set, and need not show it: reprs take time."""

    def _shown(self, variable: int, value: Any) -> Any:
        return "set"


class Why(Exception):
    """Before Python 3.11, whose errors have notes, the cause of the LookupError."""


def _explain(error: LookupError, hint: str) -> LookupError:
    try:
        answer = _recording.why(error.args[0])
    except Exception:
        # As where the stack has no room, or at the interpreter's end.
        return noted(error, hint)
    if answer.is_set:
        return noted(error, hint)
    if sys.version_info < (3, 11):
        error.__cause__ = Why(answer.text)
    return noted(noted(error, answer.text), hint)


_recording = _WithoutValues(None, LIMIT).__enter__()
_recording.beginning = f"{PACKAGE} was imported"
implement("explain", _explain)
