"""Values travel with Celery's tasks through a real Redis to real workers, and no task sees those of another."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import celery.exceptions
import pytest
import redis
from celery import Celery, chain, chord, current_app, group, signals
from celery.result import ResultSet

import queue_tasks
from contextvars_cy import ContextVar, assign, travel
from contextvars_cy.integrations.celery import connect
from helpers import environment
from queue_tasks import note, number, secret, see, step, tenant

pytestmark = pytest.mark.usefixtures("registered", "context_of_its_own")

# Only what hangs is meant to reach it.
LIMIT = 120
NOTHING = ["-", 0, "-"]


@pytest.fixture
def registered(nothing_registered: None) -> None:
    queue_tasks.register()


# ---- a broker and workers ----


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """See that nothing of it is left: neither the process nor its children, which are in its session."""
    try:
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of this module's own, which keeps nothing."""
    folder = tmp_path_factory.mktemp("redis")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL, start_new_session=True)
    with ended(process), redis.Redis(port=port) as client:
        until = time.monotonic() + LIMIT
        while True:
            assert process.poll() is None and time.monotonic() < until
            with suppress(redis.ConnectionError):
                client.ping()
                break
            time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}/0"
        # A result unsubscribes when it is collected, and waits for a Redis that is gone.
        gc.collect()


@contextmanager
def worker(url: str, folder: Path, *options: str) -> Iterator[Path]:
    """A worker of the app that serves this queue; gives its log."""
    log = folder / "worker.log"
    command = [sys.executable, "-m", "celery", "-A", "queue_tasks", "worker", "--loglevel", "WARNING"]
    quick = ["--without-gossip", "--without-mingle", "--without-heartbeat", *options]
    support = str(Path(queue_tasks.__file__).parent)
    given = {
        "QUEUE": url,
        "PYTHONPATH": support,
        # The backend and the host that are tested.
        **{name: value for name, value in os.environ.items() if name.startswith("CONTEXTVARS_CY_")},
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, *quick], cwd=folder, env=environment(given), stdout=file, stderr=file, start_new_session=True
        )
    with ended(process), sent_to(url):
        first = see.delay()
        while not first.ready():
            with suppress(celery.exceptions.TimeoutError):
                first.get(timeout=0.5)
            assert process.poll() is None, log.read_text()
        yield log


@contextmanager
def sent_to(url: str) -> Iterator[None]:
    """The tasks of this process go to that queue."""
    app = queue_tasks.app
    app.conf.update(broker_url=url, result_backend=url)
    try:
        yield
    finally:
        app.close()
        app.backend.client.close()


