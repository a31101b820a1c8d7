"""Where a token is made, for the errors about it: asked in debug mode only."""

from __future__ import annotations

import sys
import threading
from types import FrameType


def origin() -> str:
    """The program's line that runs, its thread and its task: "at app.py:12 in handle, thread MainThread, task 3"."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and f"{frame.f_globals.get('__name__')}.".startswith(f"{__package__}."):
        frame = frame.f_back
    place = "in C code"
    if frame is not None:
        place = f"at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    return f"{place}, thread {threading.current_thread().name}{_task()}"


def _task() -> str:
    # A loop that runs has been imported, and one that is still being imported runs no task.
    for name in ("asyncio.tasks", "trio.lowlevel"):
        current_task = getattr(sys.modules.get(name), "current_task", None)
        if current_task is not None:
            try:
                task = current_task()
            except RuntimeError:
                # Another loop, or none.
                continue
            if task is not None:
                return f", task {task.name if name.startswith('trio') else task.get_name()}"
    return ""
