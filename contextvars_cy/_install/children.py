"""Under `python -m contextvars_cy run`, processes that `multiprocessing` starts afresh have our variables too.

Such a process gets a pickle of what it needs to know, and then the program's modules. A part of the pickle imports
`held` there. The server of `forkserver` is no such process, but imports modules in advance: `held` comes first, and
the program's main module, which would come before all others, not at all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from .._sealed import PACKAGE
from .when_imported import when_imported

HELD = f"{PACKAGE}._install.held"


class _Held:
    def __reduce__(self) -> Any:
        # The process sets its path to this one's as well, but only later.
        return exec, (f"import sys; sys.path[:] = path; import {HELD}", {"path": sys.path})


def hold_in_children() -> None:
    when_imported("multiprocessing.spawn", "get_preparation_data", _adapt_spawn)
    when_imported("multiprocessing.forkserver", "set_forkserver_preload", _adapt_forkserver)


def _adapt_spawn(spawn: Any) -> None:
    prepare = spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {PACKAGE: _Held(), **prepare(name)}

    spawn.get_preparation_data = get_preparation_data


def _adapt_forkserver(forkserver: Any) -> None:
    set_preload = forkserver.set_forkserver_preload

    def set_forkserver_preload(names: Iterable[str], *more: Any, **options: Any) -> None:
        set_preload([HELD, *(name for name in names if name != "__main__")], *more, **options)

    set_forkserver_preload([])
    forkserver.set_forkserver_preload = set_forkserver_preload
