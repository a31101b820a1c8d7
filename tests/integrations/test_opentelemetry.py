"""A span may be detached in another task, thread or Context: it ends at home, and nobody has a stale one."""

from __future__ import annotations

import asyncio
import doctest
import gc
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from asgiref.sync import sync_to_async
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry import context as otel
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context.context import Context as OtelContext
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import INVALID_SPAN, get_current_span

from contextvars_cy import Context, ContextVar, copy_context, travel
from contextvars_cy.integrations import _opentelemetry_context, opentelemetry
from contextvars_cy.integrations.opentelemetry import BaggagePropagator, RuntimeContext, from_baggage, to_baggage
from contextvars_cy.travel import TravelError, TravelWarning, inject, register, restore
from helpers import run_python

pytestmark = pytest.mark.usefixtures("nothing_registered", "context_of_its_own")

tracer = TracerProvider().get_tracer(__name__)


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> RuntimeContext:
    """The one that OpenTelemetry uses."""
    runtime = RuntimeContext()
    monkeypatch.setattr(otel, "_RUNTIME_CONTEXT", runtime)
    return runtime


@pytest.fixture(autouse=True)
def nothing_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """OpenTelemetry logs what goes wrong at a detach; a test that wants that clears it."""
    yield
    records = caplog.get_records("call")
    assert [record.message for record in records if record.name.startswith("opentelemetry")] == []


def attach(name: str) -> Any:
    return otel.attach(otel.set_value("name", name))


def current() -> Any:
    return otel.get_value("name")


def in_a_thread(function: Callable[..., Any], *args: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def in_a_copy(function: Callable[..., Any], *args: Any) -> Any:
    return copy_context().run(function, *args)


def in_an_empty_one(function: Callable[..., Any], *args: Any) -> Any:
    return Context().run(function, *args)


def in_a_copy_in_a_thread(function: Callable[..., Any], *args: Any) -> Any:
    return in_a_thread(copy_context().run, function, *args)


def in_a_coroutine(function: Callable[..., Any], *args: Any) -> Any:
    async def main() -> Any:
        return function(*args)

    return asyncio.run(main())


ELSEWHERE = [in_an_empty_one, in_a_copy, in_a_thread, in_a_copy_in_a_thread, in_a_coroutine]


# ---- as OpenTelemetry's own ----


def test_the_examples_of_the_docstrings() -> None:
    for module in (opentelemetry, _opentelemetry_context):
        assert doctest.testmod(module).failed == 0
    assert set(opentelemetry.__dir__()) >= set(opentelemetry.__all__)


def test_attach_and_detach(caplog: pytest.LogCaptureFixture) -> None:
    assert (current(), otel.get_current()) == (None, {})
    outer = attach("outer")
    inner = attach("inner")
    assert current() == "inner"
    otel.detach(inner)
    assert current() == "outer"
    otel.detach(inner)
    assert "Failed to detach context" in caplog.text and "already been used once" in caplog.text
    caplog.clear()
    assert current() == "outer"
    otel.detach(outer)
    assert (current(), otel.get_current()) == (None, {})


def test_at_home_the_order_does_not_matter_as_it_does_not_to_opentelemetrys_own() -> None:
    outer, inner = attach("outer"), attach("inner")
    otel.detach(outer)
    assert current() is None
    otel.detach(inner)
    assert current() == "outer"


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize("first_elsewhere", [True, False])
def test_a_second_detach_is_an_error_and_changes_nothing(
    runtime: RuntimeContext, elsewhere: Callable[..., Any], first_elsewhere: bool
) -> None:
    outer = attach("outer")
    token = attach("inner")
    elsewhere(runtime.detach, token) if first_elsewhere else runtime.detach(token)
    for again in (runtime.detach, lambda token: elsewhere(runtime.detach, token)):
        with pytest.raises(RuntimeError, match="already been used once"):
            again(token)
        assert current() == "outer"
    runtime.detach(outer)


@pytest.mark.parametrize("token", [None, 1, "token", object()])
def test_what_is_no_token_is_an_error(runtime: RuntimeContext, token: Any) -> None:
    attach("here")
    with pytest.raises(TypeError, match=r"detach\(\) takes what attach\(\) returned, not "):
        runtime.detach(token)
    assert current() == "here"


@pytest.mark.parametrize("elsewhere", [lambda function, *args: function(*args), *ELSEWHERE])
def test_another_runtimes_token_is_an_error(runtime: RuntimeContext, elsewhere: Callable[..., Any]) -> None:
    other = RuntimeContext()
    token = other.attach(OtelContext(name="theirs"))
    attach("ours")
    with pytest.raises(ValueError, match="created by a different ContextVar"):
        elsewhere(runtime.detach, token)
    assert (current(), other.get_current()) == ("ours", {"name": "theirs"})
    other.detach(token)
    assert other.get_current() == {}


# ---- detached elsewhere ----


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_it_ends_at_home_and_where_it_is_detached(elsewhere: Callable[..., Any]) -> None:
    attach("before")
    token = attach("span")

    def detach() -> Any:
        seen = current()
        otel.detach(token)
        return seen, current()

    seen, left = elsewhere(detach)
    # Where it was inherited it is over, and where it was not, nothing has changed.
    assert (seen, left) in [("span", "before"), (None, None)]
    assert current() == "before"


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_other_children_that_inherited_it_keep_it(elsewhere: Callable[..., Any]) -> None:
    token = attach("span")
    child = copy_context()
    grandchild = child.copy()
    elsewhere(otel.detach, token)
    assert current() is None
    for one in (child, grandchild, child.copy(), copy_context()):
        expected = "span" if one != copy_context() else None
        assert one.run(current) == expected
    # A span of the child's own, on top of that.
    with child:
        own = attach("own")
        assert current() == "own"
        otel.detach(own)
        assert current() == "span"


def test_children_made_afterwards_do_not_have_it() -> None:
    home = Context()
    token = home.run(attach, "span")
    in_an_empty_one(otel.detach, token)
    # Nobody has looked at it since.
    assert home.copy().run(current) is None


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_what_is_attached_on_top_stays(elsewhere: Callable[..., Any]) -> None:
    attach("before")
    lower = attach("lower")
    upper = attach("upper")
    elsewhere(otel.detach, lower)
    assert current() == "upper"
    otel.detach(upper)
    assert current() == "before"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0), (0, 2, 1), (2, 0, 1)])
