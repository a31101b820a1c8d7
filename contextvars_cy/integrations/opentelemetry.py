"""OpenTelemetry: a span may be detached in another task, and registered variables are Baggage.

- `RuntimeContext` holds OpenTelemetry's current Context in our variables. `OTEL_PYTHON_CONTEXT=contextvars_cy` chooses
  it.
- `to_baggage` puts what is registered with `travel` into OpenTelemetry's Baggage, and `from_baggage` takes it from
  there.
- `BaggagePropagator` sends it with each request that OpenTelemetry instruments.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from .. import ContextVar
from .._late import keep_builtins
from ..travel import Audience, Capsule, capture, check_audience, inject, registered_for, report
from ._needed import needed

with needed("opentelemetry"):
    from opentelemetry import baggage
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import get_current
    from opentelemetry.context.context import Context
    from opentelemetry.propagators.textmap import Setter, default_setter

    # Last, because OpenTelemetry itself may import it meanwhile.
    from ._opentelemetry_context import RuntimeContext

if TYPE_CHECKING:
    from opentelemetry.propagators.textmap import CarrierT

__all__ = ["BaggagePropagator", "RuntimeContext", "from_baggage", "to_baggage"]


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]


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
    old = baggage.get_all(context)
    for name in registered_for("process"):
        if name in old:
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
    check_audience(audience)
    entries, problems = {}, []
    found = baggage.get_all(context)
    for name in registered_for(audience):
        if name not in found:
            continue
        text = found[name]
        if type(text) is not str:
            problems.append(f"{name}: its entry in the Baggage is a {type(text).__name__}, not a str")
        elif any("\ud800" <= character <= "\udfff" for character in text):
            problems.append(f"{name}: its entry in the Baggage has half of a character")
        else:
            entries[name] = text
    report(problems, strict)
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
        check_audience(audience)
        self._audience: Audience = audience

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Write the Baggage, and the values that the audience may see, into the carrier. O(n).

        Of a mapping that has such a header already, what it says of registered variables goes.
        """
        if isinstance(carrier, MutableMapping):
            inject(carrier, audience=self._audience, only=())
        super().inject(carrier, to_baggage(context, audience=self._audience), setter)


keep_builtins()
