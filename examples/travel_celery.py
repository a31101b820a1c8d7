"""A shop whose workers log the customer and the order of each task, although no task is given them as arguments.

It starts a Redis of its own, which needs redis-server (Debian: `apt-get install redis-server`), and a worker with two
processes. Two orders are sent as canvases: one part fails at first and is tried again, another sets a value, and the
bill at the end still goes to the customer who ordered.

    pip install "contextvars-cy[celery]" redis
    python examples/travel_celery.py

It prints:

    ada: packed tea for ada, packed jam for ada (second try), billed to ada
    grace: packed ink for grace, packed pen for grace (second try), billed to grace
    nobody: packed air for nobody
"""

from __future__ import annotations

import gc
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from celery import Celery, chord

from contextvars_cy import ContextVar, travel
from contextvars_cy.integrations.celery import connect

customer: ContextVar[str] = ContextVar("customer", default="nobody")
travel.register(customer, "customer", audience="trusted")

# The worker imports this module too, and is told where the queue is.
queue = os.environ.get("QUEUE", "memory://")
# Celery has no types.
app: Any = Celery("travel_celery", broker=queue, backend=queue.replace("memory", "cache+memory"))
connect(app)


@app.task
def pack(ware: str) -> str:
    line = f"packed {ware} for {customer.get()}"
    # Never reset, and yet no other task sees it.
    customer.set("the packer")
    return line


@app.task(bind=True)
def pack_with_care(self: Any, ware: str) -> str:
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return f"{pack.run(ware)} (second try)"


@app.task
def bill(lines: list[str]) -> str:
    return ", ".join([*lines, f"billed to {customer.get()}"])


def main() -> None:
    orders = {"ada": ["tea", "jam"], "grace": ["ink", "pen"]}
    results = {}
    for name, (plain, fragile) in orders.items():
        with customer.set(name):
            results[name] = chord([pack.s(plain), pack_with_care.s(fragile)], bill.s()).apply_async()
    results["nobody"] = pack.delay("air")
    for name, result in results.items():
        print(f"{name}: {result.get(timeout=60)}")


@contextmanager
def running(*command: str, **environment: str) -> Iterator[None]:
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def broker_and_worker() -> Iterator[None]:
    if shutil.which("redis-server") is None:
        raise SystemExit("redis-server is not found: install it (Debian: apt-get install redis-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"redis://127.0.0.1:{port}/0"
    app.conf.update(broker_url=url, result_backend=url)
    server = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    worker = [sys.executable, "-m", "celery", "-A", "travel_celery", "worker", "--concurrency", "2"]
    with tempfile.TemporaryDirectory() as folder, running(*server, "--dir", folder):
        wait_for(port)
        with running(*worker, QUEUE=url, PYTHONPATH=os.path.dirname(os.path.abspath(__file__))):
            yield


def wait_for(port: int) -> None:
    with redis.Redis(port=port) as client:
        for _ in range(500):
            try:
                client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.02)
    raise SystemExit("redis-server does not answer")


if __name__ == "__main__":
    with broker_and_worker():
        main()
        # A result unsubscribes when it is collected, and waits for a Redis that is gone.
        gc.collect()