@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_whatever_the_order(elsewhere: Callable[..., Any], order: tuple[int, ...]) -> None:
    attach("before")
    tokens = [attach(name) for name in "abc"]
    remaining = [*"abc"]
    for number in order:
        elsewhere(otel.detach, tokens[number])
        remaining.remove("abc"[number])
        assert current() == [*["before"], *remaining][-1]


def test_a_home_that_is_running_sees_it_at_its_next_look() -> None:
    home = Context()

    def run() -> Any:
        token = attach("span")
        in_an_empty_one(otel.detach, token)
        attached = attach("on top")
        otel.detach(attached)
        return current()

    assert home.run(run) is None
    assert home.copy().run(current) is None


def test_a_task_that_a_running_home_starts_before_its_next_look_keeps_it() -> None:
    """The page names it as a limit."""

    def run() -> tuple[Any, Any]:
        token = attach("span")
        in_an_empty_one(otel.detach, token)
        child = copy_context()
        return child.run(current), current()

    assert Context().run(run) == ("span", None)


def test_a_home_that_another_thread_is_in() -> None:
    home, attached, detached, seen = Context(), threading.Event(), threading.Event(), []
    tokens: list[Any] = []

    def work() -> None:
        tokens.append(attach("span"))
        attached.set()
        detached.wait(60)
        seen.append(current())

    thread = threading.Thread(target=home.run, args=[work])
    thread.start()
    attached.wait(60)
    otel.detach(tokens[0])
    detached.set()
    thread.join()
    assert seen == [None]
    assert home.run(current) is None


def test_the_home_of_a_thread_that_has_ended() -> None:
    token = in_a_thread(attach, "span")
    otel.detach(token)
    assert current() is None


def test_values_that_were_brought_back() -> None:
    """asgiref runs each in a copy, and sets here what it has set there."""

    async def main() -> list[Any]:
        seen = []
        await sync_to_async(attach)("request")
        token = await sync_to_async(attach)("view")
        seen.append(current())
        await sync_to_async(otel.detach)(token)
        seen.append(current())
        return seen

    assert asyncio.run(main()) == ["view", "request"]


def test_threads_that_detach_each_others_spans(quick_switches: None) -> None:
    tokens: list[Any] = []
    lock, failed = threading.Lock(), []

    def work(number: int) -> None:
        for turn in range(300):
            mine = f"{number}-{turn}"
            token = attach(mine)
            if current() != mine:
                failed.append((mine, current()))
            with lock:
                tokens.append(token)
                theirs = tokens.pop(0)
            otel.detach(theirs)
            if current() not in (None, mine):
                failed.append((mine, current()))

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


OPERATIONS = st.lists(st.tuples(st.sampled_from(["attach", "detach", "copy"]), st.integers(0, 9), st.integers(0, 9)))


