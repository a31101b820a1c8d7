"""See where a value was set, copied and lost.

`with record() as recording:` records what happens to the variables and Contexts of a program, and `recording.why(var)`
tells why a variable is unset; `python -m contextvars_cy trace` does it for a program as it stands, and writes a page
for the browser. `snapshot()` tells what there is in this process at the moment, and `python -m contextvars_cy inspect
PID` in another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import ContextVar
from ._features.apply import check_iterable
from ._late import keep_builtins
from ._places import Place
from ._tracing.inspecting import SeenContext, SeenTask, SeenThread, Snapshot, snapshot
from ._tracing.recorder import LIMIT, Recorder
from ._tracing.recording import Recording
from ._tracing.secrets import secret

__all__ = ["Place", "Recording", "SeenContext", "SeenTask", "SeenThread", "Snapshot", "record", "secret", "snapshot"]


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]


def record(only: Iterable[ContextVar[Any] | str] | None = None, limit: int = LIMIT) -> Recorder:
    """Record what happens to variables and Contexts in all threads, in a `with` block, which gives the `Recording`.

    - `only`: the variables to record, or their names; all unless some are given.
    - `limit`: how many events are kept, the newest. Of Contexts at most twice as many are remembered.

    A recording keeps no value alive: it holds reprs, cut to 200 characters, and none of a `secret` variable. Each event
    costs some microseconds, and a repr. TypeError if `only` is no iterable of variables and names; ValueError if the
    limit is no number from 1 up.

    Of Contexts that an event loop copies in C it sees those of asyncio's own loops. Of others it says "unknown".

    >>> user = ContextVar("user", default="nobody")
    >>> with record() as recording:
    ...     token = user.set("ada")
    ...     user.reset(token)
    ...     user.get()
    'nobody'
    >>> [event.kind for event in recording.history(user)]
    ['set', 'reset', 'read']
    """
    if only is not None:
        check_iterable(only, "only", "record")
        only = list(only)
        for each in only:
            if type(each) is not ContextVar and not isinstance(each, str):
                raise TypeError(f"a ContextVar or its name was expected, got {each!r}")
    if not isinstance(limit, int) or limit < 1:
        raise ValueError(f"limit is a number of events from 1 up, not {limit!r}")
    return Recorder(only, limit)


keep_builtins()
