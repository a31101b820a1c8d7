"""A small HTTP service that knows, wherever its code runs, which request it is working for.

The request id and the tenant come from the headers X-Request-Id and X-Tenant, the user from a function that runs in a
thread, as a framework runs a `def` dependency. Each request then passes through tasks, callbacks, a pool, an async
generator that is closed early, and a cleanup in another task. Each step logs one line of JSON, and a logging filter
stamps it with the values, so no function has to hand them on for the sake of the log.

    python examples/request_scope.py --port 8080
    curl -H 'X-Request-Id: 42' -H 'X-Tenant: blue' -H 'X-User: ada' http://127.0.0.1:8080/any/path

The log goes to standard error, or to a file with --log FILE. SIGTERM or Ctrl-C stops the service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import uuid
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from contextvars_cy import ContextVar, Token, apply, assign, copy_context, isolated
from contextvars_cy.executors import ThreadPoolExecutor

REQUEST_ID = ContextVar("request_id", default="-")
TENANT = ContextVar("tenant", default="-")
USER = ContextVar("user", default="-")
SPAN = ContextVar("span", default="-")

STOP_SECONDS = 10.0
logger = logging.getLogger("request_scope")


class BadRequest(Exception):
    """Raised with an explanation when a request cannot be understood."""


class Request(NamedTuple):
    path: str
    headers: dict[str, str]
    keep_alive: bool


class ScopeFilter(logging.Filter):
    """Stamp every record with the request it belongs to."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id, record.tenant = REQUEST_ID.get(), TENANT.get()
        record.user, record.span = USER.get(), SPAN.get()
        return True


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # Records of other loggers, such as asyncio's, have no step and no expected request id.
        names = ("request_id", "tenant", "user", "span", "step", "expected", "levelname", "threadName")
        fields = {name: getattr(record, name, None) for name in names}
        fields["message"] = record.getMessage()
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def log_step(step: str, expected: str) -> str:
    """Log one record and return the request id that the context holds here.

    The expected request id comes as an ordinary argument, so that a reader of the log can compare the two.
    """
    logger.info("step %s", step, extra={"step": step, "expected": expected})
    return REQUEST_ID.get()


async def log_after_switch(step: str, expected: str) -> str:
    # Giving way first lets other requests run in between, which is when a context could get mixed up.
    await asyncio.sleep(0)
    return log_step(step, expected)


def log_and_finish(future: asyncio.Future[str], step: str, expected: str) -> None:
    if not future.cancelled():
        future.set_result(log_step(step, expected))


@isolated
async def rows() -> AsyncIterator[int]:
    # Without `isolated`, who iterates would see this span, and keep it if the iteration ends early.
    with SPAN.set("rows"):
        for number in range(100):
            await asyncio.sleep(0)
            yield number


def authenticate(name: str) -> None:
    """Stand for work that blocks, such as asking a database who it is."""
    USER.set(name)


async def clean_up(token: Token[str], expected: str) -> str:
    # In a task of its own, and so in another Context than the one where the span began.
    SPAN.try_reset(token)
    return log_step("cleanup", expected)


def parse_request(head: bytes) -> Request:
    request_line, *header_lines = head.decode("latin-1")[:-4].split("\r\n")
    words = request_line.split(" ")
    if len(words) != 3 or words[0] != "GET" or not words[1] or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise BadRequest("The request line is not of the form GET PATH HTTP/1.1.")
    _, path, version = words
    headers: dict[str, str] = {}
    for line in header_lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest("A header line is malformed.")
        headers[name.lower()] = value.strip()
    if version == "HTTP/1.1" and "host" not in headers:
        raise BadRequest("The Host header is missing.")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        # A body that nobody reads would be taken for the next request on this connection.
        raise BadRequest("A GET request must not have a body here.")
    wish = headers.get("connection", "").lower()
    return Request(path, headers, wish == "keep-alive" if version == "HTTP/1.0" else wish != "close")


def format_response(status: str, body: dict[str, Any], keep_alive: bool) -> bytes:
    content = json.dumps(body).encode() + b"\n"
    connection = "keep-alive" if keep_alive else "close"
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return f"{head}Connection: {connection}\r\n\r\n".encode() + content