@pytest.fixture(scope="module")
def log(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with worker(url, tmp_path_factory.mktemp("worker"), "--concurrency", "2") as log:
        yield log


@pytest.fixture
def stranger(url: str) -> Iterator[Celery]:
    """A program that shares the queue, and knows nothing of values."""
    app = queue_tasks.make_app(url)
    yield app
    app.close()
    app.backend.client.close()


def noted(key: str) -> str:
    answer = queue_tasks.app.backend.client.blpop(key, timeout=LIMIT)
    assert answer is not None
    return str(answer[1].decode())


# ---- one task ----


@pytest.mark.usefixtures("log")
def test_two_thousand_tasks_see_their_own_values_and_no_others() -> None:
    sent, expected = [], []
    for count in range(2000):
        if count % 4 == 0:
            sent.append(see.delay())
            expected.append(NOTHING)
        else:
            with assign({tenant: f"tenant {count}", number: count, secret: "stays"}):
                sent.append(see.delay())
            expected.append([f"tenant {count}", count, "-"])
    assert ResultSet(sent).join_native(timeout=LIMIT) == expected


@pytest.mark.usefixtures("log")
def test_a_task_of_a_killed_child_is_delivered_again_with_its_values() -> None:
    with assign({tenant: "acme", number: 7}):
        result = queue_tasks.killed_once.delay("kills")
    *found, _ = result.get(timeout=LIMIT)
    assert found == ["acme", 7, "-"]
    assert int(queue_tasks.app.backend.client.get("kills")) == 2
    assert see.delay().get(timeout=LIMIT) == NOTHING


@pytest.mark.usefixtures("log")
def test_a_retry_has_the_values_of_the_first_try() -> None:
    with tenant.set("acme"):
        result = queue_tasks.retried.delay([])
    assert result.get(timeout=LIMIT) == ["acme"] * 3
    assert queue_tasks.retried.delay([]).get(timeout=LIMIT) == ["-"] * 3


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("ending", ["fail", "too_slow", "much_too_slow"])
def test_a_task_that_fails_leaves_nothing(ending: str) -> None:
    with tenant.set("acme"):
        result = getattr(queue_tasks, ending).apply_async(link_error=note.si(f"after {ending}"))
    # The worker's main process sends this one if the task's own had to be killed.
    assert noted(f"after {ending}") == "acme"
    with pytest.raises(Exception, match="it fails|TimeLimitExceeded"):
        result.get(timeout=LIMIT)
    assert ResultSet([see.delay() for _ in range(20)]).join_native(timeout=LIMIT) == [NOTHING] * 20


@pytest.mark.usefixtures("log")
def test_what_a_task_sends_has_the_values_that_it_has_set() -> None:
    with assign({tenant: "acme", number: 7}):
        result = queue_tasks.send.delay()
    inner = queue_tasks.app.AsyncResult(result.get(timeout=LIMIT))
    assert inner.get(timeout=LIMIT) == ["set by send", 7, "-"]
    with tenant.set("acme"):
        assert queue_tasks.replace.delay().get(timeout=LIMIT) == ["set by replace", 0, "-"]


def test_a_task_whose_end_was_cut_off_leaves_nothing_either() -> None:
    """By a time limit, an exception that comes between any two instructions."""
    app = queue_tasks.make_app("memory://cut-off")
    connect(app)

    @app.task
    def task() -> None: ...

    for _ in range(2):
        task.push_request(id="1", is_eager=False)
        signals.task_prerun.send(sender=task)
        assert tenant.get() == "-"
        tenant.set("left behind")
        task.pop_request()


# ---- canvases ----


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("value", ["acme", None])
def test_all_steps_of_a_canvas_have_the_values_of_who_sent_it(value: str | None) -> None:
    members = [step.s(mark=f"member {count}") for count in range(10)]
    steps = chain(step.s(["first"]), step.s(), chord(members, queue_tasks.total.s()))
    with assign({} if value is None else {tenant: value}):
        result = steps.apply_async()
    expected = value or "-"
    assert result.get(timeout=LIMIT) == [expected, [["first", *[expected] * 3]] * 10]


@pytest.mark.usefixtures("log")
def test_the_body_of_a_chord_has_the_values_of_who_sent_it() -> None:
    members = group(step.s(["member"], mark=f"member {count}") for count in range(50))
    for value in ("acme", "umbrella"):
        # The same signature again: sending it has not changed it.
        with tenant.set(value):
            result = (members | queue_tasks.total.s() | step.s()).apply_async()
        assert result.get(timeout=LIMIT) == [value, [["member", value]] * 50, value]


@pytest.mark.usefixtures("log")
def test_callbacks_have_the_values_of_who_sent_the_task() -> None:
    with tenant.set("acme"):
        see.apply_async(link=[note.si("first"), note.si("second") | note.si("third")])
        (step.s([]) | queue_tasks.fail.s().on_error(note.si("error"))).apply_async()
        chord([see.s(), queue_tasks.fail.s()], see.s().on_error(note.si("error of a chord"))).apply_async()
    for key in ("first", "second", "third", "error", "error of a chord"):
        assert noted(key) == "acme"


@pytest.mark.usefixtures("log")
def test_headers_of_a_signature_stay() -> None:
    own = queue_tasks.own_header
    members = [own.s().set(headers={"x-own": count}) for count in range(3)]
    with tenant.set("acme"):
        parallel = group(members).apply_async()
        later = (see.s() | group(members)).apply_async()
        whole = (see.s() | group(own.s(), own.s()).set(headers={"x-own": "all"})).apply_async()
        sent = own.apply_async(headers={"x-own": 0, "baggage": "theirs=1", "headers": {"x-own": 1}})
    for result in (parallel, later):
        assert result.get(timeout=LIMIT) == [[0, "acme"], [1, "acme"], [2, "acme"]]
    assert whole.get(timeout=LIMIT) == [["all", "acme"]] * 2
    # Sentry and others send a second mapping of headers, which is what Celery then shows.
    assert sent.get(timeout=LIMIT) == [1, "acme"]


# ---- who may send what ----


def test_messages_of_strangers(log: Path, stranger: Celery) -> None:
    def ask(**options: Any) -> Any:
        return stranger.send_task("queue_tasks.see", **options).get(timeout=LIMIT)

    with tenant.set("not sent"):
        assert ask() == NOTHING
        steps = chain(stranger.signature("queue_tasks.step", ([],)), stranger.signature("queue_tasks.step"))
        assert steps.apply_async().get(timeout=LIMIT) == ["-", "-"]
    assert ask(headers={"baggage": "number=7,tenant=acme%20,secret=stolen,theirs=1"}) == ["acme ", 7, "-"]
    assert ask(headers={"baggage": "number=many,tenant=%ZZ"}) == NOTHING
    assert ask(headers={"baggage": "number=many,tenant=acme"}) == ["acme", 0, "-"]
    assert ask(headers={"baggage": ["number=7", "tenant=acme"]}) == ["acme", 7, "-"]
    assert ask(headers={"baggage": 7}) == NOTHING
    assert ask(headers={"baggage": "tenant=" + 9000 * "x"}) == NOTHING
    text = log.read_text()
    for said in (
        "values of a baggage header are left out: tenant: its encoding is broken; number: it is no value of its codec",
        "baggage is no text, but a int",
        "baggage has more than 8192 bytes, and is not read",
    ):
        assert said in text


def sent_by(app: Celery, signature: Any) -> tuple[dict[str, Any], Any]:
    """The headers and the body of the message."""
    signature.apply_async()
    with app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
        message = queue.get(timeout=LIMIT)
        message.ack()
        return message.headers, message.payload


def test_nothing_leaves_but_what_the_audience_may_see() -> None:
    app = queue_tasks.make_app("memory://public")
    connect(app, audience="public")
    with assign({tenant: "acme", number: 7, secret: "stays"}):
        headers, (_, _, embedded) = sent_by(app, app.signature("first") | app.signature("second"))
    assert headers["baggage"] == embedded["chain"][0]["options"]["headers"]["baggage"] == "number=7"


def test_only_the_app_that_was_connected_sends_and_runs_with_values() -> None:
    connected, other = (queue_tasks.make_app("memory://two") for _ in range(2))
    connect(connected)
    with tenant.set("acme"):
        assert sent_by(connected, connected.signature("task"))[0]["baggage"] == "tenant=acme"
        assert "baggage" not in sent_by(other, other.signature("task"))[0]

    @other.task
    def leak() -> None:
        tenant.set("left by leak")

    leak.apply()
    assert tenant.get() == "left by leak"


def test_a_value_that_cannot_travel_stays_and_the_task_is_sent() -> None:
    app = queue_tasks.make_app("memory://unsendable")
    connect(app)
    unsendable: dict[ContextVar[Any], Any] = {tenant: "acme", number: "seven"}
    with assign(unsendable), pytest.warns(travel.TravelWarning, match="number: its value is a str"):
        assert sent_by(app, app.signature("task"))[0]["baggage"] == "tenant=acme"


def test_connecting_again() -> None:
    app = queue_tasks.make_app("memory://again")
    connect(app)
    send_task = app.send_task
    connect(app)
    assert app.send_task == send_task
    with pytest.raises(ValueError, match="is connected already, for the audience 'trusted'"):
        connect(app, audience="public")


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="takes a Celery app, not 'shop'"):
        connect("shop")
    app = queue_tasks.make_app("memory://wrong")
    with pytest.raises(ValueError, match="choose one of process, trusted, public"):
        connect(app, audience="everybody")  # type: ignore[arg-type]
    connect(app)


