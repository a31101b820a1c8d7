"""What `python -m contextvars_cy inspect` has a process do: its main thread calls `answer`, wherever it is."""

from __future__ import annotations

import _thread
import sys
from collections.abc import Callable

from .here import Here


def answer(say: Callable[[str], None]) -> None:
    here = Here.now()
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        # The main thread may hold a lock that the repr of a value takes; and an exception of a signal handler would be
        # lost here.
        _thread.start_new_thread(_tell, (here, say))
    else:
        # Its Contexts can be read only while it does nothing else.
        _tell(here, say)


def _tell(here: Here, say: Callable[[str], None]) -> None:
    try:
        import json

        from .inspecting import taken

        text = json.dumps(taken(here))
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
    say(text)
