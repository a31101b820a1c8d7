"""Functions that carry a Context to the place where they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import update_wrapper
from sys import modules
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .._backend import host
from .._context.collector import while_none_is_collected
from .._context.twin import Context, ContextVar, assign, copy_context, current_context
from .._sealed import published
from .._sentinels import MISSING
from .apply import values_of, variables_in
from .isolated import mark_if_coroutine_function

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")

R = TypeVar("R")


class Returned(tuple[R, Context]):
    """What a function has returned, and a Context of the variables that it has changed, of those asked for."""

    __slots__ = ()

    # Copies lose nothing, unlike what a pickle brings.
    def __copy__(self) -> Returned[R]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Returned[R]:
        from copy import deepcopy

        value, changes = self
        return Returned((deepcopy(value, memo), changes.copy()))

    def __reduce__(self) -> Any:
        # It lies above, and few of these travel.
        from ..travel import capture, returned_elsewhere

        value, changes = self
        return returned_elsewhere, (value, capture(changes))


@overload
def bind(
    fn: Callable[P, R], /, only: Iterable[ContextVar[Any]] | None = None, *, returns: None = None
) -> Callable[P, R]: ...


@overload
def bind(
    fn: Callable[P, R], /, only: Iterable[ContextVar[Any]] | None = None, *, returns: Iterable[ContextVar[Any]]
) -> Callable[P, Returned[R]]: ...


@published
def bind(
    fn: Callable[P, Any],
    /,
    only: Iterable[ContextVar[Any]] | None = None,
    *,
    returns: Iterable[ContextVar[Any]] | None = None,
) -> Callable[P, Any]:
    """Return a function that calls `fn` in a copy of the Context as it is now; each call gets a new copy. O(1).

    For callbacks, timers and threads, which start with an empty Context (CPython issue 86981). Many threads may call it
    at once, and no call sees what another sets; on the native host that includes `decimal`'s precision.

    `only` names the variables to carry. The callee does not see the others, or keep their values alive. A timer keeps
    its own Context: start it by `Context().run(loop.call_later, 60, bind(...))`.

    `returns` names the variables whose changes come back: a call then returns `(value, changes)`, and `apply(changes)`
    sets in the current Context what `fn` has set.

    The function pickles, with `cloudpickle` and `dill` too, if `fn` does. In another process `fn` sees those variables
    alone that are registered with `contextvars_cy.travel`, and only their changes come back.

    It has the name, docstring and signature of `fn`. If `fn` makes a coroutine or a generator, the copy serves only to
    make it: its body runs in the Context of the code that awaits it or iterates over it.

    TypeError if `fn` is not callable, if `only` or `returns` names something other than a ContextVar, or for `returns`
    with a coroutine function.

    >>> user, rows = ContextVar("user", default="nobody"), ContextVar("rows", default=0)
    >>> with user.set("ada"):
    ...     callback = bind(user.get)
    >>> callback(), user.get()
    ('ada', 'nobody')
    >>> value, changes = bind(rows.set, returns=[rows])(3)
    >>> with apply(changes):
    ...     rows.get()
    3
    """
    if not callable(fn):
        raise TypeError(f"bind() takes a callable, not {type(fn).__name__}")
    asked = None if returns is None else variables_in(returns, "returns", "bind")
    if only is None:
        context = copy_context()
        give_decimal = decimal_of(context)
    else:
        values = values_of(current_context(), only, "bind")
        context, give_decimal = Context(), None
        context.run(assign, values)
    bound = _Bound(fn, context, give_decimal, asked)
    # What a class defines, such as `__reduce__`, is for its instances.
    update_wrapper(bound, fn, updated=() if isinstance(fn, type) else ("__dict__",))
    if mark_if_coroutine_function(bound, fn) and asked is not None:
        raise TypeError(f"bind() takes no returns for a coroutine function, whose call changes nothing yet: {fn!r}")
    return bound


class _Bound:
    """A function, as those of a class are methods; an object, because the pickle of a function is only its name."""

    __slots__ = ("__dict__", "__weakref__", "_context", "_fn", "_give_decimal", "_returns")

    def __init__(
        self,
        fn: Callable[..., Any],
        context: Context,
        give_decimal: Callable[[Context], None] | None,
        returns: tuple[ContextVar[Any], ...] | None,
    ) -> None:
        self._fn, self._context, self._give_decimal, self._returns = fn, context, give_decimal, returns

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        copy = self._context.copy()
        if self._give_decimal is not None:
            self._give_decimal(copy)
        value = copy.run(self._fn, *args, **kwargs)
        if self._returns is None:
            return value
        return Returned((value, self._changes_in(copy, self._returns)))

    def _changes_in(self, copy: Context, variables: tuple[ContextVar[Any], ...]) -> Context:
        before = self._context
        changed = {var: copy[var] for var in variables if var in copy and copy[var] is not before.get(var, MISSING)}
        changes = Context()
        changes.run(assign, changed)
        return changes

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    # As of a function.
    def __copy__(self) -> _Bound:
        return self

    def __deepcopy__(self, memo: object) -> _Bound:
        return self

    def __repr__(self) -> str:
        return f"<contextvars_cy.bind of {self._fn!r}>"

    def __reduce__(self) -> Any:
        # It lies above, and few of these travel.
        from ..travel import bound_elsewhere, capture

        return bound_elsewhere, (self._fn, capture(self._context), self._returns)


def check_callable(expected: str, given: object) -> None:
    if not callable(given):
        raise TypeError(f"{expected}, not {given!r}")


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
    # The native Context's: no watcher is told of an `enter`. Python 3.14 tells of the switch.
    run: Any = context.native.run
    numbers = while_none_is_collected(run, decimal.getcontext).copy()

    def give(copy: Context) -> None:
        while_none_is_collected(copy.native.run, setcontext, numbers.copy())

    return give
