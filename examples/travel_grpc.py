"""A gateway calls a warehouse by gRPC, and the warehouse's log names the request, also where it streams.

The warehouse is a server of grpc.aio that has one handler which is a coroutine, and one which is a plain function: gRPC
runs that in a thread. The gateway may be anybody, so the tenant, which is for trusted services alone, does not arrive.

It prints:

    r1 for -: reserve tea
    r1 for -: count tea
    r1 for -: count milk
    r2 for -: reserve milk
    gateway: 2 counted
    no request for -: reserve sugar
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc

from contextvars_cy import ContextVar, travel
from contextvars_cy.integrations.grpc import aio_client_interceptors, aio_server_interceptor

REQUEST = ContextVar("REQUEST", default="no request")
TENANT = ContextVar("TENANT", default="-")
travel.register(REQUEST, "request", audience="public")
travel.register(TENANT, "tenant", audience="trusted")


def log(what: str) -> None:
    print(f"{REQUEST.get()} for {TENANT.get()}: {what}")


# ---- the warehouse ----


async def reserve(goods: bytes, context: Any) -> bytes:
    log(f"reserve {goods.decode()}")
    return b"reserved"


def count(goods: bytes, context: Any) -> Iterator[bytes]:
    for one in goods.decode().split():
        log(f"count {one}")
        yield one.encode()


WAREHOUSE = grpc.method_handlers_generic_handler(
    "warehouse",
    {
        "reserve": grpc.unary_unary_rpc_method_handler(reserve),
        "count": grpc.unary_stream_rpc_method_handler(count),
    },
)


# ---- the gateway ----


async def main() -> None:
    server = grpc.aio.server(interceptors=[aio_server_interceptor()])
    server.add_generic_rpc_handlers([WAREHOUSE])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with grpc.aio.insecure_channel(address, interceptors=aio_client_interceptors()) as channel:
        call, stream = channel.unary_unary("/warehouse/reserve"), channel.unary_stream("/warehouse/count")
        with REQUEST.set("r1"), TENANT.set("acme"):
            await call(b"tea")
            number = len([one async for one in stream(b"tea milk")])
        with REQUEST.set("r2"):
            await call(b"milk")
        print(f"gateway: {number} counted")
        await call(b"sugar")
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
