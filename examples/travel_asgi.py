"""Two services of ASGI in a row: the request id of the first one's client is in the second one's log.

The gateway is open to anybody, so it takes only what is registered as public; a tenant that a client makes up is not
taken. The shop is reached by own services alone, so it takes the tenant too. Both run here, under uvicorn
(`pip install uvicorn httpx`), each in a thread.

It prints:

    gateway: request r1, tenant -
    shop: request r1, tenant acme
    gateway: request r2, tenant -
    shop: request r2, tenant acme
    gateway: request -, tenant -
    shop: request -, tenant acme
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from contextvars_cy import ContextVar, travel
from contextvars_cy.integrations.asgi import TravelMiddleware
from contextvars_cy.integrations.httpx import connect

request_id = ContextVar("request_id", default="-")
tenant = ContextVar("tenant", default="-")
travel.register(request_id, "request-id", audience="public")
travel.register(tenant, "tenant", audience="trusted")


async def answer(send: Any, text: str) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text.encode()})


async def shop(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await answer(send, f"shop: request {request_id.get()}, tenant {tenant.get()}")


class Gateway:
    def __init__(self, url_of_shop: str) -> None:
        self.url_of_shop = url_of_shop

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        here = f"gateway: request {request_id.get()}, tenant {tenant.get()}"
        tenant.set("acme")  # it has found out who the client is
        async with httpx.AsyncClient() as client:
            connect(client, hosts={"127.0.0.1": "trusted"})
            there = (await client.get(self.url_of_shop)).text
        await answer(send, f"{here}\n{there}")


@contextmanager
def serving(app: Any) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    with serving(TravelMiddleware(shop, audience="trusted")) as url_of_shop:
        with serving(TravelMiddleware(Gateway(url_of_shop))) as url, httpx.Client() as client:
            for baggage in ("request-id=r1", "request-id=r2,tenant=made-up", ""):
                print(client.get(url, headers={"baggage": baggage}).text)
