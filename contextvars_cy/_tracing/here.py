"""What a thread alone can tell of itself. All else is seen from any thread."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import get_ident
from typing import Any, NamedTuple

from .. import Context, current_context


class Here(NamedTuple):
    ident: int
    context: Context
    loop: Any
    trio_task: Any

    @classmethod
    def now(cls) -> Here:
        running_loop: Callable[[], Any] = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", _none)
        root_task: Callable[[], Any] = getattr(sys.modules.get("trio.lowlevel"), "current_root_task", _none)
        try:
            trio_task = root_task()
        except RuntimeError:
            trio_task = None
        return cls(get_ident(), current_context(), running_loop(), trio_task)


def _none() -> None:
    return None