@given(OPERATIONS)
def test_whatever_the_order_in_whichever_contexts(operations: list[tuple[str, int, int]]) -> None:
    """A detach elsewhere changes what is current in two Contexts at most, and is never current there again."""
    runtime = RuntimeContext()
    contexts = [Context()]
    attached: list[tuple[Any, OtelContext, Context]] = []
    over: list[tuple[OtelContext, Context]] = []

    def seen() -> list[OtelContext]:
        return [context.run(runtime.get_current) for context in contexts]

    for operation, first, second in operations:
        context = contexts[first % len(contexts)]
        before = seen()
        if operation == "copy":
            contexts.append(context.copy())
            over += [(span, contexts[-1]) for span, there in over if there is context]
            assert seen() == [*before, context.run(runtime.get_current)]
        elif operation == "attach":
            span = OtelContext(number=len(attached) + len(over))
            attached.append((context.run(runtime.attach, span), span, context))
            assert context.run(runtime.get_current) is span
        elif attached:
            token, span, home = attached.pop(second % len(attached))
            if context is home and context.run(runtime.get_current) is not span:
                # Detached at home out of order, it brings back what was before, as with OpenTelemetry's own.
                context = Context()
            context.run(runtime.detach, token)
            for place, was, now in zip(contexts, before, seen()):
                if place in (context, home):
                    assert now is not span and (was is span or now is was)
                else:
                    assert now is was
            over += [(span, place) for place in (context, home)]
        for span, place in over:
            assert place.run(runtime.get_current) is not span


# ---- with generators and tasks ----


async def spans(name: str) -> AsyncIterator[Any]:
    with tracer.start_as_current_span(name) as span:
        yield span
        yield span


# An eager task takes its first step inside of the one that starts it, whose Context is entered then.
FACTORIES: list[Any] = [None]
if sys.version_info >= (3, 12):
    FACTORIES.append(asyncio.eager_task_factory)


@pytest.mark.parametrize("factory", FACTORIES)
def test_generators_opened_in_one_task_and_closed_in_another(factory: Any) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)

        async def close() -> None:
            await generator.aclose()
            left.append(get_current_span())

        async def look_later() -> Any:
            await closed.wait()
            return get_current_span()

        closed = asyncio.Event()
        with tracer.start_as_current_span("request") as request:
            for _ in range(100):
                generator: Any = spans("generator")
                span = await generator.__anext__()
                assert get_current_span() is span
                sleeping = asyncio.create_task(look_later())
                await asyncio.sleep(0)
                left: list[Any] = []
                await asyncio.create_task(close())
                assert not span.is_recording()
                # Neither here, nor in the task that closed it, nor in one made now, but where it was inherited.
                assert get_current_span() is request and left == [request]
                assert await asyncio.create_task(look()) is request
                closed.set()
                assert await sleeping is span
                closed.clear()
        assert get_current_span() is INVALID_SPAN

    async def look() -> Any:
        return get_current_span()

    asyncio.run(main())


def test_generators_that_are_left_and_closed_by_the_loop() -> None:
    async def main() -> list[Any]:
        seen = []
        for _ in range(20):
            async for _ in spans("left"):
                break
            gc.collect()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append(get_current_span())
        return seen

    assert asyncio.run(main()) == [INVALID_SPAN] * 20


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_a_generator_closed_elsewhere(elsewhere: Callable[..., Any]) -> None:
    def generator() -> Iterator[Any]:
        with tracer.start_as_current_span("inside") as span:
            yield span

    with tracer.start_as_current_span("outside") as outside:
        steps: Any = generator()
        span = next(steps)
        assert get_current_span() is span
        elsewhere(steps.close)
        assert get_current_span() is outside
    assert get_current_span() is INVALID_SPAN


PROGRAM = """
import asyncio, json, logging
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider

records = []
handler = logging.Handler()
handler.emit = records.append
logging.getLogger("opentelemetry").addHandler(handler)
trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("program")
stale = 0

async def spans():
    with tracer.start_as_current_span("generator"):
        yield

async def request(number):
    global stale
    with tracer.start_as_current_span(f"request {number}") as span:
        generator = spans()
        await generator.__anext__()
        await asyncio.create_task(generator.aclose())
        stale += trace.get_current_span() is not span
        parent = await asyncio.to_thread(lambda: tracer.start_span("thread").parent) if hasattr(asyncio, "to_thread") \\
            else span.get_span_context()
        stale += parent.span_id != span.get_span_context().span_id

async def main():
    await asyncio.gather(*(request(number) for number in range(100)))

asyncio.run(main())
print(json.dumps({
    "runtime": type(context._RUNTIME_CONTEXT).__name__,
    "stale": stale,
    "errors": [record.getMessage() for record in records],
    "current": trace.get_current_span() is trace.INVALID_SPAN,
}))
"""


