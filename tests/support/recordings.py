"""Recordings in the form that `Recording.to_json()` gives, written by hand or as large as one likes."""

from __future__ import annotations

from typing import Any

SOURCE = {
    11: "async def handle(request):",
    12: "    request_id.set(request.headers['x-request-id'])",
    13: "    tenant.set(await tenant_of(request))",
    14: "    task = asyncio.create_task(audit(request))",
    15: "    rows = await asyncio.to_thread(query, request.path)",
    16: "    request_id.reset(token)",
    30: "def query(path):",
    31: "    log.info('query %s for %s', path, tenant.get())",
    40: "async def audit(request):",
    41: "    locale.get()",
}


def recording(**parts: Any) -> dict[str, Any]:
    """One that holds nothing, but for these parts."""
    nothing = {
        "format": 1,
        "program": "app.py --port 1",
        "python": "3.13.0",
        "backend": "cython",
        "host": "native",
        "started": "2026-11-29T07:00:00+00:00",
        "seconds": 1.25,
        "limit": 100_000,
        "dropped": 0,
        "threads": [],
        "tasks": [],
        "variables": [],
        "files": [],
        "sources": {},
        "contexts": [],
        "events": [],
        "leaks": [],
        "answers": [],
    }
    return {**nothing, **parts}


def context(made_by: str = "start", **parts: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "parent": None,
        "time": 0.0,
        "place": None,
        "thread": 0,
        "task": None,
        "inherited": {},
        "seen_until": None,
    }
    return {"made_by": made_by, **known, "alive": False, **parts}


def variable(name: str, default: str | None = None, secret: bool = False) -> dict[str, Any]:
    return {"name": name, "secret": secret, "default": default}


def service(requests: int = 12, spacing: float = 0.03, rounds: int = 1) -> dict[str, Any]:
    """A service that handles requests in tasks, each with a task beside it and a thread of a pool, and forgets some."""
    tasks: list[dict[str, Any]] = []
    contexts = [context(seen_until=requests * spacing + 0.2, alive=True)]
    events: list[list[Any]] = [[0.0004, "set", 0, 0, None, 2, "'en'", None, 0, 6, "main"]]
    leaks = []
    for number in range(requests):
        at = 0.01 + number * spacing
        pool, request, tenant = 1 + number % 3, f"'r{number + 1}'", f"'{('acme', 'globex', 'initech')[number % 3]}'"
        work, side = len(tasks), len(tasks) + 1
        tasks += [{"name": f"request-{number + 1}", "thread": 0}, {"name": f"audit-{number + 1}", "thread": 0}]
        own, beside, below = range(len(contexts), len(contexts) + 3)
        length = spacing * (1.5 + number * 7 % 5 / 2)
        known = {"0": request, "1": tenant, "2": "'en'"}
        contexts += [
            context("create_task", parent=0, time=at, place=[0, 21, "accept"], inherited={"2": "'en'"}),
            context(
                "create_task", parent=own, time=at + length * 0.2, place=[0, 14, "handle"], task=work, inherited=known
            ),
            context(
                "to_thread", parent=own, time=at + length * 0.3, place=[0, 15, "handle"], task=work, inherited=known
            ),
        ]
        contexts[own]["seen_until"] = at + length
        contexts[beside]["seen_until"] = at + length * 0.7
        contexts[below]["seen_until"] = at + length * 0.8
        mine = [
            [at, "copy", 0, 0, None, None, own, None, 0, 21, "accept"],
            [at + length * 0.02, "enter", own, 0, work, None, None, None, None, None, None],
            [at + length * 0.05, "set", own, 0, work, 0, request, None, 0, 12, "handle"],
            [at + length * 0.12, "set", own, 0, work, 1, tenant, None, 0, 13, "handle"],
            [at + length * 0.2, "copy", own, 0, work, None, beside, None, 0, 14, "handle"],
            [at + length * 0.22, "enter", beside, 0, side, None, None, None, None, None, None],
            [at + length * 0.3, "copy", own, 0, work, None, below, None, 0, 15, "handle"],
            [at + length * 0.31, "enter", below, pool, None, None, None, None, None, None, None],
            [at + length * 0.4, "set", beside, 0, side, 3, f"Span('audit', {request})", None, 0, 40, "audit"],
            [at + length * 0.69, "exit", beside, 0, side, None, None, None, None, None, None],
        ]
        for turn in range(rounds):
            now = at + length * (0.42 + 0.3 * turn / rounds)
            mine += [
                [now, "set", below, pool, None, 2, "'de'", "'en'", 0, 31, "query"],
                [now + length * 0.15 / rounds, "reset", below, pool, None, 2, "'en'", "'de'", 0, 32, "query"],
            ]
        if number % 4 == 1:
            mine.append([at + length * 0.5, "read", beside, 0, side, 4, None, None, 0, 41, "audit"])
        if number % 5 == 2:
            contexts[own]["alive"] = True
            leaks.append((own, len(events) + 2, number))
        else:
            mine += [
                [at + length * 0.93, "reset", own, 0, work, 0, None, request, 0, 16, "handle"],
                [at + length * 0.96, "unset", own, 0, work, 1, None, tenant, 0, 17, "handle"],
            ]
        mine.append([at + length * 0.97, "exit", own, 0, work, None, None, None, None, None, None])
        events += mine
    order = sorted(range(len(events)), key=lambda at: events[at][0])
    places = {old: new for new, old in enumerate(order)}
    return recording(
        seconds=requests * spacing + 0.25,
        threads=[{"name": "MainThread"}, *({"name": f"pool_{number}"} for number in range(3))],
        tasks=tasks,
        variables=[
            variable("request_id", "'-'"),
            variable("tenant"),
            variable("locale", "'en'"),
            variable("span", "None"),
            variable("user"),
            variable("session", None, secret=True),
        ],
        files=["/srv/shop/app.py"],
        sources={"0": {str(line): text for line, text in SOURCE.items()}},
        contexts=contexts,
        events=[events[at] for at in order],
        leaks=[
            {
                "kind": "value left",
                "text": f"request_id is still 'r{number + 1}' in Context {own}, which nothing runs in any more.",
                "context": own,
                "variable": 0,
                "event": places[event],
                "held_by": [f"list of len {number + 1} in app.cache"],
            }
            for own, event, number in leaks
        ],
        answers=[
            {
                "variable": 4,
                "context": 5,
                "event": next((at for at, old in enumerate(order) if events[old][1] == "read"), None),
                "text": "user has no value in Context 5: it was never set in Context 4, which it was copied from when "
                "audit-2 was made.",
                "places": [[0, 14, "handle"], [0, 41, "audit"]],
            }
        ],
    )


def large(events: int = 100_000) -> dict[str, Any]:
    """As many events as a recording keeps at most, or a few more."""
    rounds = 9
    return service(requests=events // (13 + 2 * rounds) + 1, spacing=0.003, rounds=rounds)
