"""A service of WSGI whose answers come in parts: each part is made later, in the Context of its own request.

The server takes the parts of two answers in turn, in one thread, as servers with greenlets do. First the service is
asked by HTTP, through the standard library's own server.

It prints:

    by HTTP: row 1 for r1, row 2 for r1
    in turn: row 1 for r2
    in turn: row 1 for r3
    in turn: row 2 for r2
    in turn: row 2 for r3
    afterwards: -
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.util import setup_testing_defaults

from contextvars_cy import ContextVar, travel
from contextvars_cy.integrations.wsgi import TravelMiddleware

request_id = ContextVar("request_id", default="-")
travel.register(request_id, "request-id", audience="public")


def rows(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield f"row 1 for {request_id.get()}".encode()
    yield f", row 2 for {request_id.get()}".encode()


class SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def ask_by_http(app: Any) -> str:
    with make_server("127.0.0.1", 0, app, handler_class=SilentHandler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        request = Request(f"http://127.0.0.1:{server.server_port}/", headers={"baggage": "request-id=r1"})
        with urlopen(request) as response:
            text: str = response.read().decode()
        thread.join()
    return text


def ask(app: Any, baggage: str) -> Any:
    environ: dict[str, Any] = {"HTTP_BAGGAGE": baggage}
    setup_testing_defaults(environ)
    return app(environ, lambda status, headers: None)


if __name__ == "__main__":
    app = TravelMiddleware(rows)
    print("by HTTP:", ask_by_http(app))
    bodies = [ask(app, "request-id=r2"), ask(app, "request-id=r3")]
    for parts in zip(*bodies):
        for part in parts:
            print("in turn:", part.decode().strip(", "))
    for body in bodies:
        body.close()
    print("afterwards:", request_id.get())
