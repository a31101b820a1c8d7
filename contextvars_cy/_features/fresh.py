"""A Context with only a few variables' values, for a block, a function, a generator or a coroutine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from sys import modules
from types import TracebackType
from typing import Any, TypeVar, Union

from .._backend import host
from .._context.twin import Context, ContextVar, assign, current_context
from .._sealed import published
from .._sentinels import MISSING
from .apply import values_of, variables_in
from .isolated import isolate

# As of `isolated`.
T = TypeVar("T", bound=Union[Callable[..., Any], Iterator[Any], AsyncIterator[Any], Awaitable[Any]])


@published
def fresh(keep: Iterable[ContextVar[Any]] = ()) -> _Fresh:
    """Return what runs code in a fresh Context: there only the variables in `keep` have values, those of the moment.

    `with fresh(keep=[tenant]):` is for some lines, and returns the Context. `@fresh(keep=[tenant])` is for a function,
    a generator, an async generator or a coroutine function: each call has a Context of its own, and every step of what
    it returns runs in there, as with `isolated`. Code inside does not see other values, and nothing of what it sets is
    left outside: so a thread, task or server that does one piece of work after another carries nothing over. One object
    serves many blocks and calls, also at once.

    On the native host the variables of the standard library have no values either: `decimal` computes as at the
    program's start. But a `with` in a task of asyncio or trio may await, so it stays in the task's own Context, takes
    our variables' values away there and brings them back at its end; those of the standard library stay as they are.

    O(m) for m variables to keep, and for a `with` in a task O(n log n) for n that have values. TypeError if `keep` is
    not an iterable of ContextVars, or for what `isolated` does not take; RuntimeError for a block that ends in another
    Context than it began in.

    Modelled on what WSGI and ASGI servers owe each request: a Context without the values of the last one (CPython issue
    140947).

    >>> tenant, user = ContextVar("tenant", default="-"), ContextVar("user", default="nobody")
    >>> _ = assign({tenant: "acme", user: "ada"})
    >>> with fresh(keep=[tenant]):
    ...     tenant.get(), user.get(), user.set("grace") is None
    ('acme', 'nobody', False)
    >>> @fresh()
    ... def work():
    ...     return tenant.get(), user.get()
    >>> work(), user.get()
    (('-', 'nobody'), 'ada')
    """
    return _Fresh(variables_in(keep, "keep", "fresh"))


class _Fresh:
    """Not the Context itself, because one of these may be entered by many tasks and threads at once."""

    __slots__ = ("_entered", "_keep")

    def __init__(self, keep: tuple[ContextVar[Any], ...]) -> None:
        self._keep = keep
        # By the address of the Context that each block runs in, and which is kept alive here: how to end it.
        self._entered: dict[int, list[_Block]] = {}

    def __call__(self, target: T, /) -> T:
        return isolate(target, self._make, "fresh")

    def _make(self) -> Context:
        values = values_of(current_context(), self._keep, "fresh")
        context = Context()
        context.run(assign, values)
        return context

    def __enter__(self) -> Context:
        if host == "native" and _in_a_task():
            context = current_context()
            before = context.copy()
            try:
                for var in [var for var in values_of(context, None, "fresh") if var not in self._keep]:
                    var.unset()
            except BaseException:
                _give_back(before)
                raise
        else:
            context, before = self._make(), None
            context.__enter__()
        self._entered.setdefault(id(context), []).append((context, before))
        return context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        here = current_context()
        blocks = self._entered.get(id(here))
        if not blocks:
            self._refuse(here)
            return
        context, before = blocks.pop()
        if not blocks:
            del self._entered[id(context)]
        if before is None:
            context.__exit__(kind, error, traceback)
        else:
            _give_back(before)

    def _refuse(self, here: Context) -> None:
        """Raise the error of a block that ends in another Context than it began in."""
        if len(self._entered) == 1:
            # No other block can have begun there.
            _, ((context, before), *_) = self._entered.popitem()
            if before is None:
                # It knows best why it cannot be left.
                context.__exit__(None, None, None)
        raise RuntimeError(
            f"the block of `with fresh()` ends in another Context than it began in, {here!r}: decorate a generator by "
            "@fresh() instead"
        )

    def __repr__(self) -> str:
        return f"<contextvars_cy.fresh keep={[var.name for var in self._keep]!r}>"


# The values to bring back, or None if the block has entered a Context of its own.
_Block = tuple[Context, Union[Context, None]]


def _in_a_task() -> bool:
    """Whether an event loop that follows the interpreter's own contexts is running this code as a part of a task."""
    for name in ("asyncio.tasks", "trio.lowlevel"):
        # Missing while it is being imported.
        current_task = getattr(modules.get(name), "current_task", None)
        if current_task is not None:
            try:
                if current_task() is not None:
                    return True
            except RuntimeError:
                # Another loop, or none.
                continue
    return False


def _give_back(before: Context) -> None:
    """Give all variables in the current Context the values that they had before, whoever has changed them."""
    now, then = values_of(current_context(), None, "fresh"), values_of(before, None, "fresh")
    for var in now:
        if var not in then:
            var.unset()
    assign({var: value for var, value in then.items() if now.get(var, MISSING) is not value})
