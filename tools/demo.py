"""Show that context variables keep concurrent requests apart, and how fast, with each implementation.

The demo starts examples/request_scope.py three times, one after the other: as it is (stdlib), and with its
contextvars module swapped for the pure Python and for the Cython one. It sends the same requests to each over
loopback and checks every response and every line of the log. The exit status is 1 if anything is wrong.

    python tools/demo.py --requests 1000 --concurrency 100
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

EXAMPLE = str(Path(__file__).resolve().parent.parent / "examples" / "request_scope.py")
SWAPPED = ["-m", "contextvars_cy", "run", "--host", "native", "--backend"]
WAYS = {
    "stdlib": [sys.executable, EXAMPLE],
    "pure": [sys.executable, *SWAPPED, "pure", EXAMPLE],
    "cython": [sys.executable, *SWAPPED, "cython", EXAMPLE],
}
# The list is repeated from the example on purpose: a step that the example forgot would otherwise not be missed.
STEPS = "task gather_first gather_second call_soon call_later to_thread executor async_generator handler".split()
STOP_SECONDS = 30.0
TENANTS, USERS = 7, 13
PROBLEMS_SHOWN = 5


class DemoError(Exception):
    """The service could not be started, did not answer or did not stop."""


class Identity(NamedTuple):
    tenant: str
    user: str


class Result(NamedTuple):
    records: int
    problems: list[str]
    requests_per_second: float


def check_response(status: object, body: dict[str, Any], request_id: str, identity: Identity) -> list[str]:
    """Return a description of what is wrong with one response, in a list that is empty if it is right."""
    wanted = {"request_id": request_id, **identity._asdict(), "seen": dict.fromkeys(STEPS, request_id)}
    if str(status) == "200" and all(body.get(name) == value for name, value in wanted.items()):
        return []
    return [f"response to {request_id}: {status} {body}"]


def check_records(records: list[dict[str, Any]], sent: dict[str, Identity]) -> list[str]:
    """Return one description for each log record that is mixed up and for each that is missing."""
    problems = []
    missing = {(request_id, step) for request_id in sent for step in STEPS}
    for record in records:
        # The request is known by its plain argument. What the context variables held is what is being checked.
        expected: Any = record.get("expected")
        step: Any = record.get("step")
        found = (record.get("request_id"), record.get("tenant"), record.get("user"))
        if (expected, step) not in missing:
            problems.append(f"unexpected or repeated record: {record}")
            continue
        missing.remove((expected, step))
        if found != (expected, *sent[expected]):
            problems.append(f"mixed-up record: {record}")
    problems.extend(f"missing record: step {step} of request {request_id}" for request_id, step in sorted(missing))
    return problems


def send_requests(port: int, requests: Sequence[tuple[str, Identity]]) -> list[str]:
    """Be one of the concurrent clients, and return what is wrong with the responses."""
    problems = []
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as client:
        for count, (request_id, identity) in enumerate(requests, start=1):
            # Most requests share a connection, but the service has to close one properly as well.
            connection = "close" if count % 10 == 0 else "keep-alive"
            headers = {"X-Request-Id": request_id, "X-Tenant": identity.tenant, "X-User": identity.user}
            client.request("GET", "/demo", headers={"Connection": connection, **headers})
            response = client.getresponse()
            problems += check_response(response.status, json.loads(response.read()), request_id, identity)
            if response.getheader("Connection") != connection:
                got = response.getheader("Connection")
                problems.append(f"response to {request_id}: asked for connection {connection}, got {got}")
    return problems


@contextlib.contextmanager
def running_service(command: list[str], folder: Path, seconds: float) -> Iterator[int]:
    """Run the service and yield its port. It is stopped again whatever happens, and killed after so many seconds."""
    # Without these two, the flags on the command line alone decide which implementation runs.
    removed = ("CONTEXTVARS_CY_BACKEND", "CONTEXTVARS_CY_HOST")
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    errors = folder / "errors"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, "--log", str(folder / "log")], stdout=subprocess.PIPE, stderr=stderr, env=environment, text=True
        )
    assert process.stdout is not None
    trouble = ""
    limit = threading.Timer(seconds, process.kill)
    limit.start()
    try:
        line = process.stdout.readline()
        if line.startswith("serving on http://127.0.0.1:"):
            yield int(line.rpartition(":")[2])
        else:
            trouble = f"The service did not start, its first line was {line!r}."
    except (OSError, http.client.HTTPException, ValueError) as error:
        trouble = f"The service did not answer as it should: {error!r}."
    finally:
        limit.cancel()
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    if trouble or process.returncode != 0:
        trouble = trouble or f"The service stopped with status {process.returncode}."
        raise DemoError(f"{trouble} Its error output:\n{errors.read_text(errors='replace').strip()}")


def run_way(way: str, requests: int, concurrency: int) -> Result:
    """Serve and check all requests in one of the three ways."""
    sent = {f"{way}-{n}": Identity(f"tenant-{n % TENANTS}", f"user-{n % USERS}") for n in range(requests)}
    shares = [list(sent.items())[number::concurrency] for number in range(concurrency)]
    # When it is interrupted, the clients end because the service does.
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(concurrency) as clients:
        folder = Path(name)
        # Even a slow machine serves far more than ten requests per second, so this only ends a demo that hangs.
        with running_service(WAYS[way], folder, 60 + requests / 10) as port:
            print(f"{way}: sending {requests} requests to port {port}, {concurrency} at a time", flush=True)
            begin = time.perf_counter()
            found = list(clients.map(send_requests, [port] * concurrency, shares))
            seconds = time.perf_counter() - begin
        records = [json.loads(line) for line in (folder / "log").read_text(encoding="utf-8").splitlines()]
    # With its debug mode on, asyncio logs remarks of its own that belong to no step. Errors are never set aside.
    records = [record for record in records if record["step"] or record["levelname"] in ("ERROR", "CRITICAL")]
    problems = [problem for problems in found for problem in problems] + check_records(records, sent)
    return Result(len(records), problems, requests / seconds)


def format_table(results: dict[str, Result], requests: int) -> str:
    row = "{:<7}  {:>8}  {:>8}  {:>16}  {:>19}".format
    lines = [row("backend", "requests", "records", "mixed-up records", "requests per second")]
    for way, result in results.items():
        lines.append(row(way, requests, result.records, len(result.problems), round(result.requests_per_second)))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Send concurrent requests to the example service and check its log.")
    parser.add_argument("--requests", type=int, default=1000, help="number of requests, 1 to 100000 (default: 1000)")
    parser.add_argument("--concurrency", type=int, default=100, help="requests at a time, 1 to 500 (default: 100)")
    parser.add_argument("--only", help=f"comma separated ways to run (default: all of {','.join(WAYS)} that work here)")
    arguments = parser.parse_args()
    ways = arguments.only.split(",") if arguments.only else list(WAYS)
    if not arguments.only and importlib.util.find_spec("contextvars_cy._context.context_cy") is None:
        ways.remove("cython")
        print("cython: left out, no compiled extension is installed (python -m contextvars_cy info)", flush=True)
    for way in ways:
        if way not in WAYS:
            parser.exit(2, f"{parser.prog}: error: --only: {way!r} is not one of {', '.join(WAYS)}\n")
    if not 1 <= arguments.requests <= 100000 or not 1 <= arguments.concurrency <= 500:
        parser.exit(2, f"{parser.prog}: error: --requests must be 1 to 100000 and --concurrency 1 to 500\n")

    # The service is stopped first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = {}
    for way in ways:
        try:
            results[way] = run_way(way, arguments.requests, arguments.concurrency)
        except DemoError as error:
            parser.exit(1, f"{parser.prog}: error: {way}: {error}\n")
        except KeyboardInterrupt:
            parser.exit(130, f"{parser.prog}: interrupted\n")
        for problem in results[way].problems[:PROBLEMS_SHOWN]:
            print(f"{way}: {problem}", flush=True)
    print(f"\n{format_table(results, arguments.requests)}")
    if any(result.problems for result in results.values()):
        print("\nMissing records and wrong responses are counted among the mixed-up records.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
