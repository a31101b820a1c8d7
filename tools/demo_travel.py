"""Follow requests through two services, a queue and a cluster, and check that each log line has its own values.

It starts redis-server, a worker of Celery, a cluster of Dask, and two services under uvicorn, all on loopback, and
sends orders to the first service, some of them with no request id. The last table has a row for each hop: how many
values arrived, were mixed up with another request's, or leaked into a request that has none. The exit status is 1 if
anything is wrong.

    python tools/demo_travel.py --orders 200 --concurrency 8
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parent
HOPS = ["shop", "stock", "queue", "cluster", "stock, afterwards", "shop, afterwards", "response"]
# Every so many orders, one comes with no request id.
ANONYMOUS = 5
TENANTS = 7
START_SECONDS, STOP_SECONDS = 60.0, 30.0
SHOWN = 2


class DemoError(Exception):
    """A part could not be started or did not answer."""


def wanted(order: int) -> dict[str, str]:
    request_id = "-" if order % ANONYMOUS == 0 else f"request-{order}"
    return {"request_id": request_id, "tenant": f"tenant {order % TENANTS}"}


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        "redis-server",
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--loglevel",
        "warning",
        "--dir",
        str(folder),
    ]
    with running(command, dict(os.environ)):
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if time.monotonic() > end:
                raise DemoError("redis-server does not answer")
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def cluster(environment: dict[str, str]) -> Iterator[str]:
    import distributed

    # Its processes have the environment of this one.
    os.environ.update(environment)
    kind: Any = distributed.LocalCluster
    with kind(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None, silence_logs=50) as started:
        yield started.scheduler_address


@contextlib.contextmanager
def worker(environment: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "demo_travel_parts", "worker", "--concurrency", "2"]
    # It warns if it is run as root.
    environment = {**environment, "PYTHONWARNINGS": "ignore"}
    with running([*command, "--loglevel", "error", "--without-mingle", "--without-gossip"], environment, cwd=TOOLS):
        yield


@contextlib.contextmanager
def service(name: str, environment: dict[str, str]) -> Iterator[int]:
    # Not as the main module: the cluster finds its functions by the module's name.
    command = [sys.executable, "-c", f"import demo_travel_parts; demo_travel_parts.main({name!r})"]
    with running(command, environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip().isdigit():
            raise DemoError(f"the service {name} did not start")
        yield int(line)


def send(port: int, order: int) -> dict[str, Any]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as client:
        request_id = wanted(order)["request_id"]
        # That a client says which tenant it is of is not believed.
        headers = {"baggage": "tenant=a%20stranger" + ("" if request_id == "-" else f",request-id={request_id}")}
        client.request("GET", f"/{order}", headers=headers)
        response = client.getresponse()
        body = response.read()
        if response.status != 200:
            raise DemoError(f"order {order}: {response.status} {body.decode(errors='replace')}")
        found = json.loads(body)
        return {"hop": "response", **found}


def table(lines: list[dict[str, Any]], orders: int) -> tuple[list[str], int]:
    """The last table, and how much is wrong."""
    arrived, mixed_up, leaked = Counter[str](), Counter[str](), Counter[str]()
    for line in lines:
        for name, value in wanted(line["order"]).items():
            if line[name] == value:
                arrived[line["hop"]] += value != "-"
            elif value == "-":
                leaked[line["hop"]] += 1
            elif line[name] != "-":
                mixed_up[line["hop"]] += 1
    sent = sum(value != "-" for order in range(orders) for value in wanted(order).values())
    rows = [f"{'hop':<22}{'values sent':>14}{'arrived':>10}{'mixed up':>10}{'leaked':>10}"]
    rows += [f"{hop:<22}{sent:>14}{arrived[hop]:>10}{mixed_up[hop]:>10}{leaked[hop]:>10}" for hop in HOPS]
    # One that is mixed up has not arrived.
    lost = sum(sent - arrived[hop] for hop in HOPS)
    return rows, lost + sum(leaked.values())


def main() -> int:
    parser = argparse.ArgumentParser(description="Follow values through services, a queue and a cluster.")
    parser.add_argument("--orders", type=int, default=200, help="how many to send (200)")
    parser.add_argument("--concurrency", type=int, default=8, help="how many at once (8)")
    arguments = parser.parse_args()
    if arguments.orders < 1 or arguments.concurrency < 1:
        parser.error("--orders and --concurrency are at least 1")
    if shutil.which("redis-server") is None:
        parser.exit(1, f"{parser.prog}: redis-server is not found: run tools/redis.sh\n")
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            path = os.pathsep.join(filter(None, [str(TOOLS), os.environ.get("PYTHONPATH", "")]))
            environment = {**os.environ, "DEMO_LOG": str(folder), "PYTHONPATH": path}
            environment["DEMO_BROKER"] = stack.enter_context(broker(folder))
            environment["DEMO_SCHEDULER"] = stack.enter_context(cluster(environment))
            stack.enter_context(worker(environment))
            environment["DEMO_STOCK"] = f"http://127.0.0.1:{stack.enter_context(service('stock', environment))}"
            port = stack.enter_context(service("shop", environment))
            with ThreadPoolExecutor(arguments.concurrency) as clients:
                lines = list(clients.map(lambda order: send(port, order), range(arguments.orders)))
            for file in folder.glob("*.log"):
                lines += map(json.loads, file.read_text(encoding="utf-8").splitlines())
    except (DemoError, OSError, http.client.HTTPException) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    for order in range(1, min(arguments.orders, SHOWN + 1)):
        print(f"The log of order {order}, from all processes:")
        for line in sorted(
            (line for line in lines if line["order"] == order), key=lambda line: HOPS.index(line["hop"])
        ):
            print(f"  {line['request_id']:<12} {line['tenant']:<10} {line['hop']}")
    rows, wrong = table(lines, arguments.orders)
    print("", *rows, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
