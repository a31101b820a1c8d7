"""What a client of httpx sends says what each host may see, and no more."""

from __future__ import annotations

import asyncio
import doctest
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import httpx
import pytest

from contextvars_cy import travel
from contextvars_cy.integrations import httpx as integration
from contextvars_cy.integrations.httpx import connect
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


class Sync:
    """The same calls to a client of each kind."""

    def __init__(self, **settings: Any) -> None:
        self.client: Any = httpx.Client(follow_redirects=True, **settings)

    def run(self, make: Callable[[Any], Any]) -> Any:
        return make(self.client)

    def get(self, url: str, **settings: Any) -> httpx.Response:
        response: httpx.Response = self.run(lambda client: client.get(url, **settings))
        return response

    def send(self, request: httpx.Request) -> httpx.Response:
        response: httpx.Response = self.run(lambda client: client.send(request))
        return response

    def stream(self, url: str) -> bytes:
        with self.client.stream("GET", url) as response:
            return b"".join(response.iter_raw())

    def close(self) -> None:
        self.client.close()


class Async(Sync):
    def __init__(self, **settings: Any) -> None:
        self.client = httpx.AsyncClient(follow_redirects=True, **settings)
        self.loop = asyncio.new_event_loop()

    def run(self, make: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        return self.loop.run_until_complete(make(self.client))

    def stream(self, url: str) -> bytes:
        async def read(client: httpx.AsyncClient) -> bytes:
            async with client.stream("GET", url) as response:
                return b"".join([chunk async for chunk in response.aiter_raw()])

        content: bytes = self.run(read)
        return content

    def close(self) -> None:
        self.run(lambda client: client.aclose())
        self.loop.close()


@pytest.fixture(params=[Sync, Async])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    made = []

    def make(**settings: Any) -> Any:
        made.append(request.param(**settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(("rules", "ours", "strangers"), RULES)
def test_each_host_gets_what_it_may_see(make: Any, port: int, rules: Any, ours: Any, strangers: Any) -> None:
    one = make()
    connect(one.client, **rules)
    for _ in range(2):
        assert one.get(f"http://{OURS}:{port}/").json() == [ours]
        assert one.get(f"http://{STRANGER}:{port}/").json() == [strangers]


@pytest.mark.parametrize("strangers", ["public", None])
def test_what_is_for_one_host_does_not_follow_a_redirect_to_another(make: Any, port: int, strangers: Any) -> None:
    one = make()
    connect(one.client, hosts={OURS: "trusted", STRANGER: strangers})
    theirs = PUBLIC if strangers else None
    to_stranger, back = f"http://{OURS}:{port}/to/http://{STRANGER}:{port}", f"to/http://{OURS}:{port}"
    assert one.get(f"{to_stranger}/").json() == [TRUSTED, theirs]
    # And when it comes back, that host gets again what is for it.
    assert one.get(f"{to_stranger}/{back}/").json() == [TRUSTED, theirs, TRUSTED]
    # What other programs have written goes on, as httpx has it.
    answer = one.get(f"{to_stranger}/", headers={"baggage": "other=1"})
    assert answer.json() == [f"other=1,{TRUSTED}", f"other=1,{theirs}" if theirs else "other=1"]


def test_a_redirect_that_the_caller_follows_by_hand(make: Any, port: int) -> None:
    one = make()
    connect(one.client, hosts={OURS: "trusted"})
    response = one.get(f"http://{OURS}:{port}/to/http://{STRANGER}:{port}/", follow_redirects=False)
    assert one.send(response.next_request).json() == [TRUSTED, PUBLIC]


def test_values_are_those_of_the_moment_on_one_connection(make: Any, port: int) -> None:
    one = make()
    connect(one.client)
    url = f"http://{OURS}:{port}/"
    request = one.client.build_request("GET", url)
    connections = set()
    for name in ("r1", "r2"):
        with request_id.set(name):
            for response in (one.get(url), one.send(request)):
                assert response.json() == [f"request-id={name}"]
                connections.add(response.headers["x-connection"])
            assert one.stream(url) == f'["request-id={name}"]'.encode()
    with request_id.unset():
        assert one.get(url).json() == one.send(request).json() == [None]
    assert len(connections) == 1


def test_tasks_of_one_client_each_send_their_own(port: int) -> None:
    async def ask(client: httpx.AsyncClient, number: int) -> Any:
        request_id.set(f"r{number}")
        return (await client.get(f"http://{OURS}:{port}/")).json()

    async def main() -> Any:
        async with httpx.AsyncClient(timeout=60) as client:
            connect(client)
            return await asyncio.gather(*[ask(client, number) for number in range(20)])

    assert asyncio.run(main()) == [[f"request-id=r{number}"] for number in range(20)]


def test_headers_of_the_user_and_members_of_other_programs_stay(make: Any, port: int) -> None:
    one = make(headers={"Baggage": "other=1;p=2", "x-mine": "1"})
    connect(one.client)
    response = one.get(f"http://{OURS}:{port}/", headers={"x-more": "2"})
    assert response.json() == [f"other=1;p=2,{PUBLIC}"]
    assert [response.request.headers[name] for name in ("x-mine", "x-more")] == ["1", "2"]
    assert one.client.headers["baggage"] == "other=1;p=2"
    # A member by a name of ours is the variable's.
    response = one.get(f"http://{OURS}:{port}/", headers={"baggage": "request-id=forged,tenant=forged,more=3"})
    assert response.json() == [f"more=3,{PUBLIC}"]


def test_what_is_sent_streams(make: Any, port: int) -> None:
    one = make()
    connect(one.client)

    def parts() -> Iterator[bytes]:
        yield b"sent in "
        yield b"parts"

    async def async_parts() -> Any:
        for part in parts():
            yield part

    content = parts() if isinstance(one.client, httpx.Client) else async_parts()
    with request_id.set("of the stream"):
        response = one.run(lambda client: client.post(f"http://{OURS}:{port}/", content=content))
    assert response.json() == ["request-id=of%20the%20stream"]


def test_a_value_that_cannot_be_encoded_stays_and_the_request_is_sent(make: Any, port: int) -> None:
    one = make()
    connect(one.client, audience="process")
    attempt.set("many")
    with pytest.warns(travel.TravelWarning, match="attempt: its value is a str"):
        assert one.get(f"http://{OURS}:{port}/").json() == [TRUSTED]


def test_the_latter_of_two_connects_counts_and_other_hooks_stay(make: Any, port: int) -> None:
    called = []

    def hook(request: httpx.Request) -> Any:
        called.append(request)
        return done()

    async def done() -> None:
        pass

    one = make()
    other = hook if isinstance(one.client, httpx.AsyncClient) else called.append
    one.client.event_hooks = {"request": [other], "response": []}
    connect(one.client, audience="process", hosts={OURS: "trusted"})
    connect(one.client)
    assert one.get(f"http://{OURS}:{port}/").json() == [PUBLIC]
    assert len(called) == 1 and len(one.client.event_hooks["request"]) == 2
    with pytest.raises(ValueError):
        connect(one.client, audience="everybody")  # type: ignore[arg-type]
    assert one.get(f"http://{OURS}:{port}/").json() == [PUBLIC]


def test_other_clients_send_nothing(make: Any, port: int) -> None:
    connect(make().client)
    assert make().get(f"http://{OURS}:{port}/").json() == [None]


def test_the_examples_of_its_docstrings() -> None:
    assert doctest.testmod(integration).failed == 0
