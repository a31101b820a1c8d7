"""Show what the standard library's context variables lose on real requests, and that ours lose nothing.

The demo starts a service three times, one after the other: written with the standard library alone
(tools/demo_stdlib.py), and with contextvars_cy (examples/request_scope.py) on the pure and on the compiled backend. It
sends the same requests to each over loopback, and checks every response and every line of the log. The exit status is 1
if anything is wrong with ours. With `--recorded` each service of ours runs a second time, while `trace` records it.

    python tools/demo.py --requests 1000 --concurrency 100
    python tools/demo.py --recorded --only pure,cython
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
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

TOOLS = Path(__file__).resolve().parent
WAYS = {
    "stdlib": TOOLS / "demo_stdlib.py",
    "pure": TOOLS.parent / "examples" / "request_scope.py",
    "cython": TOOLS.parent / "examples" / "request_scope.py",
}
# Repeated from the example on purpose: a step that the example forgot would otherwise not be missed.
STEPS = {
    "task": "a task",
    "gather_first": "gather, its first task",
    "gather_second": "gather, its second task",
    "call_soon": "a callback",
    "call_later": "a later callback",
    "to_thread": "asyncio.to_thread",
    "pool": "a pool of threads",
    "generator": "an async generator that is closed early",
    "dependency": "a `def` dependency that sets a value in a thread",
    "cleanup": "a cleanup in another task",
}
RESPONSES, ERRORS = "responses", "errors in the log"
RECORDED = "-recorded"
STOP_SECONDS = 30.0
TENANTS, USERS = 7, 13
PROBLEMS_SHOWN = 5


class DemoError(Exception):
    """The service could not be started, did not answer or did not stop."""


class Identity(NamedTuple):
    tenant: str
    user: str


class Problem(NamedTuple):
    row: str
    text: str


def check_response(status: object, body: dict[str, Any], request_id: str, identity: Identity) -> list[Problem]:
    wanted = {"request_id": request_id, "tenant": identity.tenant, "seen": dict.fromkeys(STEPS, request_id)}
    if str(status) == "200" and all(body.get(name) == value for name, value in wanted.items()):
        return []
    return [Problem(RESPONSES, f"response to {request_id}: {status} {body}")]


def check_records(records: list[dict[str, Any]], sent: dict[str, Identity]) -> list[Problem]:
    """What is wrong: a step of a request without its one record, or with values that are not the request's."""
    problems = []
    missing = {(request_id, step) for request_id in sent for step in STEPS}
    for record in records:
        # The request is known by its plain argument. What the context variables held is what is being checked.
        request_id: Any = record.get("expected")
        step: Any = record.get("step")
        if step is None:
            problems.append(Problem(ERRORS, f"error: {record['message']}"))
            continue
        if (request_id, step) not in missing:
            problems.append(Problem(step, f"unexpected or repeated record: {record}"))
            continue
        missing.remove((request_id, step))
        wanted = {"request_id": request_id, "tenant": sent[request_id].tenant}
        if step == "generator":
            wanted["span"] = "-"
        elif step == "dependency":
            wanted["user"] = sent[request_id].user
        if any(record.get(name) != value for name, value in wanted.items()):
            problems.append(Problem(step, f"not this request's values: {record}"))
    problems += [Problem(step, f"no record of step {step} of request {request_id}") for request_id, step in missing]
    return sorted(problems)


def send_requests(port: int, requests: Sequence[tuple[str, Identity]]) -> list[Problem]:
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
            if response.status != 200:
                client.close()
            elif response.getheader("Connection") != connection:
                got = response.getheader("Connection")
                problems.append(Problem(RESPONSES, f"{request_id}: asked for connection {connection}, got {got}"))
    return problems


