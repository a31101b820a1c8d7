"""What the statements of contexts.py use, and its programs.

Run afresh for each implementation, which `contextvars` then names. No two share a function, because the interpreter
specialises a function for the types that it meets.
"""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, ContextVar
from contextvars import copy_context as copy_context
from typing import Any

MOST, USUAL = 2000, 8
CLIENTS, TASK_STEPS = 100, 5

# Which not all have.
assign = getattr(contextvars, "assign", None)
one, two = "one", "two"
variables: list[ContextVar[str]] = [ContextVar(f"v{number}") for number in range(MOST)]
# As v0, v1 and so on, too: a program reads its variables by their names.
globals().update({variable.name: variable for variable in variables})
var: Any = variables[0]
new_variables: list[ContextVar[str]] = [ContextVar(f"new {number}") for number in range(10)]
with_default = ContextVar("with_default", default=one)
without_default: ContextVar[str] = ContextVar("without_default")


def filled(size: int) -> Context:
    """A Context in which so many variables are set."""
    context = Context()
    for variable in variables[:size]:
        context.run(variable.set, one)
    return context


context = filled(USUAL)
# Equal, but one value is another object.
twin = context.copy()
twin.run(var.set, "".join(["o", "ne"]))
left, right, large_left, large_right = filled(USUAL), filled(USUAL), filled(200), filled(200)


def nothing() -> None:
    pass


def three(first: str, second: str, third: str) -> None:
    pass


def keywords(*, first: str, second: str) -> None:
    pass


def read() -> None:
    var.get()


def set_new() -> None:
    for variable in new_variables:
        variable.set(one)


# ---- a function that scopes a variable at each level ----


def descend(level: int) -> Any:
    with var.set(level):
        return descend(level - 1) if level > 1 else var.get()


def descend_by_hand(level: int) -> Any:
    token = var.set(level)
    try:
        return descend_by_hand(level - 1) if level > 1 else var.get()
    finally:
        var.reset(token)


# ---- many tasks ----

letters: list[ContextVar[str]] = [ContextVar(name) for name in "abcde"]
a, b, c, d, e = letters


async def task(number: int) -> bool:
    """Set 5 variables, read them twice after each of 5 switches, and check that they are this task's own."""
    value = str(number)
    a.set(value)
    b.set(value)
    c.set(value)
    d.set(value)
    e.set(value)
    for _ in range(TASK_STEPS):
        await asyncio.sleep(0)
        a.get()
        b.get()
        c.get()
        d.get()
        e.get()
        a.get()
        b.get()
        c.get()
        d.get()
        last = e.get()
    return last is value


def tasks(count: int) -> None:
    async def main() -> bool:
        return all(await asyncio.gather(*(task(number) for number in range(count))))

    if not asyncio.run(main()):
        raise RuntimeError("a task has read another task's variable")


# ---- the service of `make demo`, whose requests come from here and not from the network ----


def serve(example: Any, count: int) -> None:
    numbers = iter(range(count))

    async def client(service: Any) -> None:
        for number in numbers:
            request_id = f"request-{number}"
            head = (
                f"GET /bench HTTP/1.1\r\nHost: -\r\nX-Request-Id: {request_id}\r\nX-Tenant: blue\r\nX-User: ada\r\n\r\n"
            )
            response, _ = await service.respond(head.encode())
            # Once for the request, and once for each of its nine steps.
            if response.count(b'"%b"' % request_id.encode()) != 10:
                raise RuntimeError(f"the request {request_id} was answered with {response!r}")

    async def main() -> None:
        with ThreadPoolExecutor(4) as executor:
            service = example.Service(executor)
            await asyncio.gather(*(client(service) for _ in range(CLIENTS)))

    asyncio.run(main())
