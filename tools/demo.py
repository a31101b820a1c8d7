"""Show that context variables keep concurrent requests apart, and how fast, with each implementation.

The demo starts examples/request_scope.py three times, one after the other: as it is (stdlib), and with its
contextvars module swapped for the pure Python and for the Cython one. It sends the same requests to each over
loopback and checks every response and every line of the log. The exit status is 1 if anything is wrong.

    python tools/demo.py --requests 1000 --concurrency 100
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
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
START_SECONDS = STOP_SECONDS = 30.0
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


def check_response(status: str, body: dict[str, Any], request_id: str, identity: Identity) -> list[str]:
    """Return a description of what is wrong with one response, in a list that is empty if it is right."""
    wanted = {"request_id": request_id, **identity._asdict(), "seen": dict.fromkeys(STEPS, request_id)}
    if status == "200" and all(body.get(name) == value for name, value in wanted.items()):
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


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request_id: str, identity: Identity, connection: str
) -> list[str]:
    """Send one request, read its response and return what is wrong with it."""
    headers = f"X-Request-Id: {request_id}\r\nX-Tenant: {identity.tenant}\r\nX-User: {identity.user}\r\n"
    writer.write(f"GET /demo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: {connection}\r\n{headers}\r\n".encode())
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    fields = dict(line.lower().split(": ", 1) for line in lines if line)
    body = json.loads(await reader.readexactly(int(fields["content-length"])))
    problems = check_response(status_line.split(" ")[1], body, request_id, identity)
    if fields.get("connection") != connection:
        problems.append(f"response to {request_id}: asked for connection {connection}, got {fields.get('connection')}")
    return problems


async def send_requests(port: int, queue: Iterator[tuple[str, Identity]]) -> list[str]:
    """Be one of the concurrent clients: take requests from the shared queue until it is empty."""
    problems: list[str] = []
    writer: asyncio.StreamWriter | None = None
    try:
        for count, (request_id, identity) in enumerate(queue, start=1):
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            # Most requests share a connection, but the service has to close one properly as well.
            connection = "close" if count % 10 == 0 else "keep-alive"
            problems += await exchange(reader, writer, request_id, identity, connection)
            if connection == "close":
                writer.close()
                writer = None
    finally:
        if writer is not None:
            writer.close()
    return problems


async def send_all(port: int, queue: Iterator[tuple[str, Identity]], concurrency: int) -> list[str]:
    problems = await asyncio.gather(*(send_requests(port, queue) for _ in range(concurrency)))
    return list(itertools.chain.from_iterable(problems))


@contextlib.asynccontextmanager
async def running_service(command: list[str], folder: Path) -> AsyncIterator[int]:
    """Run the service and yield its port. The service is stopped again whatever happens."""
    # Without these two, the flags on the command line alone decide which implementation runs.
    removed = ("CONTEXTVARS_CY_BACKEND", "CONTEXTVARS_CY_HOST")
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    errors = folder / "errors"
    with errors.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command, "--log", str(folder / "log"), stdout=asyncio.subprocess.PIPE, stderr=stderr, env=environment
        )
    assert process.stdout is not None
    trouble = ""
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), START_SECONDS)).decode()
        if line.startswith("serving on http://127.0.0.1:"):
            yield int(line.rpartition(":")[2])
        else:
            trouble = f"The service did not start, its first line was {line!r}."
    except (asyncio.TimeoutError, OSError, EOFError, LookupError, ValueError) as error:
        trouble = f"The service did not answer as it should: {error!r}."
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except asyncio.TimeoutError:
            trouble = trouble or "The service did not stop when it was told to."
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if trouble or process.returncode != 0:
        trouble = trouble or f"The service stopped with status {process.returncode}."
        raise DemoError(f"{trouble} Its error output:\n{errors.read_text(errors='replace').strip()}")


async def run_way(way: str, requests: int, concurrency: int) -> Result:
    """Serve and check all requests in one of the three ways."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        # Cancelling this task is what lets it stop the service before the demo ends.
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    sent = {f"{way}-{n}": Identity(f"tenant-{n % TENANTS}", f"user-{n % USERS}") for n in range(requests)}
    queue = iter(sent.items())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with running_service(WAYS[way], folder) as port:
            print(f"{way}: sending {requests} requests to port {port}, {concurrency} at a time", flush=True)
            begin = time.perf_counter()
            # Even a slow machine serves far more than ten requests per second, so this only ends a demo that hangs.
            answer_problems = await asyncio.wait_for(send_all(port, queue, concurrency), 60 + requests / 10)
            seconds = time.perf_counter() - begin
        records = [json.loads(line) for line in (folder / "log").read_text(encoding="utf-8").splitlines()]
    # With its debug mode on, asyncio logs remarks of its own that belong to no step. Errors are never set aside.
    records = [record for record in records if record["step"] or record["levelname"] in ("ERROR", "CRITICAL")]
    return Result(len(records), answer_problems + check_records(records, sent), requests / seconds)


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

    results = {}
    for way in ways:
        try:
            results[way] = asyncio.run(run_way(way, arguments.requests, arguments.concurrency))
        except DemoError as error:
            parser.exit(1, f"{parser.prog}: error: {way}: {error}\n")
        except (asyncio.CancelledError, KeyboardInterrupt):
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
