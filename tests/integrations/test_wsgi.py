"""Values of a client's header are an application's of WSGI to the last step of its body, and nobody else's."""

from __future__ import annotations

import doctest
import io
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import httpx
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import travel
from contextvars_cy.integrations import wsgi
from contextvars_cy.integrations.requests import connect
from contextvars_cy.integrations.wsgi import TravelMiddleware
from helpers import run_python
from web_services import BOTH, attempt, register_for_servers, request_id, seen, tenant, wsgi_server

pytestmark = pytest.mark.usefixtures("nothing_registered", "context_of_its_own")

NOTHING = ["-", "-", 0]


@pytest.fixture(autouse=True)
def registered(nothing_registered: None) -> None:
    register_for_servers()


def tell(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen()).encode()]


def call(app: Any, header: str | None = None, **more: Any) -> Any:
    """What a server gets from the application, before it takes a step of the body."""
    environ: dict[str, Any] = {**more}
    setup_testing_defaults(environ)
    if header is not None:
        environ["HTTP_BAGGAGE"] = header
    return app(environ, lambda status, headers, exc_info=None: None)


# ---- what comes in ----


@pytest.mark.parametrize(("audience", "expected"), [("public", ["r1", "-", 0]), ("trusted", ["r1", "acme & co", 0])])
def test_what_comes_in_is_for_the_audience_and_ends_with_the_request(audience: Any, expected: list[Any]) -> None:
    with wsgi_server(TravelMiddleware(tell, audience=audience)) as port:
        url = f"http://127.0.0.1:{port}/"
        assert httpx.get(url, headers={"baggage": BOTH}).json() == expected
        assert httpx.get(url).json() == NOTHING


def test_the_default_audience_is_public() -> None:
    assert TravelMiddleware(tell).audience == "public"


def test_all_headers_of_the_name_count() -> None:
    with wsgi_server(TravelMiddleware(tell)) as port:
        headers = [("Baggage", "request-id=r1"), ("accept", "*/*"), ("BAGGAGE", "theirs=1, attempt=3")]
        assert httpx.get(f"http://127.0.0.1:{port}/", headers=headers).json() == ["r1", "-", 3]


