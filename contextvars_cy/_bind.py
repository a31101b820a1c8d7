"""Functions that take a Context along to wherever they are called."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from . import Context, ContextVar, assign, copy_context, current_context
from ._apply import values_of
from ._isolated import mark_if_coroutine_function
from ._sealed import PACKAGE

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")

R = TypeVar("R")


def bind(fn: Callable[P, R], /, only: Iterable[ContextVar[Any]] | None = None) -> Callable[P, R]:
    """Return a function that calls `fn` in a copy of the Context as it is now, a new copy for each call. O(1).

    For callbacks, timers and threads, which start with an empty Context (CPython issue 86981). Calls from many threads
    at once are fine, and none sees what another has set. `only` names the variables to take along, where the callee
    should not see, or keep alive, all the others: those have no value then. TypeError for what cannot be called, and
    where `only` names what is no ContextVar.

    The function has the name, docstring and signature of `fn`. Where that makes a coroutine or a generator, the copy is
    there for the making alone: its body runs in the Context of whoever awaits it, or iterates over it.

    >>> user = ContextVar("user", default="nobody")
    >>> with user.set("ada"):
    ...     callback = bind(user.get)
    >>> callback(), user.get()
    ('ada', 'nobody')
    """
    if not callable(fn):
        raise TypeError(f"bind() takes a callable, not {type(fn).__name__}")
    if only is None:
        context = copy_context()
    else:
        context = Context()
        context.run(assign, values_of(current_context(), only))

    @functools.wraps(fn)
    def bound(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(fn, *args, **kwargs)

    mark_if_coroutine_function(bound, fn)
    return bound


bind.__module__ = PACKAGE
