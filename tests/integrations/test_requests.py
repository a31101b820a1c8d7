"""What a session of requests sends says what each host may see, and no more."""

from __future__ import annotations

import copy
import doctest
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from contextvars_cy import travel
from contextvars_cy.integrations import requests as integration
from contextvars_cy.integrations.requests import connect
from web_clients import OURS, PUBLIC, RULES, STRANGER, TRUSTED, register_and_set
from web_services import asgi_server, attempt, request_id, tell_baggage

pytestmark = pytest.mark.usefixtures("nothing_registered", "context_of_its_own")


@pytest.fixture(autouse=True)
def values(nothing_registered: None, context_of_its_own: None) -> None:
    register_and_set()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with asgi_server(tell_baggage, lifespan="off") as port:
        yield port


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.mark.parametrize(("rules", "ours", "strangers"), RULES)
def test_each_host_gets_what_it_may_see(
    session: requests.Session, port: int, rules: Any, ours: Any, strangers: Any
) -> None:
    connect(session, **rules)
    for _ in range(2):
        assert session.get(f"http://{OURS}:{port}/").json() == [ours]
        assert session.get(f"http://{STRANGER}:{port}/").json() == [strangers]


@pytest.mark.parametrize("strangers", ["public", None])
def test_what_is_for_one_host_does_not_follow_a_redirect_to_another(
    session: requests.Session, port: int, strangers: Any
) -> None:
    connect(session, hosts={OURS: "trusted", STRANGER: strangers})
    theirs = PUBLIC if strangers else None
    to_stranger, back = f"http://{OURS}:{port}/to/http://{STRANGER}:{port}", f"to/http://{OURS}:{port}"
    assert session.get(f"{to_stranger}/").json() == [TRUSTED, theirs]
    # And when it comes back, that host gets again what is for it.
    assert session.get(f"{to_stranger}/{back}/").json() == [TRUSTED, theirs, TRUSTED]
    # What other programs have written goes on, as requests has it.
    answer = session.get(f"{to_stranger}/", headers={"baggage": "other=1"})
    assert answer.json() == [f"other=1,{TRUSTED}", f"other=1,{theirs}" if theirs else "other=1"]


def test_a_redirect_that_the_caller_follows_by_hand(session: requests.Session, port: int) -> None:
    connect(session, hosts={OURS: "trusted"})
    response = session.get(f"http://{OURS}:{port}/to/http://{STRANGER}:{port}/", allow_redirects=False)
    assert response.next is not None
    assert session.send(response.next).json() == [TRUSTED, PUBLIC]


def test_values_are_those_of_the_moment_on_one_connection(session: requests.Session, port: int) -> None:
    connect(session)
    url = f"http://{OURS}:{port}/"
    prepared = session.prepare_request(requests.Request("GET", url))
    connections = set()
    for name in ("r1", "r2"):
        with request_id.set(name):
            response = session.get(url)
            assert response.json() == session.send(prepared).json() == [f"request-id={name}"]
            connections.add(response.headers["x-connection"])
    with request_id.unset():
        assert session.get(url).json() == session.send(prepared).json() == [None]
    assert len(connections) == 1
    with session.get(url, stream=True) as response:
        assert b"".join(response.iter_content(4)) == b'["request-id=r1"]'


def test_threads_each_send_their_own(port: int) -> None:
    def ask(number: int) -> Any:
        with requests.Session() as session, request_id.set(f"r{number}"):
            connect(session)
            return session.get(f"http://{OURS}:{port}/").json()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(20))) == [[f"request-id=r{number}"] for number in range(20)]


def test_headers_of_the_user_and_members_of_other_programs_stay(session: requests.Session, port: int) -> None:
    session.headers.update({"Baggage": "other=1;p=2", "x-mine": "1"})
    connect(session)
    response = session.get(f"http://{OURS}:{port}/", headers={"x-more": "2"})
    assert response.json() == [f"other=1;p=2,{PUBLIC}"]
    assert [response.request.headers[name] for name in ("x-mine", "x-more")] == ["1", "2"]
    assert session.headers["baggage"] == "other=1;p=2"
    # A member by a name of ours is the variable's.
    response = session.get(f"http://{OURS}:{port}/", headers={"baggage": b"request-id=forged,tenant=forged,more=3"})
    assert response.json() == [f"more=3,{PUBLIC}"]


def test_what_is_sent_streams(session: requests.Session, port: int) -> None:
    connect(session)

    def parts() -> Iterator[bytes]:
        yield b"sent in "
        yield b"parts"

    with request_id.set("of the stream"):
        response = session.post(f"http://{OURS}:{port}/", data=parts())
    assert response.json() == ["request-id=of%20the%20stream"]


def test_a_value_that_cannot_be_encoded_stays_and_the_request_is_sent(session: requests.Session, port: int) -> None:
    connect(session, audience="process")
    attempt.set("many")
    with pytest.warns(travel.TravelWarning, match="attempt: its value is a str"):
        assert session.get(f"http://{OURS}:{port}/").json() == [TRUSTED]


def test_the_latter_of_two_connects_counts_whoever_wraps_in_between(session: requests.Session, port: int) -> None:
    connect(session, audience="process", hosts={OURS: "trusted"})
    calls, send = [], session.send

    def wrapped(request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        calls.append(request)
        return send(request, **kwargs)

    session.send = wrapped  # type: ignore[method-assign]
    connect(session)
    assert session.get(f"http://{OURS}:{port}/").json() == [PUBLIC]
    assert len(calls) == 1 and session.send is wrapped
    with pytest.raises(ValueError):
        connect(session, audience="everybody")  # type: ignore[arg-type]
    assert session.get(f"http://{OURS}:{port}/").json() == [PUBLIC]


def test_other_sessions_and_copies_send_nothing(session: requests.Session, port: int) -> None:
    connect(session)
    for other in (requests.Session(), copy.copy(session), pickle.loads(pickle.dumps(session))):
        with other:
            assert other.get(f"http://{OURS}:{port}/").json() == [None]


def test_the_examples_of_its_docstrings() -> None:
    assert doctest.testmod(integration).failed == 0
