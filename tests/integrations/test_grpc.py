"""Values travel with all four kinds of gRPC calls, to servers with threads and with tasks, and none stays behind."""

from __future__ import annotations

import asyncio
import doctest
import gc
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

# Before Python 3.10 the other tests fork to start a process, and then gRPC's threads would wake up in the child.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import grpc
import pytest
from grpc import aio

from contextvars_cy import Context, ContextVar
from contextvars_cy.integrations import grpc as integration
from contextvars_cy.integrations.grpc import (
    aio_client_interceptors,
    aio_server_interceptor,
    client_interceptor,
    server_interceptor,
)
from contextvars_cy.travel import TravelWarning, register
from helpers import run_python

pytestmark = [
    pytest.mark.usefixtures("nothing_registered", "context_of_its_own"),
    # What gRPC leaves if a server of tasks stops while a function still yields responses.
    pytest.mark.filterwarnings("ignore:coroutine 'Queue.put' was never awaited:RuntimeWarning"),
]

KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
TIMEOUT = 60


class Variables:
    def __init__(self) -> None:
        self.seat: ContextVar[str] = ContextVar("seat", default="-")
        self.tenant: ContextVar[str] = ContextVar("tenant", default="-")
        self.secret: ContextVar[str] = ContextVar("secret", default="-")
        register(self.seat, "seat", audience="public", max_size=100_000)
        register(self.tenant, "tenant", audience="trusted")
        register(self.secret, "secret")

    def seen(self) -> bytes:
        return f"{self.seat.get()} {self.tenant.get()} {self.secret.get()}".encode()


@pytest.fixture
def variables(nothing_registered: None) -> Variables:
    return Variables()


# ---- servers ----


