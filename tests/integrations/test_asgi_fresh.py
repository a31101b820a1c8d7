"""A request sees nothing of another, and what it leaves behind is logged."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import doctest
import inspect
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from websockets.sync.client import connect as connect_websocket

from contextvars_cy import ContextVar, copy_context, current_context, host, tracing
from contextvars_cy.integrations import asgi
from contextvars_cy.integrations.asgi import FreshMiddleware, TravelMiddleware
from web_services import BOTH, asgi_server, pipelined, register_for_servers, seen, tenant

pytestmark = pytest.mark.usefixtures("nothing_registered", "context_of_its_own")

USER: ContextVar[Any] = ContextVar("user", default="nobody")
SETTING: ContextVar[Any] = ContextVar("setting", default="-")
NATIVE: contextvars.ContextVar[str] = contextvars.ContextVar("native", default="-")

HERE = re.escape(__file__)
# Some releases of uvicorn begin each request in an empty Context by themselves.
LEAKS = "reset_contextvars" in inspect.signature(uvicorn.Config).parameters


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged since the last call."""
    caplog.set_level(logging.WARNING, "contextvars_cy.fresh")

    def messages() -> list[str]:
        records = [record for record in caplog.records if record.name == "contextvars_cy.fresh"]
        caplog.clear()
        assert all(record.levelno == logging.WARNING for record in records)
        return [record.getMessage() for record in records]

    return messages


def values() -> list[Any]:
    return [USER.get(), SETTING.get(), NATIVE.get()]


NOTHING = ["nobody", "-", "-"]


async def sign_in(scope: Any, receive: Any, send: Any) -> None:
    """An application that signs a user in, and never out."""
    body = json.dumps(values()).encode()
    more = True
    while more:
        more = (await receive()).get("more_body")
    USER.set("ada")
    NATIVE.set("ada")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def told_by(answer: bytes) -> list[Any]:
    return [json.loads(body) for body in re.findall(r"\[.*?\]", answer.decode())]


PASSWORD: ContextVar[str] = tracing.secret(ContextVar("password"))


