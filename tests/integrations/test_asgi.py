"""Values of a client's header are an application's of ASGI until its request ends, and nobody else's."""

from __future__ import annotations

import asyncio
import doctest
import json
import logging
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from websockets.sync.client import connect as connect_websocket

from contextvars_cy import ContextVar, copy_context, travel
from contextvars_cy.integrations import asgi
from contextvars_cy.integrations.asgi import TravelMiddleware
from contextvars_cy.integrations.httpx import connect
from web_services import BOTH, asgi_server, attempt, pipelined, register_for_servers, request_id, seen, tenant

pytestmark = pytest.mark.usefixtures("nothing_registered", "context_of_its_own")


@pytest.fixture(autouse=True)
def registered(nothing_registered: None) -> None:
    register_for_servers()


class AfterIt:
    """A layer outside of the middleware: what it finds when the call of the application has ended."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.found: list[Any] = []
        self.ended = threading.Semaphore(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            if scope["type"] != "lifespan":
                self.found.append(seen())
                self.ended.release()


async def tell(request: Any) -> JSONResponse:
    await request.body()
    return JSONResponse(seen())


def tell_in_a_thread(request: Any) -> JSONResponse:
    return JSONResponse(seen())


def starlette(*routes: Any, audience: Any = "public") -> AfterIt:
    return AfterIt(Starlette(routes=routes, middleware=[Middleware(TravelMiddleware, audience=audience)]))


TELL = Route("/", tell, methods=["GET", "POST"])


# ---- what comes in ----


@pytest.mark.parametrize(("audience", "expected"), [("public", ["r1", "-", 0]), ("trusted", ["r1", "acme & co", 0])])
def test_what_comes_in_is_for_the_audience_and_ends_with_the_request(audience: Any, expected: list[Any]) -> None:
    app = starlette(TELL, Route("/thread", tell_in_a_thread), audience=audience)
    with asgi_server(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for path in ("/", "/thread"):
            assert client.get(path, headers={"baggage": BOTH}).json() == expected
            # On the same connection.
            assert client.get(path).json() == ["-", "-", 0]
    assert app.found == [["-", "-", 0]] * 4


def test_the_default_audience_is_public() -> None:
    assert TravelMiddleware(AfterIt(None)).audience == "public"


def test_headers_of_starlette_are_a_carrier() -> None:
    headers = Headers(raw=[(b"baggage", b"request-id=r1"), (b"accept", b"*/*"), (b"baggage", b"attempt=3")])
    assert dict(travel.extract(headers)) == {"request-id": "r1", "attempt": "3"}


def test_all_headers_of_the_name_count() -> None:
    with asgi_server(starlette(TELL)) as port:
        headers = [("Baggage", "request-id=r1"), ("accept", "*/*"), ("BAGGAGE", "theirs=1, attempt=3")]
        assert httpx.get(f"http://127.0.0.1:{port}/", headers=headers).json() == ["r1", "-", 3]


def test_a_stream_and_a_background_task_have_the_values() -> None:
    told = []

    async def chunks() -> AsyncIterator[str]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield request_id.get() + " "

    def more_chunks() -> Iterator[str]:
        for _ in range(3):
            yield request_id.get() + " "

    async def stream(request: Any) -> StreamingResponse:
        task = BackgroundTask(lambda: told.append(request_id.get()))
        return StreamingResponse(more_chunks() if request.url.path == "/sync" else chunks(), background=task)

    app = starlette(Route("/", stream), Route("/sync", stream))
    with asgi_server(app) as port:
        for path in ("/", "/sync"):
            answer = httpx.get(f"http://127.0.0.1:{port}{path}", headers={"baggage": BOTH})
            assert answer.text == "r1 r1 r1 "
    assert told == ["r1", "r1"] and app.found == [["-", "-", 0]] * 2


def test_a_websocket_has_the_values_until_it_ends() -> None:
    async def echo(websocket: Any) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(f"{text} {request_id.get()}")

    app = starlette(WebSocketRoute("/", echo))
    with asgi_server(app) as port:
        url = f"ws://127.0.0.1:{port}/"
        with connect_websocket(url, additional_headers={"baggage": BOTH}) as first, connect_websocket(url) as second:
            for number in range(3):
                for connection, expected in ((first, "r1"), (second, "-")):
                    connection.send(str(number))
                    assert connection.recv() == f"{number} {expected}"
    assert app.found == [["-", "-", 0]] * 2


def test_what_is_neither_a_request_nor_a_websocket_is_passed_on_as_it_is() -> None:
    calls = []

    async def app(*arguments: Any) -> None:
        calls.append((*arguments, *seen()))

    for kind in ("lifespan", "of another server"):
        scope = {"type": kind, "headers": [(b"baggage", BOTH.encode())]}
        receive, send = object(), object()
        run(TravelMiddleware(app), scope, receive, send)
        assert calls.pop() == (scope, receive, send, "-", "-", 0)
        assert sorted(scope) == ["headers", "type"]


# ---- the end ----


def run(app: Any, scope: dict[str, Any], receive: Any = None, send: Any = None) -> Any:
    """Here and at once, in this Context, an application that waits for nothing."""
    with pytest.raises(StopIteration):
        app(scope, receive, send).send(None)


def http(header: str | bytes | None = None) -> dict[str, Any]:
    header = header.encode() if isinstance(header, str) else header
    return {"type": "http", "headers": [] if header is None else [(b"host", b"here"), (b"baggage", header)]}


def test_an_error_ends_the_values_and_is_the_applications_own() -> None:
    async def fail(request: Any) -> Any:
        raise ArithmeticError(request_id.get())

    async def tell_the_error(request: Any, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(f"{error} {request_id.get()}", status_code=418)

    routes, handlers = [Route("/", fail), TELL], {ArithmeticError: tell_the_error}
    app = AfterIt(Starlette(routes=routes, middleware=[Middleware(TravelMiddleware)], exception_handlers=handlers))
    with asgi_server(app) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/", headers={"baggage": BOTH})
    assert (answer.status_code, answer.text) == (418, "r1 r1")
    assert app.found == [["-", "-", 0]]

    async def fail_at_once(scope: Any, receive: Any, send: Any) -> None:
        raise ArithmeticError(request_id.get())

    with pytest.raises(ArithmeticError, match="^r1$"):
        TravelMiddleware(fail_at_once)(http(BOTH), None, None).send(None)
    assert seen() == ["-", "-", 0]


def test_a_client_that_hangs_up_ends_the_values() -> None:
    cancelled = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield request_id.get().encode() * 1000
                await asyncio.sleep(0)
        except BaseException as error:
            cancelled.append((type(error), request_id.get()))
            raise

    async def stream(request: Any) -> StreamingResponse:
        return StreamingResponse(endless())

    app = starlette(Route("/", stream))
    with asgi_server(app) as port:
        with httpx.stream("GET", f"http://127.0.0.1:{port}/", headers={"baggage": BOTH}) as answer:
            assert next(answer.iter_raw()).startswith(b"r1r1")
        app.ended.acquire()
    assert app.found == [["-", "-", 0]]
    assert all(found == "r1" for _, found in cancelled)


def test_a_cancellation_ends_the_values() -> None:
    async def wait(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    app = AfterIt(TravelMiddleware(wait))

    async def main() -> None:
        task = asyncio.ensure_future(app(http(BOTH), None, None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert app.found == [["-", "-", 0]]


@pytest.mark.parametrize("header", [None, BOTH])
def test_a_request_that_another_context_closes_is_no_error(header: str | None) -> None:
    class Wait:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        await Wait()

    request: Any = TravelMiddleware(wait)(http(header), None, None)
    copy_context().run(request.send, None)
    request.close()
    assert seen() == ["-", "-", 0]


# ---- the next request ----


async def set_more(scope: Any, receive: Any, send: Any) -> None:
    """An application that registered variables are set in, and not undone."""
    body = json.dumps(seen()).encode()
    tenant.set("set by the application")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def test_requests_that_come_at_once_do_not_see_each_others_values() -> None:
    """uvicorn begins the second one in a task that the first one makes."""
    app = AfterIt(TravelMiddleware(set_more))
    with asgi_server(app, lifespan="off") as port:
        answer = pipelined(port, 4, f"Baggage: {BOTH}\r\n")
    assert [body for body in answer.split(b"\r\n") if body.startswith(b"[")] == [
        b'["r1", "-", 0]HTTP/1.1 200 OK',
        *[b'["-", "-", 0]HTTP/1.1 200 OK'] * 2,
        b'["-", "-", 0]',
    ]


def test_the_request_after_a_large_one_does_not_see_its_values() -> None:
    """While the large one comes in, uvicorn asks for more from its task, and the event loop keeps that Context."""
    with asgi_server(starlette(TELL)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(3):
            answer = client.post("/", content=b"x" * 1_000_000, headers={"baggage": BOTH})
            assert answer.json() == ["r1", "-", 0]
            assert client.get("/").json() == ["-", "-", 0]
            assert client.get("/", headers={"baggage": "attempt=2"}).json() == ["-", "-", 2]


@pytest.mark.parametrize("header", [None, "attempt=2"])
def test_requests_one_after_the_other_in_one_task(header: str | None) -> None:
    """Clients of tests call the application in the test's own task."""
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append(seen())
        tenant.set("set by the application")
        attempt.set(9)

    async def main() -> None:
        request_id.set("of the test")
        for _ in range(2):
            await TravelMiddleware(app)(http(header), None, None)
            assert seen() == ["of the test", "-", 0]

    asyncio.run(main())
    assert told == [["of the test", "-", 2 if header else 0]] * 2