def functions(variables: Variables) -> dict[str, Callable[..., Any]]:
    """They tell what they see, and set something that the next call must not see."""

    def unary_unary(request: bytes, context: Any) -> bytes:
        seen = variables.seen()
        variables.secret.set("left behind")
        return seen

    def unary_stream(request: bytes, context: Any) -> Iterator[bytes]:
        for _ in range(3):
            yield variables.seen()
        variables.secret.set("left behind")

    def stream_unary(requests: Iterator[bytes], context: Any) -> bytes:
        return b"|".join(variables.seen() for _ in requests)

    def stream_stream(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        def answer(request: bytes) -> bytes:
            return variables.seen()

        # An iterator that is no generator.
        return map(answer, requests)

    return {function.__name__: function for function in (unary_unary, unary_stream, stream_unary, stream_stream)}


def coroutines(variables: Variables) -> dict[str, Callable[..., Any]]:
    async def unary_unary(request: bytes, context: Any) -> bytes:
        seen = variables.seen()
        variables.secret.set("left behind")
        return seen

    async def unary_stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield variables.seen()
            await asyncio.sleep(0)

    async def stream_unary(requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"|".join([variables.seen() async for _ in requests])

    async def stream_stream(requests: AsyncIterator[bytes], context: Any) -> None:
        async for _ in requests:
            await context.write(variables.seen())

    return {function.__name__: function for function in (unary_unary, unary_stream, stream_unary, stream_stream)}


def service(behaviours: dict[str, Callable[..., Any]], name: str = "test") -> Any:
    handlers = {
        key: getattr(grpc, f"{next(kind for kind in KINDS if key.startswith(kind))}_rpc_method_handler")(behaviour)
        for key, behaviour in behaviours.items()
    }
    return grpc.method_handlers_generic_handler(name, handlers)


class Serving:
    """A server on a free port, in threads or, with a loop of its own, in tasks."""

    def __init__(
        self, behaviours: dict[str, Callable[..., Any]], interceptors: Sequence[Any], tasks: bool, threads: int = 1
    ) -> None:
        self.handlers, self.interceptors, self.threads = [service(behaviours)], interceptors, threads
        self.tasks = tasks

    def __enter__(self) -> str:
        self.pool = ThreadPoolExecutor(self.threads)
        if not self.tasks:
            self.server = grpc.server(self.pool, handlers=self.handlers, interceptors=self.interceptors)
            self.port = self.server.add_insecure_port("127.0.0.1:0")
            self.server.start()
        else:
            started = threading.Event()
            self.thread = threading.Thread(target=asyncio.run, args=[self.serve(started)])
            self.thread.start()
            assert started.wait(TIMEOUT)
        return f"127.0.0.1:{self.port}"

    async def serve(self, started: threading.Event) -> None:
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        server = aio.server(self.pool, handlers=self.handlers, interceptors=self.interceptors)
        self.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        started.set()
        await self.over.wait()
        await server.stop(None)

    def __exit__(self, *error: object) -> None:
        if not self.tasks:
            self.server.stop(None).wait()
        else:
            self.loop.call_soon_threadsafe(self.over.set)
            self.thread.join()
        self.pool.shutdown()
        if self.tasks:
            # So that what asyncio tells of it is not told in another test.
            gc.collect()


SERVERS = ["threads", "tasks", "functions under tasks"]


def serving(server: str, variables: Variables, audience: Any = "public", more: Sequence[Any] = ()) -> Serving:
    interceptor: Any = server_interceptor if server == "threads" else aio_server_interceptor
    behaviours = coroutines(variables) if server == "tasks" else functions(variables)
    return Serving(behaviours, [interceptor(audience), *more], tasks=server != "threads")


# ---- clients ----


def call(address: str, kind: str, interceptors: Sequence[Any] = (), metadata: Any = None) -> list[bytes]:
    """The responses to one call, which has two requests if it can have several."""
    with grpc.insecure_channel(address) as channel:
        if interceptors:
            channel = grpc.intercept_channel(channel, *interceptors)
        start = getattr(channel, kind)(f"/test/{kind}")
        requests = iter([b"1", b"2"]) if kind.startswith("stream") else b"1"
        response = start(requests, metadata=metadata, timeout=TIMEOUT)
        return split(list(response) if kind.endswith("stream") else [response])


def aio_call(address: str, kind: str, interceptors: Sequence[Any] = (), metadata: Any = None) -> list[bytes]:
    async def main() -> list[bytes]:
        async with aio.insecure_channel(address, interceptors=interceptors) as channel:
            start = getattr(channel, kind)(f"/test/{kind}")
            requests = iter([b"1", b"2"]) if kind.startswith("stream") else b"1"
            response = start(requests, metadata=metadata, timeout=TIMEOUT)
            return split([part async for part in response] if kind.endswith("stream") else [await response])

    return asyncio.run(main())


def split(responses: list[bytes]) -> list[bytes]:
    return [seen for response in responses for seen in response.split(b"|")]


CLIENTS: dict[str, tuple[Callable[..., list[bytes]], Callable[..., list[Any]]]] = {
    "threads": (call, lambda audience: [client_interceptor(audience)]),
    "tasks": (aio_call, aio_client_interceptors),
}


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(integration).failed == 0
    assert set(integration.__dir__()) >= set(integration.__all__)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
def test_values_arrive_and_none_stays(server: str, client: str, variables: Variables) -> None:
    start, interceptors_for = CLIENTS[client]
    several = {"unary_unary": 1, "unary_stream": 3, "stream_unary": 2, "stream_stream": 2}
    with serving(server, variables) as address:
        for kind in KINDS:
            with variables.seat.set("12, ä"), variables.tenant.set("acme"), variables.secret.set("s"):
                assert start(address, kind, interceptors_for("public")) == ["12, ä - -".encode()] * several[kind]
            # The one thread that there is serves the next call too.
            assert start(address, kind) == [b"- - -"] * several[kind]


SETTING = """
import grpc
from concurrent.futures import ThreadPoolExecutor
from contextvars_cy import ContextVar
from contextvars_cy.integrations.grpc import server_interceptor

tenant = ContextVar("tenant", default="-")


def answer(request, context):
    seen = tenant.get()
    tenant.set("set by the handler")
    return seen.encode()


handlers = grpc.method_handlers_generic_handler("test", {"answer": grpc.unary_unary_rpc_method_handler(answer)})
server = grpc.server(ThreadPoolExecutor(1), handlers=[handlers], interceptors=[server_interceptor()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    for metadata in (None, None, [("baggage", "theirs=1")], None):
        print(channel.unary_unary("/test/answer")(b"", metadata=metadata, timeout=60).decode())
server.stop(None).wait()
"""


@pytest.mark.parametrize("host", ["native", "thread"])
def test_what_a_handler_sets_ends_with_its_call(host: str, tmp_path: Path) -> None:
    done = run_python(["-c", SETTING], tmp_path, {"CONTEXTVARS_CY_HOST": host})
    assert done.stdout.split() == ["-"] * 4, done.stderr


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("sends", "takes", "seen"),
    [
        ("public", "public", b"1 - -"),
        ("trusted", "public", b"1 - -"),
        ("public", "trusted", b"1 - -"),
        ("trusted", "trusted", b"1 t -"),
        ("process", "process", b"1 t s"),
    ],
)
def test_each_side_says_who_the_other_is(
    server: str, sends: Any, takes: Any, seen: bytes, variables: Variables
) -> None:
    with serving(server, variables, takes) as address:
        with variables.seat.set("1"), variables.tenant.set("t"), variables.secret.set("s"):
            for start, interceptors_for in CLIENTS.values():
                assert start(address, "unary_unary", interceptors_for(sends)) == [seen]


@pytest.mark.parametrize("make", [client_interceptor, server_interceptor, aio_client_interceptors])
def test_an_unknown_audience_is_an_error(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="choose one of process, trusted, public"):
        make("everybody")


@pytest.mark.parametrize("tasks", [False, True])
def test_calls_at_the_same_time_see_their_own(tasks: bool, variables: Variables) -> None:
    """Each stream waits at each step until all have come so far."""
    number = 4
    barrier = threading.Barrier(number)
    came: dict[int, list[asyncio.Future[None]]] = {}

    def unary_stream(request: bytes, context: Any) -> Iterator[bytes]:
        for _ in range(5):
            barrier.wait(TIMEOUT)
            yield variables.seen()

    async def unary_stream_in_task(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for step in range(5):
            waiting = came.setdefault(step, [])
            waiting.append(asyncio.get_running_loop().create_future())
            if len(waiting) == number:
                for future in waiting:
                    future.set_result(None)
            await waiting[-1] if len(waiting) == number else await asyncio.wait_for(waiting[-1], TIMEOUT)
            yield variables.seen()

    interceptor: Any = aio_server_interceptor if tasks else server_interceptor
    behaviour: Any = unary_stream_in_task if tasks else unary_stream
    with Serving({"unary_stream": behaviour}, [interceptor()], tasks, threads=number) as address:

        def request(seat: int) -> list[bytes]:
            with variables.seat.set(str(seat)):
                return call(address, "unary_stream", [client_interceptor()])

        with ThreadPoolExecutor(number) as pool:
            answers = list(pool.map(request, range(number)))
    assert answers == [[f"{seat} - -".encode()] * 5 for seat in range(number)]


# ---- metadata ----


def tells_metadata(request: bytes, context: Any) -> bytes:
    return repr([(key, value) for key, value in context.invocation_metadata() if key != "user-agent"]).encode()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (None, [("baggage", "seat=1")]),
        ((), [("baggage", "seat=1")]),
        ((("a", "1"), ("b-bin", b"\0")), [("a", "1"), ("b-bin", b"\0"), ("baggage", "seat=1")]),
        ([("a", "1"), ("a", "2")], [("a", "1"), ("a", "2"), ("baggage", "seat=1")]),
        (aio.Metadata(("a", "1"), ("a", "2")), [("a", "1"), ("a", "2"), ("baggage", "seat=1")]),
        ([("baggage", "theirs=1;p=2")], [("baggage", "theirs=1;p=2,seat=1")]),
        ([("baggage", "b=1"), ("a", "1"), ("baggage", "seat=0,c=2")], [("a", "1"), ("baggage", "b=1,c=2,seat=1")]),
    ],
)
def test_the_metadata_of_others_stay(client: str, given: Any, sent: list[Any], variables: Variables) -> None:
    start, interceptors_for = CLIENTS[client]
    before = repr(given)
    with Serving({"unary_unary": tells_metadata}, [], tasks=False) as address:
        with variables.seat.set("1"):
            assert start(address, "unary_unary", interceptors_for("public"), given) == split([repr(sent).encode()])
        assert repr(given) == before
        # Without a value, nothing is added.
        without = start(address, "unary_unary", interceptors_for("public"), given)
        assert b"seat" not in b",".join(without)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("header", "logged"),
    [
        ("", False),
        ("=", False),
        (",;=,,,", False),
        ("unknown=1", False),
        ("tenant=1,secret=1", False),
        ("seat", True),
        ("seat=%zz", True),
        ("seat=%ff", True),
        ("seat=" + "x" * 5000, True),
        ("x" * 3000, False),
        (",".join(f"n{number}=1" for number in range(400)), True),
    ],
)
def test_whatever_arrives_the_call_is_served(
    server: str, header: str, logged: bool, variables: Variables, caplog: pytest.LogCaptureFixture
) -> None:
    """What is left out is logged: a warning, here an error, would fail the call."""
    with serving(server, variables) as address:
        assert call(address, "unary_unary", metadata=[("baggage", header)]) == [b"- - -"]
        assert len([record for record in caplog.records if record.name == "contextvars_cy.travel"]) == logged
        if server == "threads":
            entries = [("baggage", "unknown=1"), ("baggage", "seat=2")]
            assert call(address, "unary_unary", metadata=entries) == [b"2 - -"]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("size", [5000, 7000, 20_000])