def test_a_secret_is_not_told(told: Callable[[], list[str]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        PASSWORD.set("hunter2")

    asyncio.run(FreshMiddleware(app)({"type": "http", "method": "GET", "path": "/"}, None, None))
    assert told() == ["GET '/' left values behind: password = <secret>"]


# ---- what the last request has left ----


def test_requests_that_come_at_once_on_a_connection(told: Callable[[], list[str]]) -> None:
    """uvicorn begins the second one in a task that the first one makes."""
    with asgi_server(sign_in, lifespan="off") as port:
        assert told_by(pipelined(port, 3)) == [NOTHING, *[["ada", "-", "ada"]] * 2] or not LEAKS
    with asgi_server(FreshMiddleware(sign_in), lifespan="off") as port:
        assert told_by(pipelined(port, 3)) == [NOTHING] * 3
    assert told() == ["GET '/' left values behind: user = 'ada'"] * 3


def test_requests_one_after_the_other_on_a_connection(told: Callable[[], list[str]]) -> None:
    """While a large one comes in, uvicorn asks for more from its task, and the event loop keeps that Context."""

    def ask(app: Any) -> list[Any]:
        found = []
        with asgi_server(app, lifespan="off") as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for _ in range(2):
                found.append(client.post("/large", content=b"x" * 1_000_000).json())
                found.append(client.get("/").json())
        return found

    async def sign_in_first(scope: Any, receive: Any, send: Any) -> None:
        before = values()
        USER.set("ada")
        NATIVE.set("ada")
        more = True
        while more:
            more = (await receive()).get("more_body")
        await JSONResponse(before)(scope, receive, send)

    assert ["ada", "-", "ada"] in ask(sign_in_first) or not LEAKS
    assert ask(FreshMiddleware(sign_in_first)) == [NOTHING] * 4
    assert told() == [f"{what} left values behind: user = 'ada'" for what in ("POST '/large'", "GET '/'")] * 2


def test_requests_one_after_the_other_in_one_task(told: Callable[[], list[str]]) -> None:
    """Clients of tests call the application in the test's own task."""
    found = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(values())
        USER.set(len(found))
        NATIVE.set("left")
        SETTING.set(len(found))

    async def main() -> None:
        USER.set("of the test")
        NATIVE.set("of the test")
        SETTING.set("of the test")
        for _ in range(2):
            await FreshMiddleware(app, keep=[SETTING])({"type": "http", "method": "GET", "path": "/x"}, None, None)
            assert values() == ["of the test"] * 3

    asyncio.run(main())
    assert found == [["nobody", "of the test", "-"]] * 2
    assert told() == [f"GET '/x' left values behind: user = {n}; setting = {n}" for n in (1, 2)]


def test_the_standard_librarys_decimal_begins_anew() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        decimal.getcontext().prec -= 1
        await PlainTextResponse(f"[{decimal.getcontext().prec}]")(scope, receive, send)

    with asgi_server(app, lifespan="off") as port:
        assert told_by(pipelined(port, 3)) == [[27], [26], [25]] or not LEAKS
    with asgi_server(FreshMiddleware(app), lifespan="off") as port:
        assert told_by(pipelined(port, 3)) == [[27]] * 3


def test_a_layer_outside_sets_what_is_kept() -> None:
    class Outer:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            number = len(numbers)
            numbers.append(number)
            with SETTING.set(number), USER.set("of the layer"):
                await self.app(scope, receive, send)

    numbers: list[int] = []
    with asgi_server(Outer(FreshMiddleware(sign_in, keep=[SETTING])), lifespan="off") as port:
        assert told_by(pipelined(port, 3)) == [["nobody", number, "-"] for number in range(3)]


def test_a_hundred_requests_at_a_time() -> None:
    async def slow(request: Any) -> JSONResponse:
        assert values() == NOTHING
        USER.set(request.query_params["user"])
        for _ in range(20):
            await asyncio.sleep(0)
        return JSONResponse(USER.get())

    async def main(port: int) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            asked = [client.get("/", params={"user": str(number)}) for number in range(100)]
            answers = await asyncio.gather(*asked)
            assert [answer.json() for answer in answers] == [str(number) for number in range(100)]

    app = FreshMiddleware(Starlette(routes=[Route("/", slow)]), report="never")
    with asgi_server(app) as port:
        asyncio.run(main(port))


# ---- what an application does ----


def starlette(*routes: Any, **settings: Any) -> Starlette:
    return Starlette(routes=routes, middleware=[Middleware(FreshMiddleware, where=True, **settings)])


def test_an_endpoint_a_stream_and_a_background_task_are_in_it(told: Callable[[], list[str]]) -> None:
    found = []

    async def chunks() -> AsyncIterator[str]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield USER.get() + " "

    def more_chunks() -> Iterator[str]:
        for _ in range(3):
            yield USER.get() + " "

    async def stream(request: Any) -> StreamingResponse:
        USER.set("grace")
        task = BackgroundTask(lambda: found.append(USER.get()))
        return StreamingResponse(more_chunks() if request.url.path == "/sync" else chunks(), background=task)

    def in_a_thread(request: Any) -> JSONResponse:
        before = values()
        USER.set("lost with the thread's copy")
        return JSONResponse(before)

    app = starlette(Route("/", stream), Route("/sync", stream), Route("/thread", in_a_thread))
    with asgi_server(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for path in ("/", "/sync"):
            assert client.get(path).text == "grace grace grace "
        assert client.get("/thread").json() == NOTHING
    assert found == ["grace"] * 2
    lines = told()
    assert len(lines) == 2
    for path, line in zip(("/", "/sync"), lines):
        assert re.fullmatch(rf"GET '{path}' left values behind: user = 'grace', set at {HERE}:\d+ in stream", line)


def test_a_websocket_is_in_it_until_it_ends(told: Callable[[], list[str]]) -> None:
    async def echo(websocket: Any) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(f"{text} {USER.get()}")
            USER.set(text)

    with asgi_server(starlette(WebSocketRoute("/ws", echo))) as port:
        url = f"ws://127.0.0.1:{port}/ws"
        with connect_websocket(url) as first, connect_websocket(url) as second:
            for number in range(3):
                for connection, name in ((first, "a"), (second, "b")):
                    connection.send(f"{name}{number}")
                    expected = f"{name}{number - 1}" if number else "nobody"
                    assert connection.recv() == f"{name}{number} {expected}"
    lines = sorted(told())
    assert [line.partition(", set at")[0] for line in lines] == [
        f"websocket '/ws' left values behind: user = '{name}2'" for name in "ab"
    ]


def test_an_error_is_the_applications_own(told: Callable[[], list[str]]) -> None:
    async def fail(request: Any) -> Any:
        USER.set("ada")
        raise ArithmeticError(USER.get())

    async def tell_the_error(request: Any, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(f"{error} {USER.get()}", status_code=418)

    app = FreshMiddleware(Starlette(routes=[Route("/", fail)], exception_handlers={ArithmeticError: tell_the_error}))
    with asgi_server(app) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/")
    assert (answer.status_code, answer.text) == (418, "ada ada")
    assert told() == ["GET '/' left values behind: user = 'ada'"]

    async def fail_at_once(scope: Any, receive: Any, send: Any) -> None:
        USER.set("ada")
        raise ArithmeticError("mine")

    with pytest.raises(ArithmeticError, match="^mine$"):
        asyncio.run(FreshMiddleware(fail_at_once)({"type": "http"}, None, None))
    assert told() == ["http '' left values behind: user = 'ada'"]


def test_a_client_that_hangs_up(told: Callable[[], list[str]]) -> None:
    ended = []

    async def endless() -> AsyncIterator[bytes]:
        USER.set("of the stream")
        try:
            while True:
                yield USER.get().encode() * 1000
                await asyncio.sleep(0)
        finally:
            ended.append(USER.get())

    async def stream(request: Any) -> StreamingResponse:
        return StreamingResponse(endless())

    with asgi_server(starlette(Route("/", stream))) as port:
        with httpx.stream("GET", f"http://127.0.0.1:{port}/") as answer:
            assert next(answer.iter_raw()).startswith(b"of the stream")
        assert httpx.get(f"http://127.0.0.1:{port}/none").status_code == 404
    # Starlette cancels the stream in a task, so what it has set is gone with that.
    assert ended == ["of the stream"] and told() == []


def test_a_cancellation(told: Callable[[], list[str]]) -> None:
    found = []

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        USER.set("ada")
        try:
            await receive()
        finally:
            found.append(values())

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            found.append(values())

    async def main() -> None:
        USER.set("outside")
        task = asyncio.ensure_future(FreshMiddleware(wait)({"type": "http"}, never, None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    # What the server does is done in a copy of its own Context.
    assert found == [["outside", "-", "-"], ["ada", "-", "-"]]
    assert told() == ["http '' left values behind: user = 'ada'"]


def test_a_request_that_another_context_closes_is_no_error(told: Callable[[], list[str]]) -> None:
    class Wait:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        USER.set("ada")
        await Wait()

    request: Any = FreshMiddleware(wait)({"type": "http"}, None, None)
    copy_context().run(request.send, None)
    request.close()
    assert values() == NOTHING
    assert told() == ["http '' left values behind: user = 'ada'"]


def test_what_is_neither_a_request_nor_a_websocket_is_passed_on_as_it_is() -> None:
    calls = []

    async def app(*arguments: Any) -> None:
        calls.append((*arguments, current_context()))

    for kind in ("lifespan", "of another server"):
        scope, receive, send = {"type": kind}, object(), object()
        with pytest.raises(StopIteration):
            FreshMiddleware(app)(scope, receive, send).send(None)
        assert calls.pop() == (scope, receive, send, current_context())


def test_what_a_task_of_the_request_sees() -> None:
    """Those of BaseHTTPMiddleware too, which runs the rest of the application in a task."""

    async def dispatch(request: Any, call_next: Any) -> Any:
        USER.set("of the dispatch")
        return await call_next(request)

    async def tell(request: Any) -> JSONResponse:
        return JSONResponse([USER.get(), *await asyncio.create_task(later())])

    async def later() -> list[Any]:
        return values()

    layers = [Middleware(FreshMiddleware, report="never"), Middleware(BaseHTTPMiddleware, dispatch=dispatch)]
    with asgi_server(Starlette(routes=[Route("/", tell)], middleware=layers)) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/").json() == ["of the dispatch", "of the dispatch", "-", "-"]


# ---- what is told ----


def request(app: Any, **scope: Any) -> None:
    asyncio.run(app({"type": "http", "method": "GET", "path": "/", **scope}, None, None))


def test_what_is_reset_or_was_there_before_is_not_told(told: Callable[[], list[str]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with USER.set("ada"):
            await asyncio.sleep(0)
        token = SETTING.set("other")
        SETTING.reset(token)
        if scope["path"] == "/unset":
            SETTING.unset()

    SETTING.set("of the process")
    for path in ("/", "/unset"):
        request(FreshMiddleware(app, keep=[SETTING]), path=path)
    assert told() == []


def test_where_is_the_line_of_the_value_that_is_left(told: Callable[[], list[str]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        first()
        with USER.set("second"):
            pass
        await asyncio.create_task(other())

    def first() -> None:
        USER.set("first")

    async def other() -> None:
        USER.set("first")

    request(FreshMiddleware(app, where=True))
    line = first.__code__.co_firstlineno + 1
    assert told() == [f"GET '/' left values behind: user = 'first', set at {__file__}:{line} in first"]


def test_where_is_not_followed_between_requests() -> None:
    from contextvars_cy._features import watch

    async def app(scope: Any, receive: Any, send: Any) -> None:
        watchers.append(len(watch._watchers))

    watchers: list[int] = []
    request(FreshMiddleware(app, where=True))
    request(FreshMiddleware(app))
    assert watchers == [1, 0] and not watch._watchers


def test_once_is_for_each_variable_and_place(told: Callable[[], list[str]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        USER.set(scope["path"])
        if scope["path"] == "/b":
            SETTING.set("set")
            USER.set("elsewhere")

    for where in (False, True):
        guarded = FreshMiddleware(app, report="once", where=where)
        for path in ("/a", "/a", "/b", "/b"):
            request(guarded, path=path)
        found = [re.sub(", set at [^;]*", "", line) for line in told()]
        b = "user = 'elsewhere'; setting = 'set'" if where else "setting = 'set'"
        assert found == [
            f"GET '{path}' left values behind: {text}" for path, text in (("/a", "user = '/a'"), ("/b", b))
        ]


def test_never_is_silent(told: Callable[[], list[str]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        USER.set("left")

    request(FreshMiddleware(app, report="never"))
    assert told() == []


class Loud:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        if not self.text:
            raise LookupError("no repr")
        return self.text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 1000, r"'x{36,40}\.\.\.x{35,40}'"),
        (list(range(10**6)), r"\[0, 1, 2, 3, 4, 5, \.\.\.\]"),
        (Loud("a\nforged line"), "a forged line"),
        (Loud("\x1b[31mred"), r"\?\[31mred"),
        (Loud("y" * 1000), r"y+\.\.\.y+"),
        (Loud(""), "<Loud instance at 0x[0-9a-f]+>"),
    ],
    ids=["long", "large", "lines", "escapes", "long repr", "no repr"],
)
def test_a_value_is_told_in_one_short_line(value: Any, shown: str, told: Callable[[], list[str]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        USER.set(value)

    request(FreshMiddleware(app), path="/\nforged")
    (line,) = told()
    assert re.fullmatch(rf"GET '/\\nforged' left values behind: user = {shown}", line)
    assert len(line) < 150


def test_wrong_options_are_errors() -> None:
    with pytest.raises(ValueError, match="^report='always': choose one of each, once, never$"):
        FreshMiddleware(sign_in, report="always")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"takes an iterable of variables as keep, .*: write keep=\[variable\]$"):
        FreshMiddleware(sign_in, keep=USER)  # type: ignore[arg-type]


# ---- beside TravelMiddleware ----


async def tell_and_leave(scope: Any, receive: Any, send: Any) -> None:
    body = json.dumps(seen()).encode()
    tenant.set("left")
    USER.set("left")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("outermost", ["fresh", "travel"])
def test_in_either_order(outermost: str, told: Callable[[], list[str]]) -> None:
    register_for_servers()
    app: Any
    if outermost == "fresh":
        app = FreshMiddleware(TravelMiddleware(tell_and_leave))
    else:
        app = TravelMiddleware(FreshMiddleware(tell_and_leave))
    first = f"GET / HTTP/1.1\r\nHost: here\r\nBaggage: {BOTH}\r\n\r\n"
    others = "GET / HTTP/1.1\r\nHost: here\r\n\r\n" * 2
    last = "GET / HTTP/1.1\r\nHost: here\r\nBaggage: request-id=r9\r\nConnection: close\r\n\r\n"
    with asgi_server(app, lifespan="off") as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(f"{first}{others}{last}".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    bodies = [json.loads(body) for body in re.findall(r"\[.*?\]", answer)]
    assert bodies == [["r1", "-", 0], ["-", "-", 0], ["-", "-", 0], ["r9", "-", 0]]
    # What an application sets in registered variables, a TravelMiddleware within undoes itself.
    left = "user = 'left'" if outermost == "fresh" else "tenant = 'left'; user = 'left'"
    assert [set(line.partition("behind: ")[2].split("; ")) for line in told()] == [set(left.split("; "))] * 4


def test_a_travel_middleware_within_adds_to_one_outside() -> None:
    register_for_servers()

    async def tell(request: Any) -> JSONResponse:
        return JSONResponse(seen())

    inner = FreshMiddleware(TravelMiddleware(Starlette(routes=[Route("/", tell)]), audience="trusted"))
    app = TravelMiddleware(Starlette(routes=[Mount("/inner", inner), Route("/", tell)]))
    with asgi_server(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for path, expected in (("/inner/", ["r1", "acme & co", 0]), ("/", ["r1", "-", 0])):
            assert client.get(path, headers={"baggage": BOTH}).json() == expected
            assert client.get(path).json() == ["-", "-", 0]


def test_the_example_of_the_docstring() -> None:
    assert host == "native"
    runner = doctest.DocTestRunner(verbose=False)
    text = FreshMiddleware.__doc__ or ""
    runner.run(doctest.DocTestParser().get_doctest(text, {**vars(asgi)}, "asgi", None, None))
    assert runner.summarize(verbose=False) == (0, 6)
