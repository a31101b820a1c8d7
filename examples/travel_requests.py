"""Own services get the tenant, others the request id alone, and one of them nothing, also after a redirect.

127.0.0.1 stands for an own service and localhost for a stranger: to a session of requests they are two hosts. The
server here, the standard library's, answers with the header that it got, or redirects.

It prints:

    to us: request-id=r1,tenant=acme
    to a stranger: request-id=r1
    from us on to a stranger: request-id=r1
    to a stranger who gets nothing: None
    from us on to that one: None
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from contextvars_cy import ContextVar, assign, travel
from contextvars_cy.integrations.requests import connect

request_id = ContextVar("request_id", default="-")
tenant = ContextVar("tenant", default="-")
travel.register(request_id, "request-id", audience="public")
travel.register(tenant, "tenant", audience="trusted")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = str(self.headers["baggage"]).encode()
        if self.path.startswith("/to/"):
            self.send_response(307)
            self.send_header("Location", self.path[4:])
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    us, stranger = f"http://127.0.0.1:{server.server_port}/", f"http://localhost:{server.server_port}/"
    with requests.Session() as session, assign({request_id: "r1", tenant: "acme"}):
        connect(session, hosts={"127.0.0.1": "trusted"})
        print("to us:", session.get(us).text)
        print("to a stranger:", session.get(stranger).text)
        print("from us on to a stranger:", session.get(f"{us}to/{stranger}").text)
        connect(session, hosts={"127.0.0.1": "trusted", "localhost": None})
        print("to a stranger who gets nothing:", session.get(stranger).text)
        print("from us on to that one:", session.get(f"{us}to/{stranger}").text)
    server.shutdown()
    thread.join()
    server.server_close()