class Service:
    def __init__(self) -> None:
        self.executor: Any = ThreadPoolExecutor(max_workers=4)
        self.connections: set[asyncio.Task[Any]] = set()
        self.idle: set[asyncio.StreamWriter] = set()
        self.stopping = False

    async def answer(self, request: Request, request_id: str) -> dict[str, Any]:
        """Pass through every kind of hand-over and report which request id was seen at each."""
        loop = asyncio.get_running_loop()
        seen = {"task": await asyncio.create_task(log_after_switch("task", request_id))}
        seen["gather_first"], seen["gather_second"] = await asyncio.gather(
            log_after_switch("gather_first", request_id), log_after_switch("gather_second", request_id)
        )
        soon, later = loop.create_future(), loop.create_future()
        loop.call_soon(log_and_finish, soon, "call_soon", request_id)
        loop.call_later(0.001, log_and_finish, later, "call_later", request_id)
        seen["call_soon"], seen["call_later"] = await soon, await later
        seen["to_thread"] = await asyncio.to_thread(log_step, "to_thread", request_id)
        seen["pool"] = await asyncio.wrap_future(self.executor.submit(log_step, "pool", request_id))
        seen["generator"] = await self.read_first_row(request_id)
        seen["dependency"] = await self.depend(request.headers.get("x-user", "-"), request_id)
        seen["cleanup"] = await asyncio.create_task(clean_up(SPAN.set("answer"), request_id))
        return {"path": request.path, "request_id": request_id, "tenant": TENANT.get(), "seen": seen}

    async def read_first_row(self, request_id: str) -> str:
        async for _ in rows():
            break
        return log_step("generator", request_id)

    async def depend(self, name: str, request_id: str) -> str:
        context = copy_context()
        await asyncio.to_thread(context.run, authenticate, name)
        apply(context)  # what the function has set, here
        return log_step("dependency", request_id)

    async def respond(self, head: bytes) -> tuple[bytes, bool]:
        """Return the response to one request and whether the connection stays open after it."""
        try:
            request = parse_request(head)
            request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
            with assign({REQUEST_ID: request_id, TENANT: request.headers.get("x-tenant", "-")}):
                body = await self.answer(request, request_id)
        except BadRequest as error:
            return format_response("400 Bad Request", {"error": str(error)}, False), False
        except Exception:
            logger.exception("The request failed.")
            return format_response("500 Internal Server Error", {"error": "The request failed."}, False), False
        keep_alive = request.keep_alive and not self.stopping
        return format_response("200 OK", body, keep_alive), keep_alive

    async def handle_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            keep_alive = not self.stopping
            while keep_alive:
                self.idle.add(writer)
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                    if isinstance(error, asyncio.IncompleteReadError) and not error.partial:
                        break  # The client has hung up between two requests, which is the normal end.
                    head = b""  # A truncated or oversized request counts as malformed.
                finally:
                    self.idle.discard(writer)
                # A task for each request: what it sets ends with it.
                response, keep_alive = await asyncio.create_task(self.respond(head))
                writer.write(response)
                await writer.drain()
        except ConnectionError:
            pass  # The client is gone and there is nobody left to answer.
        finally:
            self.connections.discard(task)
            writer.close()

    async def stop(self) -> None:
        """Hang up on the idle connections and give the others time to finish their request."""
        self.stopping = True
        for writer in self.idle:
            writer.close()
        if self.connections:
            await asyncio.wait(self.connections, timeout=STOP_SECONDS)
        self.executor.shutdown()


async def serve(service: Service, port: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not by the loop, which has no signal handlers on Windows.
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    server = await asyncio.start_server(service.handle_connection, "127.0.0.1", port)
    print(f"serving on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    server.close()
    await service.stop()


def main(make_service: type[Service] = Service) -> None:
    parser = argparse.ArgumentParser(
        description="Serve HTTP on 127.0.0.1 and log, for every step of a request, which request it belongs to.",
        epilog="Send X-Request-Id, X-Tenant and X-User with a request. SIGTERM or Ctrl-C stops the service.",
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one, which is printed)")
    parser.add_argument("--log", metavar="FILE", help="write the log to FILE instead of standard error")
    arguments = parser.parse_args()
    handler = logging.FileHandler(arguments.log, encoding="utf-8") if arguments.log else logging.StreamHandler()
    # A logger's filter would miss the records of other loggers, so the filter belongs to the handler.
    handler.addFilter(ScopeFilter())
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    asyncio.run(serve(make_service(), arguments.port))


if __name__ == "__main__":
    main()