def test_values_from_before_all_requests_stay() -> None:
    told = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        told.append(seen())

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        told.append(seen())
        # Another request, made in this one: what it gets is in its header alone.
        await TravelMiddleware(inner)(http("attempt=7"), None, None)
        told.append(seen())

    tenant.set("of the whole process")
    run(TravelMiddleware(outer, audience="trusted"), http(BOTH))
    assert told == [["r1", "acme & co", 0], ["-", "of the whole process", 7], ["r1", "acme & co", 0]]
    assert seen() == ["-", "of the whole process", 0]


def test_a_middleware_within_another_adds_to_it() -> None:
    app = starlette(Mount("/inner", TravelMiddleware(Starlette(routes=[TELL]), audience="trusted")), TELL)
    with asgi_server(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/inner/", headers={"baggage": BOTH}).json() == ["r1", "acme & co", 0]
        assert client.get("/", headers={"baggage": BOTH}).json() == ["r1", "-", 0]
    assert app.found == [["-", "-", 0]] * 2


def test_a_hundred_requests_at_a_time_each_have_their_own() -> None:
    async def slow(request: Any) -> JSONResponse:
        found = seen()
        for _ in range(20):
            await asyncio.sleep(0)
            assert seen() == found
        return JSONResponse(found)

    async def main(port: int) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            asked = [client.get("/", headers={"baggage": f"request-id=r{number}"}) for number in range(100)]
            answers = await asyncio.gather(*asked)
            assert [answer.json()[0] for answer in answers] == [f"r{number}" for number in range(100)]

    with asgi_server(starlette(Route("/", slow))) as port:
        asyncio.run(main(port))


# ---- what strangers send ----

BROKEN = [
    ("request-id=%zz,attempt=2", ["-", "-", 2], "request-id: its encoding is broken"),
    ("attempt=many,request-id=r1", ["r1", "-", 0], "attempt: it is no value of its codec"),
    ("attempt=12345678901,request-id=r1", ["r1", "-", 0], "attempt: it takes more than the 10 bytes"),
    ("request-id=%ff,attempt=x", ["-", "-", 0], "no value of its codec"),
    ("request-id,attempt=2", ["-", "-", 2], "request-id: this is no name=value"),
    ("attempt=2,request-id=r1,request-id=r2", ["r1", "-", 2], "request-id: it came before"),
    ("theirs=1," * 200 + "request-id=r1", ["-", "-", 0], "the first 180 are read"),
    ("theirs=1," * 2000 + "request-id=r1", ["-", "-", 0], "more than 8192 bytes, and is not read"),
    ("request-id=" + "x" * 5000 + ",attempt=2", ["-", "-", 2], "a member of more than 4096 bytes"),
]


@pytest.mark.parametrize(("header", "expected", "said"), BROKEN)
def test_what_is_broken_is_left_out_and_logged(
    header: str, expected: list[Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No warning either: here they are errors, in every thread."""
    with asgi_server(starlette(TELL)) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/", headers={"baggage": header})
    assert (answer.status_code, answer.json()) == (200, expected)
    (record,) = [record for record in caplog.records if record.name == "contextvars_cy.travel"]
    assert record.levelno == logging.WARNING and said in record.getMessage()


@pytest.mark.parametrize("header", ["", ",,;=,", "theirs=%zz", "tenant=%zz", "request-id =r1;p=2 , x"])
def test_what_is_no_value_of_ours_is_passed_over_in_silence(header: str, caplog: pytest.LogCaptureFixture) -> None:
    with asgi_server(starlette(TELL)) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/", headers={"baggage": header}).json()
    assert answer == ["r1" if "r1" in header else "-", "-", 0]
    assert [record for record in caplog.records if record.name == "contextvars_cy.travel"] == []


def test_a_decoder_that_ends_the_process_leaves_nothing() -> None:
    class Exiting:
        encode = str

        def decode(self, text: str) -> Any:
            raise SystemExit(text)

    exiting: ContextVar[Any] = ContextVar("exiting")
    travel.register(exiting, "exiting", codec=Exiting(), audience="public")
    before = copy_context()
    with pytest.raises(SystemExit, match="now"):
        TravelMiddleware(tell_nobody)(http("exiting=now"), None, None).send(None)
    assert copy_context() == before


def test_a_log_line_stays_one_line_and_short(caplog: pytest.LogCaptureFixture) -> None:
    class Loud:
        encode = str

        def decode(self, text: str) -> Any:
            raise KeyError(ValueError("\nforged log line\n"))

    loud: ContextVar[Any] = ContextVar("loud")
    travel.register(loud, "loud", codec=Loud(), audience="public")
    run(TravelMiddleware(AfterIt(tell_nobody)), http("loud=" + ",loud=".join("x" * 170)))
    (message,) = caplog.messages
    assert "\n" not in message and len(message) < 600


async def tell_nobody(scope: Any, receive: Any, send: Any) -> None:
    pass


@given(
    st.binary(max_size=60)
    | st.from_regex(rb"((request-id|tenant|attempt)\s*=[ -~]{0,8}[,;]){0,6}", fullmatch=True)
    | st.builds(lambda pairs: b",".join(b"attempt=%s" % text for text in pairs), st.lists(st.binary(max_size=5)))
)
def test_no_header_does_harm(header: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(travel, "_registered", travel._Registrations())
        for var, name, codec in ((request_id, "request-id", str), (tenant, "tenant", str), (attempt, "attempt", int)):
            travel.register(var, name, codec=codec, audience="trusted" if var is tenant else "public")
        told = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            told.append(seen())

        run(TravelMiddleware(app), http(header))
        ((first, second, third),) = told
        assert isinstance(first, str) and second == "-" and type(third) is int
        assert seen() == ["-", "-", 0]


@pytest.mark.parametrize("audience", ["everybody", None, ""])
def test_an_unknown_audience_is_an_error(audience: Any) -> None:
    with pytest.raises(ValueError, match="choose one of process, trusted, public"):
        TravelMiddleware(AfterIt(None), audience=audience)
    with pytest.raises(ValueError, match="choose one of"):
        Starlette(middleware=[Middleware(TravelMiddleware, audience=audience)]).build_middleware_stack()


# ---- services in a row ----


def test_a_request_id_arrives_two_services_on_by_httpx() -> None:
    """A client calls A, A calls B, and B answers what it sees."""
    with asgi_server(starlette(TELL, audience="trusted")) as port_of_b:

        async def call_b(request: Any) -> JSONResponse:
            tenant.set("acme & co")
            async with httpx.AsyncClient() as client:
                connect(client, hosts={"127.0.0.1": "trusted"})
                answer = await client.get(f"http://127.0.0.1:{port_of_b}/")
            return JSONResponse(answer.json())

        with asgi_server(starlette(Route("/", call_b))) as port_of_a:
            answer = httpx.get(f"http://127.0.0.1:{port_of_a}/", headers={"baggage": "request-id=r1,tenant=forged"})
    assert answer.json() == ["r1", "acme & co", 0]


def test_the_examples_of_its_docstrings() -> None:
    assert doctest.testmod(asgi).failed == 0