def test_what_is_too_big_stays_and_the_call_is_made(client: str, size: int, variables: Variables) -> None:
    start, interceptors_for = CLIENTS[client]
    with serving("threads", variables) as address, variables.seat.set("x" * size), variables.tenant.set("t"):
        for _ in range(3):
            with pytest.warns(TravelWarning, match="seat: a member of"):
                assert start(address, "unary_unary", interceptors_for("trusted")) == [b"- - -"]


@pytest.mark.parametrize("client", CLIENTS)
def test_metadata_that_grpc_would_refuse_are_not_made(client: str, variables: Variables) -> None:
    start, interceptors_for = CLIENTS[client]
    given = [("a", "x" * 4000)]
    with serving("threads", variables) as address, variables.seat.set("x" * 3500):
        for _ in range(20):
            with pytest.warns(TravelWarning, match="no value travels with this call: its metadata would have 7"):
                assert start(address, "unary_unary", interceptors_for("public"), given) == [b"- - -"]


@pytest.mark.parametrize("client", CLIENTS)
def test_what_cannot_be_encoded_stays_and_the_call_is_made(client: str, variables: Variables) -> None:
    start, interceptors_for = CLIENTS[client]
    broken: ContextVar[Any] = ContextVar("broken")
    register(broken, "broken", codec=int, audience="public")
    with serving("threads", variables) as address, variables.seat.set("1"), broken.set("many"):
        with pytest.warns(TravelWarning, match="broken: its value is a str"):
            assert start(address, "unary_unary", interceptors_for("public")) == [b"1 - -"]


