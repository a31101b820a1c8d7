"""For debug mode: where a token is made, for the errors about it, and which defaults are mutable."""

from __future__ import annotations

import threading
import warnings
from sys import is_finalizing, modules
from typing import Any

from .._places import place_of, program_frame


def origin() -> str:
    """The program's current line, its thread and its task: "at app.py:12 in handle, thread MainThread, task 3"."""
    frame = program_frame()
    place = "in C code" if frame is None else f"at {place_of(frame)}"
    # By then other modules have lost their names.
    return f"{place}, " + ("when the interpreter ends" if is_finalizing() else f"thread {_thread_and_task()}")


def warn_of_shared_default(name: str, default: object) -> None:
    """Warn of a mutable default, such as a list; a hashable one counts as immutable."""
    if type(default).__hash__ is None:
        warn(
            f"every Context shares the default of ContextVar({name!r}), {default!r}, and what is changed in it: use "
            f"default_factory, as in ContextVar({name!r}, default_factory={type(default).__name__})"
        )


def warn(message: str) -> None:
    """Warn at the program's current line."""
    frame = program_frame()
    if frame is not None and not is_finalizing():
        warnings.warn_explicit(
            message,
            RuntimeWarning,
            frame.f_code.co_filename,
            frame.f_lineno,
            frame.f_globals.get("__name__"),
            frame.f_globals.setdefault("__warningregistry__", {}),
        )


def _thread_and_task() -> str:
    thread, task = threading.current_thread().name, current_task()
    if task is None:
        return thread
    return f"{thread}, task {task.get_name() if hasattr(task, 'get_name') else task.name}"


def current_task() -> Any:
    """The task of asyncio or trio that runs here, or None."""
    # A running loop has been imported, and one still being imported runs no task.
    for name in ("asyncio.tasks", "trio.lowlevel"):
        current_task = getattr(modules.get(name), "current_task", None)
        if current_task is not None:
            try:
                task = current_task()
            except RuntimeError:
                # Another loop, or none.
                continue
            if task is not None:
                return task
    return None
