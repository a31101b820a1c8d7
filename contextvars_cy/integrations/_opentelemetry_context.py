"""Where OpenTelemetry's current Context is kept: apart from the rest of the integration, because OpenTelemetry loads it
while its own module `opentelemetry.context` is half imported, and all but `opentelemetry.context.context` needs that.
"""

from __future__ import annotations

from contextlib import suppress
from threading import get_ident
from typing import Any
from weakref import ref

from .. import MISSING, ContextVar, Token, current_context, host
from .. import Context as OurContext
from .._late import keep_builtins
from ._needed import needed

with needed("opentelemetry"):
    from opentelemetry.context.context import Context, _RuntimeContext


class _Entry:
    """A Context of OpenTelemetry's that was attached: the value of the variable."""

    __slots__ = ("before", "context", "ended_in")

    # What was current before it; known once it is detached in another Context than the one it was attached in.
    before: _Entry

    def __init__(self, context: Context) -> None:
        self.context = context
        # Weak references to the Contexts that it is no longer current in, although they may still hold it.
        self.ended_in: tuple[ref[Any], ...] = ()

    def living(self, place: Any) -> _Entry:
        """This, or the first one before it that has not ended in that place."""
        entry = self
        while any(ended() is place for ended in entry.ended_in):
            entry = entry.before
        return entry


class _Attached:
    """What `attach` returns."""

    __slots__ = ("entry", "home", "thread", "token")

    def __init__(self, entry: _Entry, token: Token[_Entry]) -> None:
        self.entry = entry
        self.token = token
        self.home = current_context()
        self.thread = get_ident()

    def __repr__(self) -> str:
        return f"<attached {self.entry.context!r} by {self.token!r}>"


class RuntimeContext(_RuntimeContext):
    """Holds OpenTelemetry's current Context, which contains the current span, in a variable of ours.

    The environment variable `OTEL_PYTHON_CONTEXT=contextvars_cy` makes OpenTelemetry use it.

    OpenTelemetry's own fails to detach a span in another Context than the one it was attached in, such as that of the
    task which closes an async generator: it logs `ValueError: <Token ...> was created in a different Context`, and the
    span stays current where it was attached. This one ends it there, and in the Context that detaches it. Other tasks
    and threads that inherited the span keep it.

    >>> runtime = RuntimeContext()
    >>> token = runtime.attach(Context({"span": 1}))
    >>> runtime.get_current()
    {'span': 1}
    >>> OurContext().run(runtime.detach, token)
    >>> runtime.get_current()
    {}
    """

    def __init__(self) -> None:
        self._nothing = _Entry(Context())
        self._current: ContextVar[_Entry] = ContextVar("opentelemetry_context", default=self._nothing)

    def attach(self, context: Context) -> Any:
        """Make a Context of OpenTelemetry's the current one; return a token for `detach`. O(log n)."""
        # So that what has ended does not become what was before.
        self._settle()
        entry = _Entry(context)
        return _Attached(entry, self._current.set(entry))

    def get_current(self) -> Context:
        """Return the current Context of OpenTelemetry's; an empty one if none is attached. O(log n)."""
        entry = self._current.get()
        return (self._settle() if entry.ended_in else entry).context

    def detach(self, token: Any) -> None:
        """Make current again what was so before the `attach` that made the token. O(log n).

        It may be called in any Context, task or thread, once. TypeError if it is no token of `attach`, RuntimeError if
        it was used already, ValueError if it is that of another RuntimeContext; an error changes nothing.
        `opentelemetry.context.detach` logs errors, and does not raise them.
        """
        if type(token) is not _Attached:
            raise TypeError(f"detach() takes what attach() returned, not {token!r}")
        entry = token.entry
        if entry.ended_in:
            raise RuntimeError(f"{token!r} has already been used once")
        if self._current.try_reset(token.token):
            self._settle()
            return
        home = _place(token.home)
        before = token.token.old_value
        entry.before = (self._nothing if before is MISSING else before).living(home)
        entry.ended_in = ref(home), ref(_place(current_context()))
        self._settle()
        # Another thread may need to enter it just now. Where it is entered, its next look settles it.
        if token.thread == get_ident():
            with suppress(RuntimeError):
                token.home.run(self._settle)

    def _settle(self) -> _Entry:
        """Make the first one current that has not ended here."""
        entry = self._current.get()
        if not entry.ended_in:
            return entry
        living = entry.living(_place(current_context()))
        if living is not entry:
            self._current.set(living)
        return living


def _place(context: OurContext) -> Any:
    """What stays the same object as long as code can run in the Context, and does not keep itself alive."""
    return context.native if host == "native" else context


keep_builtins()