def test_the_current_app_can_be_connected() -> None:
    app = queue_tasks.make_app("memory://current")
    app.set_current()
    connect(current_app)
    with tenant.set("acme"):
        assert sent_by(app, app.signature("task"))[0]["baggage"] == "tenant=acme"


# ---- eager ----


@pytest.fixture
def eager() -> Iterator[None]:
    conf = queue_tasks.app.conf
    conf.task_always_eager = True
    yield
    conf.task_always_eager = False


@pytest.mark.usefixtures("eager")
def test_eager_tasks_see_the_callers_values_and_leave_them_alone() -> None:
    everything: dict[ContextVar[Any], Any] = {tenant: "acme", number: 7, secret: "is here"}
    with assign(everything):
        assert see.delay().get() == ["acme", 7, "is here"]
        assert queue_tasks.retried.delay([]).get() == ["acme"] * 3
        assert queue_tasks.fail.delay().failed()
        assert (step.s([]) | step.s()).apply_async().get() == ["acme"] * 2
        assert chord([step.s([]), step.s([])], queue_tasks.total.s()).apply_async().get() == ["acme", [["acme"]] * 2]
        assert {var: var.get() for var in everything} == everything
    assert [tenant.get(), number.get(), secret.get()] == NOTHING
    assert see.delay().get() == NOTHING
    assert not tenant.is_set()


@pytest.mark.usefixtures("eager")
def test_an_eager_callback_has_the_values_of_who_sent_the_task() -> None:
    found: list[Any] = []

    @queue_tasks.app.task
    def callback(_: Any) -> None:
        found.append(tenant.get())

    with tenant.set("acme"):
        see.apply_async(link=callback.s())
    assert found == ["acme"]


# ---- other pools ----


@pytest.mark.parametrize("pool", ["solo", "threads", "gevent"])
def test_other_pools_mix_nothing_up_either(pool: str, url: str, tmp_path: Path) -> None:
    queue = f"{url[:-1]}{['solo', 'threads', 'gevent'].index(pool) + 1}"
    with worker(queue, tmp_path, "--pool", pool, "--concurrency", "4"):
        sent, expected = [], []
        for count in range(100):
            with assign({tenant: f"tenant {count}"} if count % 2 else {}):
                sent.append(queue_tasks.see_twice.delay())
                queue_tasks.fail.delay()
            expected.append([[f"tenant {count}", 0, "-"] if count % 2 else NOTHING] * 2)
        with tenant.set("acme"):
            steps = (step.s([]) | step.s()).apply_async()
        assert ResultSet(sent).join_native(timeout=LIMIT) == expected
        assert steps.get(timeout=LIMIT) == ["acme", "acme"]
