"""What tools/demo_travel.py runs: two services, a task of a queue, and one of a cluster. Each writes a line to the log.

A client calls `shop`, which calls `stock`, which puts a task into the queue, which submits work to the cluster.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import distributed
import httpx
import uvicorn
from celery import Celery
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from contextvars_cy import ContextVar, travel
from contextvars_cy.integrations import asgi, celery, dask
from contextvars_cy.integrations import httpx as httpx_integration

request_id = ContextVar("request_id", default="-")
tenant = ContextVar("tenant", default="-")
travel.register(request_id, "request-id", audience="public")
travel.register(tenant, "tenant", audience="trusted")

BROKER, SCHEDULER, STOCK, LOG = (os.environ.get(f"DEMO_{name}", "") for name in ("BROKER", "SCHEDULER", "STOCK", "LOG"))
TENANTS = 7


def log(hop: str, order: int) -> None:
    """A line of JSON. The order is a plain argument; what the variables hold is what is being checked."""
    line = {"hop": hop, "order": order, "request_id": request_id.get(), "tenant": tenant.get()}
    with Path(LOG, f"{os.getpid()}.log").open("a", encoding="utf-8") as file:
        print(json.dumps(line), file=file)


# ---- the cluster ----


def pick(order: int) -> int:
    log("cluster", order)
    return order


@cache
def cluster() -> distributed.Client:
    client: distributed.Client = dask.Client(SCHEDULER)
    return client


# ---- the queue ----

app = Celery("demo_travel_parts", broker=BROKER, backend=BROKER)
app.conf.broker_connection_retry_on_startup = True
celery.connect(app)


@app.task(name="reserve")
def reserve(order: int) -> Any:
    log("queue", order)
    return cluster().submit(pick, order, pure=False).result()


# ---- the services ----


async def serve_stock(request: Any) -> JSONResponse:
    order = int(request.path_params["order"])
    log("stock", order)
    result = await asyncio.to_thread(lambda: reserve.delay(order).get(timeout=60))
    log("stock, afterwards", order)
    return JSONResponse(result)


async def serve_shop(request: Any) -> JSONResponse:
    order = int(request.path_params["order"])
    # The shop knows its customers. A client that says so itself is not believed.
    with tenant.set(f"tenant {order % TENANTS}"):
        log("shop", order)
        response = await request.app.state.client.get(f"{STOCK}/{order}", timeout=90)
        log("shop, afterwards", order)
        return JSONResponse({"order": response.json(), "request_id": request_id.get(), "tenant": tenant.get()})


@asynccontextmanager
async def with_client(app: Starlette) -> Any:
    async with httpx.AsyncClient() as client:
        httpx_integration.connect(client, audience="trusted")
        app.state.client = client
        yield


stock = Starlette(
    routes=[Route("/{order}", serve_stock)], middleware=[Middleware(asgi.TravelMiddleware, audience="trusted")]
)
shop = Starlette(
    routes=[Route("/{order}", serve_shop)], middleware=[Middleware(asgi.TravelMiddleware)], lifespan=with_client
)


def main(name: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    service = {"shop": shop, "stock": stock}[name]
    uvicorn.Server(uvicorn.Config(service, log_level="warning")).run([listening])
