"""joblib's tasks have the values of the Context that called `Parallel`.

`Parallel` replaces `joblib.Parallel`; `joblib.delayed` stays as it is. The values are those of the moment when
`Parallel(...)(tasks)` is called, whenever and in whatever thread joblib takes the tasks from a generator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

from .. import bind, travel
from .._late import keep_builtins
from ._needed import needed
from ._worker import call_here

with needed("joblib"):
    import joblib

__all__ = ["Parallel"]


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]


def _call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return fn(*args, **kwargs)


class _Call:
    """Calls functions in copies of the Context that it was made in; in another process with the registered values."""

    __slots__ = ("_bound", "_capsule")

    def __init__(self) -> None:
        # Here, not when it is pickled, which a thread of joblib's does.
        self._bound, self._capsule = bind(_call), travel.capture()

    def __call__(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return self._bound(fn, *args, **kwargs)

    def __reduce__(self) -> Any:
        return functools.partial, (call_here, self._capsule)


class _Tasks:
    def __init__(self, tasks: Iterable[Any]) -> None:
        self._tasks, self._call = tasks, _Call()

    def __iter__(self) -> Iterator[Any]:
        call = self._call
        for fn, args, kwargs in self._tasks:
            yield call, (fn, *args), kwargs


class _SizedTasks(_Tasks):
    """joblib's progress tells how many are left, if it can know that."""

    _tasks: Any

    def __len__(self) -> int:
        return len(self._tasks)


class Parallel(joblib.Parallel):
    """A `joblib.Parallel` whose tasks have the values of the Context that called it.

    The arguments are those of `joblib.Parallel`. Each task has a Context of its own: it sees nothing of the tasks
    before it in the same worker, and the caller sees nothing of what it sets. In processes it has the variables that
    are registered with `contextvars_cy.travel`; in threads, and with `n_jobs=1`, a copy of the whole Context. A value
    that cannot travel stays here, with a `TravelWarning`.

    >>> import joblib
    >>> from contextvars_cy import ContextVar
    >>> user = ContextVar("user", default="nobody")
    >>> with user.set("ada"):
    ...     Parallel(n_jobs=2, prefer="threads")(joblib.delayed(user.get)() for _ in range(3))
    ['ada', 'ada', 'ada']
    """

    def __call__(self, iterable: Iterable[Any]) -> Any:
        """Run the tasks, which `joblib.delayed` makes, with the values of now. O(1) more for each task."""
        return super().__call__((_SizedTasks if isinstance(iterable, Sized) else _Tasks)(iterable))


keep_builtins()
