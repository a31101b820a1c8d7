"""Values on their way, beside OpenTelemetry's baggage, a plain pool of processes, and an application alone."""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from contextvars_cy import executors, travel

from .measuring import (
    CELL_SECONDS,
    QUICK_CELL_SECONDS,
    BenchError,
    Row,
    Table,
    Timed,
    format_number,
    format_row,
    freeze,
    measure_time,
    row_of,
    run_apart,
)

THEIRS, OURS = "without", "contextvars_cy"
LEGEND = (
    "Microseconds. 5 variables of 100 are registered and travel.\n"
    "- inject, extract: a header written from the current values; one read, its values set, and set back. Without:\n"
    "  OpenTelemetry's W3CBaggagePropagator, with 5 entries, attached and detached.\n"
    "- pool: a call that does nothing, to its result, in one process. Without: the standard library's pool.\n"
    "- asgi, wsgi: a request with the 5 values, through an application that does nothing. Without: it alone."
)
# A call is some 100 microseconds, of which the operating system decides most.
POOL_SECONDS_FACTOR = 5
MIDDLEWARE_MICROSECONDS = 20


class Implementation(NamedTuple):
    distribution: str


IMPLEMENTATIONS = {THEIRS: Implementation("opentelemetry-api"), OURS: Implementation("contextvars_cy")}


def looped(action: Callable[[], object]) -> Timed:
    def run(loops: int) -> float:
        begin = time.perf_counter()
        for _ in range(loops):
            action()
        return time.perf_counter() - begin

    return run


def headers() -> dict[str, dict[str, Timed]]:
    baggage: Any = importlib.import_module("opentelemetry.baggage")
    context: Any = importlib.import_module("opentelemetry.context")
    propagator: Any = importlib.import_module("opentelemetry.baggage.propagation").W3CBaggagePropagator()
    from .registered import VALUES, fill

    fill()
    filled = context.Context()
    for name, value in VALUES.items():
        filled = baggage.set_baggage(name, value, filled)
    context.attach(filled)
    header: dict[str, str] = {}
    travel.inject(header, audience="public")

    def inject() -> None:
        travel.inject({}, audience="public")

    def extract() -> None:
        with travel.restore(travel.extract(header, audience="public")):
            pass

    return {
        "inject": {THEIRS: looped(lambda: propagator.inject({})), OURS: looped(inject)},
        "extract": {
            THEIRS: looped(lambda: context.detach(context.attach(propagator.extract(header)))),
            OURS: looped(extract),
        },
    }


def pools(operation: str) -> dict[str, dict[str, Timed]]:
    def pool_of(kind: Any) -> Timed:
        pool = kind(1)
        pool.submit(int).result()
        return looped(lambda: pool.submit(int).result())

    kinds = {THEIRS: concurrent.futures.ProcessPoolExecutor, OURS: executors.ProcessPoolExecutor}
    return {operation: {name: pool_of(kind) for name, kind in kinds.items()}}


def pools_of_unregistered() -> dict[str, dict[str, Timed]]:
    return pools("pool, nothing registered")


def pools_of_registered() -> dict[str, dict[str, Timed]]:
    # Not at the top, which the other rows of pools share.
    from . import registered

    registered.fill()
    return pools("pool, 5 values")


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    pass


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    return [b""]


def requests() -> dict[str, dict[str, Timed]]:
    from contextvars_cy.integrations.asgi import TravelMiddleware
    from contextvars_cy.integrations.wsgi import TravelMiddleware as WsgiMiddleware

    from .registered import fill

    fill()
    header: dict[str, str] = {}
    travel.inject(header, audience="public")
    raw = [(name.encode(), value.encode()) for name, value in header.items()]

    def asgi_requests(app: Any) -> Timed:
        async def serve(loops: int) -> float:
            begin = time.perf_counter()
            for _ in range(loops):
                await app({"type": "http", "headers": raw}, None, None)
            return time.perf_counter() - begin

        return lambda loops: asyncio.run(serve(loops))

    def wsgi_requests(app: Any) -> Timed:
        def serve() -> None:
            body = app({"HTTP_BAGGAGE": header["baggage"]}, None)
            for _ in body:
                pass
            getattr(body, "close", int)()

        return looped(serve)

    return {
        "asgi request": {
            THEIRS: asgi_requests(asgi_app),
            OURS: asgi_requests(TravelMiddleware(asgi_app, audience="public")),
        },
        "wsgi request": {
            THEIRS: wsgi_requests(wsgi_app),
            OURS: wsgi_requests(WsgiMiddleware(wsgi_app, audience="public")),
        },
    }


# Each in its own process: what is registered in one is not in the next.
GROUPS = {
    "headers": headers,
    "pool, nothing registered": pools_of_unregistered,
    "pool, 5 values": pools_of_registered,
    "requests": requests,
}


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--group", nargs="+", choices=GROUPS, default=list(GROUPS), help="groups of operations")


def choose(wanted: Sequence[str] | None) -> list[str]:
    try:
        importlib.import_module("opentelemetry.baggage.propagation")
    except ImportError as error:
        raise BenchError(f"{error}; run pip install opentelemetry-api") from error
    return [name for name in IMPLEMENTATIONS if name in (wanted or IMPLEMENTATIONS)]


def measure(names: Sequence[str], arguments: argparse.Namespace) -> Iterator[list[Row]]:
    print(LEGEND)
    print(format_row("operation", [*names, "times"]), flush=True)
    for group in arguments.group:
        yield run_apart(measure_group, group, names, arguments.quick)


def measure_group(group: str, names: Sequence[str], quick: bool) -> list[Row]:
    rows = []
    operations = GROUPS[group]()
    freeze()
    for operation, statements in operations.items():
        seconds = QUICK_CELL_SECONDS if quick else CELL_SECONDS
        if group.startswith("pool"):
            seconds *= POOL_SECONDS_FACTOR
        values = measure_time({name: statements[name] for name in names}, seconds, most_rounds=1000)
        row = row_of(operation, values, [(THEIRS, OURS)])
        print(format_row(operation, format_cells(row, names)), flush=True)
        rows.append(row)
    return rows


def format_cells(row: Row, names: Sequence[str]) -> list[str]:
    ratio = row.ratios.get(f"{THEIRS}/{OURS}")
    return [*(format_number(row.medians[name] * 1e6) for name in names), "-" if ratio is None else f"{1 / ratio:.3f}"]


def format_goals(table: Table) -> list[str]:
    lines = table.goal(THEIRS, OURS, "headers", 2.0, ["inject", "extract"])
    lines += table.goal(THEIRS, OURS, "a pool that carries values", 1 / 1.1, ["pool, 5 values"])
    lines += table.goal(THEIRS, OURS, "a pool with nothing registered", 1 / 1.02, ["pool, nothing registered"])
    for row in table.rows:
        if row.operation in ("asgi request", "wsgi request") and {THEIRS, OURS} <= set(row.medians):
            took = (row.medians[OURS] - row.medians[THEIRS]) * 1e6
            met = "met" if took <= MIDDLEWARE_MICROSECONDS else "missed"
            lines.append(f"{row.operation} at most {MIDDLEWARE_MICROSECONDS} microseconds longer: {met}, {took:.1f}")
    return lines
