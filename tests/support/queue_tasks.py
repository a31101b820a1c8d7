"""A Celery app whose tasks tell what they see, and then set other values that they never reset."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery import Celery

from contextvars_cy import ContextVar, travel
from contextvars_cy.integrations.celery import connect

tenant: ContextVar[str] = ContextVar("tenant", default="-")
number: ContextVar[int] = ContextVar("number", default=0)
# For this process alone.
secret: ContextVar[str] = ContextVar("secret", default="-")


def register() -> None:
    travel.register(tenant, "tenant", audience="trusted")
    travel.register(number, "number", codec=int, audience="public")
    travel.register(secret, "secret")


register()


def make_app(url: str) -> Celery:
    # The broker in memory has no results.
    backend = url if url.startswith("redis") else "cache+memory://"
    app = Celery("queue_tasks", broker=url, backend=backend, set_as_current=False)
    app.conf.broker_connection_retry_on_startup = True
    return app


app = make_app(os.environ.get("QUEUE", "memory://"))
connect(app)


def seen() -> list[Any]:
    return [tenant.get(), number.get(), secret.get()]


def leave(mark: str) -> None:
    tenant.set(mark)
    number.set(-1)
    secret.set(mark)


@app.task
def see(*_: Any) -> list[Any]:
    found = seen()
    leave("left by see")
    return found


@app.task
def see_twice() -> list[list[Any]]:
    """Others run meanwhile, if the pool lets them."""
    first = seen()
    time.sleep(0.01)
    second = seen()
    leave("left by see_twice")
    return [first, second]


@app.task
def step(earlier: list[str], mark: str = "left by step") -> list[str]:
    found = [*earlier, tenant.get()]
    leave(mark)
    return found


@app.task
def fail(*_: Any) -> None:
    leave("left by fail")
    raise ValueError("it fails")


@app.task
def note(key: str) -> None:
    """For callbacks, whose results nobody has."""
    app.backend.client.rpush(key, tenant.get())


@app.task(bind=True)
def retried(self: Any, earlier: list[str]) -> list[str]:
    found = [*earlier, tenant.get()]
    leave("left by retried")
    if len(found) < 3:
        raise self.retry(args=[found], countdown=0)
    return found


@app.task
def send() -> str:
    tenant.set("set by send")
    return str(see.delay().id)


@app.task(bind=True)
def replace(self: Any) -> None:
    tenant.set("set by replace")
    raise self.replace(see.s())


@app.task(bind=True)
def own_header(self: Any, *_: Any) -> list[Any]:
    return [self.request.headers.get("x-own"), tenant.get()]


@app.task(acks_late=True, reject_on_worker_lost=True)
def killed_once(key: str) -> list[Any]:
    found = [*seen(), os.getpid()]
    leave("left by killed_once")
    if app.backend.client.incr(key) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return found


@app.task(soft_time_limit=1)
def too_slow() -> None:
    leave("left by too_slow")
    time.sleep(60)


@app.task(time_limit=1)
def much_too_slow() -> None:
    leave("left by much_too_slow")
    time.sleep(60)


@app.task
def total(results: list[Any]) -> list[Any]:
    return [tenant.get(), results]