# ---- beside other interceptors ----


class Elsewhere(grpc.ClientCallDetails):  # type: ignore[misc,unused-ignore]
    """The details of another interceptor, without what it did not think of."""

    def __init__(self, method: str, metadata: Any) -> None:
        self.method, self.metadata = method, metadata


class Short(NamedTuple):
    """A named tuple that has not thought of metadata."""

    method: str


class Theirs(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc,unused-ignore]
    def __init__(self, change: Callable[[Any], Any]) -> None:
        self.change = change

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self.change(details), request)


@pytest.mark.parametrize(
    "change",
    [
        lambda details: Elsewhere(details.method, [*(details.metadata or ()), ("a", "1")]),
        lambda details: details._replace(metadata=[*(details.metadata or ()), ("a", "1")]),
    ],
)
def test_other_client_interceptors_before_and_after(change: Callable[[Any], Any], variables: Variables) -> None:
    with Serving({"unary_unary": tells_metadata}, [], tasks=False) as address, variables.seat.set("1"):
        before = call(address, "unary_unary", [Theirs(change), client_interceptor()])
        after = call(address, "unary_unary", [client_interceptor(), Theirs(change)])
    assert before == split([b"[('a', '1'), ('baggage', 'seat=1')]"])
    assert after == split([b"[('baggage', 'seat=1'), ('a', '1')]"])


@pytest.mark.parametrize("details", [lambda method: Elsewhere(method, None), Short])
def test_details_that_have_no_metadata(details: Callable[[str], Any], variables: Variables) -> None:
    theirs = Theirs(lambda given: details(given.method))
    with serving("threads", variables) as address, variables.seat.set("1"):
        assert call(address, "unary_unary", [theirs, client_interceptor()]) == [b"1 - -"]


def test_the_other_ways_to_call(variables: Variables) -> None:
    with serving("threads", variables) as address, grpc.insecure_channel(address) as channel:
        start = grpc.intercept_channel(channel, client_interceptor()).unary_unary("/test/unary_unary")
        with variables.seat.set("1"):
            future = start.future(b"", timeout=TIMEOUT)
            response, done = start.with_call(b"", timeout=TIMEOUT)
        assert (future.result(), response, done.code()) == (b"1 - -", b"1 - -", grpc.StatusCode.OK)