@contextlib.contextmanager
def running_service(way: str, folder: Path, seconds: float) -> Iterator[int]:
    """Run the service and yield its port. It is stopped again whatever happens, and killed after so many seconds."""
    backend = way.replace(RECORDED, "")
    environment = {
        **os.environ,
        "CONTEXTVARS_CY_BACKEND": "" if way == "stdlib" else backend,
        "CONTEXTVARS_CY_HOST": "native",
    }
    trace = ["-m", "contextvars_cy", "trace", "--format", "json", "-o", str(folder / "trace.json")]
    command = [sys.executable, *(trace if way.endswith(RECORDED) else []), str(WAYS[backend])]
    command += ["--log", str(folder / "log")]
    errors = folder / "errors"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environment, text=True)
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


def run_way(way: str, requests: int, concurrency: int) -> tuple[list[Problem], float]:
    """Serve and check all requests in one of the ways; also return how many were served in a second."""
    sent = {f"{way}-{n}": Identity(f"tenant-{n % TENANTS}", f"user-{n % USERS}") for n in range(requests)}
    shares = [list(sent.items())[number::concurrency] for number in range(concurrency)]
    # When it is interrupted, the clients end because the service does.
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(concurrency) as clients:
        folder = Path(name)
        # Even a slow machine serves far more than ten requests per second, so this only ends a demo that hangs.
        with running_service(way, folder, 60 + requests / 10) as port:
            print(f"{way}: sending {requests} requests to port {port}, {concurrency} at a time", flush=True)
            began = time.perf_counter()
            found = list(clients.map(send_requests, [port] * concurrency, shares))
            speed = requests / (time.perf_counter() - began)
        records = [json.loads(line) for line in (folder / "log").read_text(encoding="utf-8").splitlines()]
    # With its debug mode on, asyncio logs remarks of its own that belong to no step. Errors are never set aside.
    records = [record for record in records if record["step"] or record["levelname"] in ("ERROR", "CRITICAL")]
    return [problem for problems in found for problem in problems] + check_records(records, sent), speed


def format_table(found: dict[str, list[Problem]], speeds: dict[str, float], requests: int) -> str:
    widths = {way: max(8, len(way) + 2) for way in found}
    counts = {way: Counter(problem.row for problem in problems) for way, problems in found.items()}
    lines = [f"{f'wrong, of {requests} requests':52}" + "".join(f"{way:>{widths[way]}}" for way in found)]
    for row, text in {**STEPS, RESPONSES: RESPONSES, ERRORS: ERRORS}.items():
        lines.append(f"{text:52}" + "".join(f"{counts[way][row]:{widths[way]}}" for way in found))
    lines += ["", f"{'requests a second':52}" + "".join(f"{speeds[way]:{widths[way]}.0f}" for way in found)]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Send concurrent requests to a service and check its responses and its log."
    )
    parser.add_argument("--requests", type=int, default=1000, help="number of requests, 1 to 100000 (default: 1000)")
    parser.add_argument("--concurrency", type=int, default=100, help="requests at a time, 1 to 500 (default: 100)")
    parser.add_argument("--only", help=f"comma separated ways to run (default: all of {','.join(WAYS)} that work here)")
    parser.add_argument("--recorded", action="store_true", help="run each of ours again, while trace records it")
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

    if arguments.recorded:
        ways += [f"{way}{RECORDED}" for way in ways if way != "stdlib"]
    # The service is stopped first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found, speeds = {}, {}
    for way in ways:
        try:
            found[way], speeds[way] = run_way(way, arguments.requests, arguments.concurrency)
        except DemoError as error:
            parser.exit(1, f"{parser.prog}: error: {way}: {error}\n")
        except KeyboardInterrupt:
            parser.exit(130, f"{parser.prog}: interrupted\n")
    print(f"\n{format_table(found, speeds, arguments.requests)}")
    ours = [(way, problem.text) for way, problems in found.items() if way != "stdlib" for problem in problems]
    for way, text in ours[:PROBLEMS_SHOWN]:
        print(f"{way}: {text}")
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main())
