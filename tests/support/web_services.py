"""Servers of HTTP on free ports of the loopback interface, each in a thread, and what their tests send and set."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import quote, unquote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import uvicorn

from contextvars_cy import ContextVar, travel

request_id: ContextVar[str] = ContextVar("request_id", default="-")
tenant: ContextVar[str] = ContextVar("tenant", default="-")
attempt: ContextVar[Any] = ContextVar("attempt", default=0)
# A header with two of them.
BOTH = "request-id=r1,tenant=acme%20&%20co"


def register_for_servers() -> None:
    travel.register(request_id, "request-id", audience="public")
    travel.register(tenant, "tenant", audience="trusted")
    travel.register(attempt, "attempt", codec=int, audience="public", max_size=10)


def seen() -> list[Any]:
    return [request_id.get(), tenant.get(), attempt.get()]


@contextmanager
def asgi_server(app: Any, **settings: Any) -> Iterator[int]:
    """uvicorn, and the port that it serves the application on."""
    # Bound here, so that a client that comes before the server waits for it.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Those that it has by default on some Pythons only.
        protocols = {"loop": "asyncio", "http": "h11", "ws": "websockets-sansio"}
        config = uvicorn.Config(app, log_config=None, **{**protocols, **settings})
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    pass


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def pipelined(port: int, count: int, header: str = "") -> bytes:
    """What a server answers to requests that come all at once; the first has this header."""
    heads = ["GET / HTTP/1.1\r\nHost: here\r\n"] * count
    heads[0] += header
    heads[-1] += "Connection: close\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall("".join(f"{head}\r\n" for head in heads).encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


@contextmanager
def wsgi_server(app: Any) -> Iterator[int]:
    """wsgiref's server, with a thread for each request, and the port that it serves the application on."""
    server = make_server("127.0.0.1", 0, app, _ThreadingServer, _SilentHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def tell_baggage(scope: Any, receive: Any, send: Any) -> None:
    """An application of ASGI: what the `baggage` header of this request said, after those that were redirected to it.

    The path `/to/URL` redirects there. The header `x-connection` tells the client's end of the connection.
    """
    while (await receive()).get("more_body"):
        pass
    said = json.loads(unquote(scope["query_string"].decode()) or "[]")
    said.append(dict(scope["headers"]).get(b"baggage", b"").decode() or None)
    status, headers = 200, [(b"x-connection", str(scope["client"]).encode())]
    if scope["path"].startswith("/to/"):
        status = 307
        headers.append((b"location", f"{scope['path'][4:]}?{quote(json.dumps(said))}".encode()))
    body = json.dumps(said).encode()
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
