"""What the statements of contexts.py use, and its programs.

Run afresh for each implementation, which `contextvars` then names. No two share a function, because the interpreter
specialises a function for the types that it meets.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from collections.abc import AsyncIterator
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


# ---- a service that logs each step of a request with the request's values ----

request_id, tenant, user = (ContextVar(name, default="-") for name in ("request_id", "tenant", "user"))
# Not the shared logger of that name. Records are formatted, and go nowhere.
logger = logging.Logger("service", logging.INFO)
handler = logging.StreamHandler(open(os.devnull, "w", encoding="utf-8"))
logger.addHandler(handler)


def stamp(record: logging.LogRecord) -> bool:
    record.request_id, record.tenant, record.user = request_id.get(), tenant.get(), user.get()
    return True


handler.addFilter(stamp)
handler.setFormatter(logging.Formatter("%(request_id)s %(tenant)s %(user)s %(threadName)s %(message)s"))


def log_step(step: str) -> str:
    logger.info("step %s", step)
    return request_id.get()


async def log_after_switch(step: str) -> str:
    await asyncio.sleep(0)
    return log_step(step)


async def generate() -> AsyncIterator[str]:
    yield await log_after_switch("async_generator")


async def answer(executor: ThreadPoolExecutor) -> list[str]:
    """Pass through every kind of hand-over; return the request that was seen at each."""
    loop = asyncio.get_running_loop()
    seen = [await asyncio.create_task(log_after_switch("task"))]
    seen += await asyncio.gather(log_after_switch("first"), log_after_switch("second"))
    soon, later = loop.create_future(), loop.create_future()
    loop.call_soon(lambda: soon.set_result(log_step("call_soon")))
    loop.call_later(0.001, lambda: later.set_result(log_step("call_later")))
    seen += [await soon, await later, await asyncio.to_thread(log_step, "to_thread")]
    seen.append(await asyncio.wrap_future(executor.submit(copy_context().run, log_step, "executor")))
    seen += [step async for step in generate()]
    return [*seen, log_step("handler")]


async def handle(executor: ThreadPoolExecutor, number: int) -> None:
    tokens = [(request_id, request_id.set(f"request {number}")), (tenant, tenant.set("blue")), (user, user.set("ada"))]
    try:
        seen = await answer(executor)
    finally:
        for variable, token in tokens:
            variable.reset(token)
    if seen != [f"request {number}"] * 9:
        raise RuntimeError(f"request {number} saw {seen}")


def serve(count: int) -> None:
    numbers = iter(range(count))

    async def client(executor: ThreadPoolExecutor) -> None:
        for number in numbers:
            await handle(executor, number)

    async def main() -> None:
        with ThreadPoolExecutor(4) as executor:
            await asyncio.gather(*(client(executor) for _ in range(CLIENTS)))

    asyncio.run(main())
