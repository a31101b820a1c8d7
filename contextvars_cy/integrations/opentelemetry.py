"""OpenTelemetry: a span may be detached in another task, and registered variables are Baggage.

- `RuntimeContext` holds OpenTelemetry's current Context in our variables. `OTEL_PYTHON_CONTEXT=contextvars_cy` chooses
  it.
- `to_baggage` puts what is registered with `travel` into OpenTelemetry's Baggage, and `from_baggage` takes it from
  there.
- `BaggagePropagator` sends it with each request that OpenTelemetry instruments.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any
from weakref import ref

from .. import MISSING, ContextVar, Token, current_context, host
from .. import Context as OurContext
from .._late import keep_builtins
from ..travel import Audience, Capsule, _check_audience, _registered_for, _report, capture
from ._needed import needed

with needed("opentelemetry"):
    from opentelemetry import baggage
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import get_current
    from opentelemetry.context.context import Context, _RuntimeContext
    from opentelemetry.propagators.textmap import Setter, default_setter

if TYPE_CHECKING:
    from opentelemetry.propagators.textmap import CarrierT

__all__ = ["BaggagePropagator", "RuntimeContext", "from_baggage", "to_baggage"]


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]


# ---- the current Context of OpenTelemetry ----


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


# ---- Baggage ----


def to_baggage(
    context: Context | None = None,
    *,
    audience: Audience = "public",
    only: Iterable[ContextVar[Any]] | None = None,
    strict: bool = False,
) -> Context:
    """Return a Context of OpenTelemetry's whose Baggage has the values that this audience may see. O(n).

    The Context is made from the current one unless another is given. Entries of other programs stay; those of
    registered names are replaced or removed, since they are values of another moment. `only` and `strict` are those of
    `travel.capture`: a value that cannot be encoded is left out with a TravelWarning, or raises TravelError.

    OpenTelemetry sends the Baggage of the Context that is attached to each server that instrumented code calls, so what
    is for a narrower audience than `"public"` is not to be attached where such code may call a stranger.

    >>> from contextvars_cy.travel import register
    >>> plan = ContextVar("plan")
    >>> register(plan, "plan", audience="public")
    >>> with plan.set("free"):
    ...     context = to_baggage(only=[plan])
    >>> baggage.get_baggage("plan", context)
    'free'
    """
    capsule = capture(only=only, audience=audience, strict=strict)
    context = get_current() if context is None else context
    for name in _registered_for("process"):
        if name in baggage.get_all(context):
            context = baggage.remove_baggage(name, context)
    for name, text in capsule.items():
        context = baggage.set_baggage(name, text, context)
    return context


def from_baggage(context: Context | None = None, *, audience: Audience = "public", strict: bool = False) -> Capsule:
    """Return a Capsule, for `travel.restore`, of what the Baggage says of registered variables. O(n).

    The Baggage is that of OpenTelemetry's current Context unless another is given. Say who has written it: from a
    `"public"` one only variables that are registered as public come in. What is not text is left out with a
    TravelWarning, or raises TravelError if `strict`; entries of other programs are passed over.

    >>> from contextvars_cy.travel import register, restore
    >>> seat = ContextVar("seat")
    >>> register(seat, "seat", codec=int, audience="public")
    >>> with restore(from_baggage(baggage.set_baggage("seat", "12"))):
    ...     seat.get()
    12
    """
    _check_audience(audience)
    entries, problems = {}, []
    found = baggage.get_all(context)
    for name in _registered_for(audience):
        if name not in found:
            continue
        text = found[name]
        if type(text) is not str:
            problems.append(f"{name}: its entry in the Baggage is a {type(text).__name__}, not a str")
        elif any("\ud800" <= character <= "\udfff" for character in text):
            problems.append(f"{name}: its entry in the Baggage has half of a character")
        else:
            entries[name] = text
    _report(problems, strict)
    return Capsule(entries)


class BaggagePropagator(W3CBaggagePropagator):
    """OpenTelemetry's own for Baggage, which also sends registered variables, with their values at that moment.

    In the place of `W3CBaggagePropagator`, it serves each library that OpenTelemetry instruments. Of registered names
    it sends what the audience may see, and nothing else, whatever is in the Baggage. It extracts as its base class
    does; `from_baggage` takes the variables from there. ValueError if the audience is unknown.

    >>> from contextvars_cy.travel import register
    >>> colour = ContextVar("colour")
    >>> register(colour, "colour", audience="public")
    >>> headers = {}
    >>> with colour.set("dark red"):
    ...     BaggagePropagator().inject(headers)
    >>> headers["baggage"]
    'colour=dark+red'
    """

    def __init__(self, audience: Audience = "public") -> None:
        _check_audience(audience)
        self._audience = audience

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Write the Baggage, and the values that the audience may see, into the carrier. O(n)."""
        super().inject(carrier, to_baggage(context, audience=self._audience), setter)


keep_builtins()