class AfterOurs(grpc.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Sees the values, and sets one of its own for the handler."""

    def __init__(self, variables: Variables) -> None:
        self.variables = variables

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        self.variables.secret.set(f"interceptor saw {self.variables.seat.get()}")
        return continuation(details)


class AioAfterOurs(aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    def __init__(self, variables: Variables) -> None:
        self.variables = variables

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        self.variables.secret.set(f"interceptor saw {self.variables.seat.get()}")
        return await continuation(details)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("kind", KINDS)
def test_other_server_interceptors_see_the_values_and_set_theirs(server: str, kind: str, variables: Variables) -> None:
    more: Any = AfterOurs if server == "threads" else AioAfterOurs
    with serving(server, variables, more=[more(variables)]) as address, variables.seat.set("1"):
        for _ in range(2):
            assert set(call(address, kind, [client_interceptor()])) == {b"1 - interceptor saw 1"}


# ---- what handlers do besides ----


@pytest.mark.parametrize("server", ["threads", "functions under tasks"])
def test_errors_and_aborts_are_as_without(server: str, variables: Variables) -> None:
    def unary_stream(request: bytes, context: Any) -> Iterator[bytes]:
        if variables.seat.get() == "calling":
            raise LookupError("calling")
        return steps(context)

    def steps(context: Any) -> Iterator[bytes]:
        if variables.seat.get() == "abort":
            context.abort(grpc.StatusCode.DATA_LOSS, f"lost {variables.seat.get()}")
        yield variables.seen()
        raise LookupError("iterating")

    def answer(interceptors: list[Any], seat: str) -> tuple[Any, str]:
        with Serving({"unary_stream": unary_stream}, interceptors, tasks=server != "threads") as address:
            with pytest.raises(grpc.RpcError) as error, variables.seat.set(seat):
                call(address, "unary_stream", [client_interceptor()])
            with pytest.raises(grpc.RpcError) as unknown:
                call(address, "unary_unary", [client_interceptor()])
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
        return error.value.code(), error.value.details()

    ours: Any = server_interceptor() if server == "threads" else aio_server_interceptor()
    code, details = answer([ours], "calling")
    assert code is grpc.StatusCode.UNKNOWN and "calling" in details
    assert ("calling application" in details) is (server == "threads")
    assert answer([ours], "abort") == (grpc.StatusCode.DATA_LOSS, "lost abort")
    code, details = answer([ours], "iterating")
    assert code is grpc.StatusCode.UNKNOWN and "iterating" in details


@pytest.mark.parametrize("server", ["threads", "tasks"])
def test_a_stream_that_the_client_leaves_ends_with_its_values(server: str, variables: Variables) -> None:
    ended: list[bytes] = []
    over = threading.Event()

    def unary_stream(request: bytes, context: Any) -> Iterator[bytes]:
        try:
            while True:
                yield variables.seen()
        finally:
            ended.append(variables.seen())
            over.set()

    async def unary_stream_in_task(request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield variables.seen()
        finally:
            ended.append(variables.seen())
            over.set()

    interceptor: Any = server_interceptor if server == "threads" else aio_server_interceptor
    behaviour: Any = unary_stream_in_task if server == "tasks" else unary_stream
    with Serving({"unary_stream": behaviour}, [interceptor()], server != "threads") as address:
        with grpc.insecure_channel(address) as channel, variables.seat.set("1"):
            responses = grpc.intercept_channel(channel, client_interceptor()).unary_stream("/test/unary_stream")(b"")
            assert next(responses) == b"1 - -"
            responses.cancel()
            assert over.wait(TIMEOUT)
    assert ended == [b"1 - -"]


def test_handlers_of_a_thread_pool_of_their_own_and_with_callbacks(variables: Variables) -> None:
    """Two features of gRPC that are marked by attributes of the function."""
    names = []

    def unary_unary(request: bytes, context: Any) -> bytes:
        names.append(threading.current_thread().name)
        return variables.seen()

    def unary_stream(request: bytes, context: Any, send: Callable[[bytes | None], None]) -> None:
        send(variables.seen())
        send(None)

    with ThreadPoolExecutor(1, "own") as own:
        unary_unary.experimental_thread_pool = own  # type: ignore[attr-defined]
        unary_stream.experimental_non_blocking = True  # type: ignore[attr-defined]
        behaviours: dict[str, Any] = {"unary_unary": unary_unary, "unary_stream": unary_stream}
        with Serving(behaviours, [server_interceptor()], tasks=False) as address, variables.seat.set("1"):
            assert call(address, "unary_unary", [client_interceptor()]) == [b"1 - -"]
            assert call(address, "unary_stream", [client_interceptor()]) == [b"1 - -"]
    assert [name.rpartition("_")[0] for name in names] == ["own"]


def test_a_client_without_values_of_its_own_sends_nothing(variables: Variables) -> None:
    variables.seat.set("1")
    with Serving({"unary_unary": tells_metadata}, [], tasks=False) as address:
        assert Context().run(call, address, "unary_unary", [client_interceptor("process")]) == [b"[]"]