def test_forty_requests_in_threads_each_have_their_own() -> None:
    def rows(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for _ in range(20):
            yield f"{request_id.get()} ".encode()

    with wsgi_server(TravelMiddleware(rows)) as port, ThreadPoolExecutor(8) as pool:

        def ask(number: int) -> str:
            return httpx.get(f"http://127.0.0.1:{port}/", headers={"baggage": f"request-id=r{number}"}).text

        for number, answer in enumerate(pool.map(ask, range(40))):
            assert answer == f"r{number} " * 20


# ---- the steps of a body ----


def test_two_bodies_take_turns_in_one_thread_and_leave_nothing() -> None:
    closed = []

    def rows(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            for number in range(3):
                attempt.set(attempt.get() + 1)
                yield json.dumps([*seen(), number]).encode()
        finally:
            closed.append(seen())

    app = TravelMiddleware(rows)
    bodies = [call(app, "request-id=r1,attempt=10"), call(app, "request-id=r2"), call(app)]
    steps = [iter(body) for body in bodies]
    found = []
    for _ in range(2):
        for step in steps:
            found.append(json.loads(next(step)))
            assert seen() == NOTHING
    assert found == [
        ["r1", "-", 11, 0],
        ["r2", "-", 1, 0],
        ["-", "-", 1, 0],
        ["r1", "-", 12, 1],
        ["r2", "-", 2, 1],
        ["-", "-", 2, 1],
    ]
    for body in bodies:
        body.close()
        assert seen() == NOTHING
    assert closed == [["r1", "-", 12], ["r2", "-", 2], ["-", "-", 2]]


class Rows:
    """An iterable as frameworks have it, which is not its own iterator, and which looks in all its methods."""

    def __init__(self, fail: bool = False) -> None:
        self.fail = fail
        self.found: list[Any] = []

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        self.found.append(seen())
        start_response("200 OK", [])
        return self

    def __iter__(self) -> Iterator[bytes]:
        self.found.append(seen())
        yield b"a row"
        self.found.append(seen())
        if self.fail:
            raise ArithmeticError("in the body")

    def close(self) -> None:
        self.found.append(seen())
        if self.fail:
            raise ArithmeticError("in close")


def test_every_part_of_a_body_runs_in_the_requests_context() -> None:
    rows = Rows()
    with wsgi_server(TravelMiddleware(rows)) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/", headers={"baggage": BOTH}).text == "a row"
    assert rows.found == [["r1", "-", 0]] * 4


def test_errors_are_the_applications_own_and_leave_nothing() -> None:
    rows = Rows(fail=True)
    body = call(TravelMiddleware(rows), BOTH)
    with pytest.raises(ArithmeticError, match="in the body"):
        list(body)
    with pytest.raises(ArithmeticError, match="in close"):
        body.close()
    assert rows.found == [["r1", "-", 0]] * 4 and seen() == NOTHING

    def fail(environ: Any, start_response: Any) -> Any:
        raise ArithmeticError(request_id.get())

    with pytest.raises(ArithmeticError, match="^r1$"):
        call(TravelMiddleware(fail), BOTH)
    assert seen() == NOTHING


def test_a_body_without_close() -> None:
    def row(number: int) -> bytes:
        return f"{request_id.get()}{number} ".encode()

    def rows(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return map(row, range(2))

    with wsgi_server(TravelMiddleware(rows)) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/", headers={"baggage": BOTH}).text == "r10 r11 "


def test_a_list_stays_one_so_that_the_server_knows_its_length() -> None:
    with wsgi_server(TravelMiddleware(tell)) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/", headers={"baggage": BOTH})
    assert answer.headers["content-length"] == str(len(answer.content))


def test_the_function_write_of_start_response() -> None:
    def write_first(environ: Any, start_response: Any) -> Iterator[bytes]:
        write = start_response("200 OK", [])
        write(request_id.get().encode())

        def rest() -> Iterator[bytes]:
            yield f" {request_id.get()}".encode()

        return rest()

    with wsgi_server(TravelMiddleware(write_first)) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/", headers={"baggage": BOTH}).text == "r1 r1"


def test_a_file_goes_to_the_server_as_it_is() -> None:
    """Only then can a server send it without reading it."""
    wrapped = []

    def send_file(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("X-Request-Id", request_id.get())])
        wrapped.append(environ["wsgi.file_wrapper"](io.BytesIO(b"of a file")))
        return wrapped[-1]

    with wsgi_server(TravelMiddleware(send_file)) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/", headers={"baggage": BOTH})
    assert (answer.text, answer.headers["x-request-id"]) == ("of a file", "r1")
    app = TravelMiddleware(send_file)
    assert call(app, BOTH, **{"wsgi.file_wrapper": FileWrapper}) is wrapped[-1]

    def function_of_another_server(file: Any) -> FileWrapper:
        return FileWrapper(file)

    assert list(call(app, BOTH, **{"wsgi.file_wrapper": function_of_another_server})) == [b"of a file"]


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="gevent has no release for it")
def test_greenlets_that_take_turns_in_one_thread(tmp_path: Path) -> None:
    """A server of gevent, in a process of its own: it changes how that waits."""
    program = """
import gevent, json
from gevent.pywsgi import WSGIServer
from gevent import socket
from contextvars_cy import ContextVar, travel
from contextvars_cy.integrations.wsgi import TravelMiddleware

request_id = ContextVar("request_id", default="-")
travel.register(request_id, "request-id", audience="public")

def rows(environ, start_response):
    gevent.sleep(0)
    start_response("200 OK", [])
    try:
        for _ in range(5):
            gevent.sleep(0)
            yield f"{request_id.get()} ".encode()
    finally:
        gevent.sleep(0)
        closed.append(request_id.get())

def ask(number):
    with socket.create_connection(server.address[:2]) as connection:
        head = f"GET / HTTP/1.0\\r\\n" + (f"Baggage: request-id=r{number}\\r\\n" if number else "")
        connection.sendall(f"{head}\\r\\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\\r\\n\\r\\n")[2].decode()

closed = []
server = WSGIServer(("127.0.0.1", 0), TravelMiddleware(rows), log=None)
server.start()
jobs = [gevent.spawn(ask, number) for number in range(10)]
gevent.joinall(jobs)
print(json.dumps([[job.value for job in jobs], sorted(closed)]))
server.stop()
"""
    done = run_python(["-c", program], tmp_path)
    ids = ["-", *[f"r{number}" for number in range(1, 10)]]
    assert json.loads(done.stdout) == [[f"{name} " * 5 for name in ids], ids], done.stderr


# ---- what strangers send ----


@pytest.mark.parametrize(
    ("header", "expected", "said"),
    [
        ("request-id=%zz,attempt=2", ["-", "-", 2], "request-id: its encoding is broken"),
        ("attempt=many,request-id=r1", ["r1", "-", 0], "attempt: it is no value of its codec"),
        ("theirs=1," * 2000 + "request-id=r1", NOTHING, "more than 8192 bytes, and is not read"),
    ],
)
def test_what_is_broken_is_left_out_and_logged(
    header: str, expected: list[Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No warning either: here they are errors, in every thread."""
    with wsgi_server(TravelMiddleware(tell)) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/", headers={"baggage": header})
    assert (answer.status_code, answer.json()) == (200, expected)
    (record,) = [record for record in caplog.records if record.name == "contextvars_cy.travel"]
    assert record.levelno == logging.WARNING and said in record.getMessage()


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_no_header_does_harm(header: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(travel, "_registered", travel._Registrations())
        travel.register(request_id, "request-id", audience="public")
        for text in (header, f"request-id={header}"):
            ((first, *others),) = [json.loads(step) for step in call(TravelMiddleware(tell), text)]
            assert isinstance(first, str) and others == ["-", 0] and seen() == NOTHING


@pytest.mark.parametrize("audience", ["everybody", None, ""])
def test_an_unknown_audience_is_an_error(audience: Any) -> None:
    with pytest.raises(ValueError, match="choose one of process, trusted, public"):
        TravelMiddleware(tell, audience=audience)


# ---- services in a row ----


def test_a_request_id_arrives_two_services_on_by_requests() -> None:
    """A client calls A, A calls B, and B answers what it sees."""
    with wsgi_server(TravelMiddleware(tell, audience="trusted")) as port_of_b:

        def call_b(environ: Any, start_response: Any) -> Iterator[bytes]:
            tenant.set("acme & co")
            start_response("200 OK", [])
            with requests.Session() as session:
                connect(session, hosts={"127.0.0.1": "trusted"})
                yield session.get(f"http://127.0.0.1:{port_of_b}/").content

        with wsgi_server(TravelMiddleware(call_b)) as port_of_a:
            answer = requests.get(f"http://127.0.0.1:{port_of_a}/", headers={"baggage": "request-id=r1,tenant=forged"})
    assert answer.json() == ["r1", "acme & co", 0]


def test_the_examples_of_its_docstrings() -> None:
    assert doctest.testmod(wsgi).failed == 0