@pytest.mark.parametrize("module", ["contextvars_cy", "contextvars_cy.integrations.opentelemetry", "opentelemetry.sdk"])
def test_whatever_is_imported_first(module: str, tmp_path: Path) -> None:
    program = f"""
import {module}
from opentelemetry import context
from contextvars_cy.integrations.opentelemetry import RuntimeContext
context.get_current()
print(type(context._RUNTIME_CONTEXT) is RuntimeContext)
"""
    done = run_python(["-W", "error", "-c", program], tmp_path, {"OTEL_PYTHON_CONTEXT": "contextvars_cy"})
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize("chosen", ["contextvars_cy", "contextvars_context"])
def test_opentelemetry_loads_it_by_its_name(chosen: str, tmp_path: Path) -> None:
    done = run_python(["-W", "error", "-c", PROGRAM], tmp_path, {"OTEL_PYTHON_CONTEXT": chosen})
    told = json.loads(done.stdout or "{}")
    if chosen == "contextvars_cy":
        assert told == {
            "runtime": "RuntimeContext",
            "stale": 0,
            "errors": [],
            "current": True,
        }, done.stderr
    else:
        # What it is for: with OpenTelemetry's own all of them fail.
        assert (told["errors"], told["stale"]) == (["Failed to detach context"] * 100, 200), done.stderr


# ---- memory ----


def freed(make: Callable[[], Any]) -> bool:
    """Whether what it returns a weak reference to is gone, without the garbage collector's help."""
    gc.collect()
    gc.disable()
    try:
        return make()() is None
    finally:
        gc.enable()


class Held(OtelContext):
    """Can be referred to weakly."""


@pytest.mark.parametrize("elsewhere", [lambda function, *args: function(*args), *ELSEWHERE])
def test_what_was_detached_is_freed(runtime: RuntimeContext, elsewhere: Callable[..., Any]) -> None:
    if elsewhere is in_a_coroutine:
        # A loop's own cycles hold the Context of its handles.
        asyncio.run(asyncio.sleep(0))

    def make() -> Any:
        held = Held(name="span")
        token = runtime.attach(held)
        elsewhere(runtime.detach, token)
        runtime.get_current()
        return ref(held)

    if elsewhere is in_a_coroutine:
        left = make()
        gc.collect()
        assert left() is None
    else:
        assert freed(make)


def test_a_home_that_is_dropped_is_freed_with_what_it_holds(runtime: RuntimeContext) -> None:
    def make() -> Any:
        held, home = Held(name="span"), Context()
        token = home.run(runtime.attach, held)
        with ThreadPoolExecutor(1) as pool:
            # Its home does not look again.
            pool.submit(runtime.detach, token).result()
        return ref(held)

    assert freed(make)


def test_hand_over_hand_nothing_piles_up(runtime: RuntimeContext) -> None:
    """Always one on top when the one below is detached elsewhere."""
    seen = []
    below = runtime.attach(Held(number=-1))
    for number in range(200):
        held = Held(number=number)
        seen.append(ref(held))
        above = runtime.attach(held)
        del held
        in_an_empty_one(runtime.detach, below)
        below = above
    del above
    assert runtime.get_current() == {"number": 199}
    # Each token keeps what was before it, as the standard library's do: the last two.
    assert sum(one() is not None for one in seen) <= 2
    runtime.detach(below)
    assert runtime.get_current() == {}


# ---- Baggage ----


def registered(name: str, **settings: Any) -> ContextVar[Any]:
    var: ContextVar[Any] = ContextVar(name)
    register(var, name, **settings)
    return var


def test_registered_variables_are_baggage_and_back() -> None:
    seat, plan, secret = (
        registered("seat", codec=int, audience="public"),
        registered("plan", audience="trusted"),
        registered("secret"),
    )
    seat.set(12), plan.set("free & easy"), secret.set("s")
    before = baggage.set_baggage("theirs", "1")
    assert baggage.get_all(to_baggage(before)) == {"theirs": "1", "seat": "12"}
    context = to_baggage(before, audience="trusted")
    assert baggage.get_all(context) == {"theirs": "1", "seat": "12", "plan": "free & easy"}
    assert baggage.get_all(to_baggage(audience="trusted", only=[plan])) == {"plan": "free & easy"}
    assert baggage.get_all() == {}
    assert dict(from_baggage(context)) == {"seat": "12"}

    def arrive() -> Any:
        token = otel.attach(context)
        with restore(from_baggage(audience="trusted")):
            found = seat.get(), plan.get(), secret.get(None)
        otel.detach(token)
        return found

    assert Context().run(arrive) == (12, "free & easy", None)


