"""A shop streams rows from an async generator that has a span of its own, and the customer leaves early.

The event loop closes the generator in another task. With OpenTelemetry's own context the span would stay current, with
an error in the log; with ours the next span is a child of the request again. Then the request's plan goes to another
service as Baggage, and its tenant does not, since that is for trusted services alone.

It prints:

    rows 1 is inside of request
    charge is inside of request
    errors: 0
    sent: plan=free
    there: free, -
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

# Before OpenTelemetry is imported; as a rule it is set outside, in the environment of the program.
os.environ["OTEL_PYTHON_CONTEXT"] = "contextvars_cy"

from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from contextvars_cy import Context as OurContext
from contextvars_cy import ContextVar, travel
from contextvars_cy.integrations.opentelemetry import BaggagePropagator, from_baggage

PLAN, TENANT = ContextVar("PLAN", default="-"), ContextVar("TENANT", default="-")
travel.register(PLAN, "plan", audience="public")
travel.register(TENANT, "tenant", audience="trusted")

tracer = trace.get_tracer("shop")


class Count(logging.Handler):
    errors = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.errors += 1


class Tell(SpanProcessor):
    """Prints what each span is inside of, as a trace would show it."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        self.names[span.context.span_id] = span.name
        if span.parent is not None:
            print(span.name, "is inside of", self.names[span.parent.span_id])

    def on_end(self, span: ReadableSpan) -> None:
        pass


async def rows() -> AsyncIterator[int]:
    for number in (1, 2, 3):
        with tracer.start_as_current_span(f"rows {number}"):
            yield number


async def request() -> dict[str, str]:
    headers: dict[str, str] = {}
    with tracer.start_as_current_span("request"), PLAN.set("free"), TENANT.set("acme"):
        stream = rows()
        await stream.__anext__()
        await asyncio.create_task(stream.aclose())  # type: ignore[attr-defined]
        with tracer.start_as_current_span("charge"):
            propagate.inject(headers)
    return headers


def other_service(headers: dict[str, str]) -> None:
    context = propagate.extract(headers)
    assert "tenant" not in baggage.get_all(context)
    with travel.restore(from_baggage(context)):
        print(f"there: {PLAN.get()}, {TENANT.get()}")


if __name__ == "__main__":
    count = Count()
    logging.getLogger("opentelemetry").addHandler(count)
    provider = TracerProvider()
    provider.add_span_processor(Tell())
    trace.set_tracer_provider(provider)
    propagate.set_global_textmap(BaggagePropagator())

    headers = asyncio.run(request())
    print("errors:", count.errors)
    print("sent:", headers["baggage"])
    OurContext().run(other_service, headers)
