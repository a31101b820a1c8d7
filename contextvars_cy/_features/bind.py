"""Functions that carry a Context to the place where they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import update_wrapper
from sys import modules
from typing import TYPE_CHECKING, Any, TypeVar

from .._backend import host
from .._context.collector import while_none_is_collected
from .._context.twin import Context, ContextVar, assign, copy_context, current_context
from .._sealed import published
from .apply import values_of
from .isolated import mark_if_coroutine_function

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")

R = TypeVar("R")


@published
def bind(fn: Callable[P, R], /, only: Iterable[ContextVar[Any]] | None = None) -> Callable[P, R]:
    """Return a function that calls `fn` in a copy of the Context as it is now; each call gets a new copy. O(1).

    For callbacks, timers and threads, which start with an empty Context (CPython issue 86981). Many threads may call it
    at once, and no call sees what another sets; on the native host that includes `decimal`'s precision.

    `only` names the variables to carry. The callee does not see the others, or keep their values alive. A timer keeps
    its own Context: start it by `Context().run(loop.call_later, 60, bind(...))`. TypeError if `fn` is not callable, or
    `only` names something other than a ContextVar. The function does not pickle.

    The function has the name, docstring and signature of `fn`. If `fn` makes a coroutine or a generator, the copy
    serves only to make it: its body runs in the Context of the code that awaits it or iterates over it.

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
        give_decimal = decimal_of(context)
    else:
        values = values_of(current_context(), only, "bind")
        context, give_decimal = Context(), None
        context.run(assign, values)

    def bound(*args: P.args, **kwargs: P.kwargs) -> R:
        copy = context.copy()
        if give_decimal is not None:
            give_decimal(copy)
        return copy.run(fn, *args, **kwargs)

    update_wrapper(bound, fn)
    mark_if_coroutine_function(bound, fn)
    return bound


def copy_for_a_thread() -> Context:
    """Copy the current Context for a thread that must share no mutable state of the standard library."""
    context = copy_context()
    give_decimal = decimal_of(context)
    if give_decimal is not None:
        give_decimal(context)
    return context


def decimal_of(context: Context) -> Callable[[Context], None] | None:
    """A function that gives a Context a copy of this one's present `decimal` context; None if there is none.

    It is mutable, and the value of a native variable: a Context and its copies share it, in all threads.
    """
    decimal = modules.get("decimal")
    # Missing while `decimal` is being imported.
    setcontext = getattr(decimal, "setcontext", None)
    if decimal is None or setcontext is None or host == "thread":
        return None
    # The native Context's, which tells no watcher.
    run: Any = context.native.run
    numbers = while_none_is_collected(run, decimal.getcontext).copy()

    def give(copy: Context) -> None:
        while_none_is_collected(copy.native.run, setcontext, numbers.copy())

    return give