def test_values_of_another_moment_do_not_stay() -> None:
    registered("seat", audience="public")
    registered("secret")
    old = baggage.set_baggage("seat", "1", baggage.set_baggage("secret", "s", baggage.set_baggage("theirs", "1")))
    assert baggage.get_all(to_baggage(old)) == {"theirs": "1"}
    assert baggage.get_all(old) == {"theirs": "1", "secret": "s", "seat": "1"}


class Hostile:
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __eq__ = __hash__ = __bool__ = __str__  # type: ignore[assignment]


@pytest.mark.parametrize(
    "value", [1, None, b"a", Hostile(), ["a"], "\ud800", "x" * 5000, "not a number", type("Text", (str,), {})("1")]
)
def test_bad_entries_are_left_out_and_the_rest_comes(value: Any) -> None:
    number, other = registered("number", codec=int, audience="public"), registered("other", audience="public")
    context = baggage.set_baggage("other", "there", baggage.set_baggage("number", value))
    for name in ("unregistered", "a,number=1", "\ud800", ""):
        context = baggage.set_baggage(name, Hostile(), context)
    with pytest.warns(TravelWarning, match="a value does not travel: number: "), restore(from_baggage(context)):
        assert (number.get(None), other.get()) == (None, "there")
    with pytest.raises(TravelError, match="^number: "):
        restore(from_baggage(context, strict=True), strict=True)


def test_values_that_cannot_be_encoded_stay_and_the_rest_is_baggage() -> None:
    registered("number", codec=int, audience="public").set("many")
    registered("other", audience="public").set("there")
    with pytest.warns(TravelWarning, match="number: its value is a str") as warned:
        assert baggage.get_all(to_baggage()) == {"other": "there"}
    assert [warning.filename for warning in warned] == [opentelemetry.__file__]
    with pytest.raises(TravelError, match="^number: "):
        to_baggage(strict=True)


@pytest.mark.parametrize("call", [to_baggage, from_baggage, BaggagePropagator])
def test_an_unknown_audience_is_an_error(call: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="choose one of process, trusted, public"):
        call(audience="everybody")


# ---- the propagator ----


@pytest.mark.parametrize(("audience", "sent"), [("public", ["seat"]), ("trusted", ["plan", "seat"])])
def test_the_propagator_sends_what_its_audience_may_see(audience: Any, sent: list[str]) -> None:
    for name, its in (("seat", "public"), ("plan", "trusted"), ("secret", "process")):
        registered(name, audience=its).set(' ä+%,;=\\"€😀.'[1:])
    headers: dict[str, str] = {}
    # Even if somebody has attached more.
    context = to_baggage(baggage.set_baggage("theirs", "1"), audience="process")
    BaggagePropagator(audience).inject(headers, context)
    assert sorted(W3CBaggagePropagator().extract(headers) and travel.extract(headers, audience="process")) == sent
    arrived = BaggagePropagator().extract(headers)
    assert sorted(baggage.get_all(arrived)) == sorted([*sent, "theirs"])
    assert set(from_baggage(arrived, audience="trusted").values()) == {'ä+%,;=\\"€😀.'}


@pytest.mark.parametrize("spelt", ["baggage", "Baggage"])
def test_no_old_value_goes_on_to_another_audience(spelt: str) -> None:
    registered("plan", audience="trusted").set("new")
    headers = {spelt: "plan=old"}
    BaggagePropagator().inject(headers)
    assert headers == {}
    headers = {spelt: "plan=old,theirs=1"}
    BaggagePropagator().inject(headers)
    assert headers == {spelt: "theirs=1"}


def test_it_works_beside_travels_own_header() -> None:
    registered("seat", audience="public").set("12")
    headers: dict[str, str] = {}
    BaggagePropagator().inject(headers)
    inject(headers, audience="public")
    assert headers == {"baggage": "seat=12"}


def test_opentelemetry_loads_the_propagator_by_its_name(tmp_path: Path) -> None:
    program = """
from contextvars_cy import ContextVar, travel
from opentelemetry import propagate
seat = ContextVar("seat")
travel.register(seat, "seat", audience="public")
seat.set("12")
headers = {}
propagate.inject(headers)
print(headers)
"""
    done = run_python(["-W", "error", "-c", program], tmp_path, {"OTEL_PROPAGATORS": "tracecontext,contextvars_cy"})
    assert done.stdout == "{'baggage': 'seat=12'}\n", done.stderr
