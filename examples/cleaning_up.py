"""A tracer whose spans may be ended by whoever closes the generator that they are in, in whichever task.

python examples/cleaning_up.py
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from contextvars_cy import ContextVar

SPAN: ContextVar[str] = ContextVar("span", default="no span")


@contextmanager
def span(name: str) -> Iterator[None]:
    token = SPAN.set(f"{SPAN.get()} > {name}")
    try:
        yield
    finally:
        # False where the event loop closes the generator below: its own task has never been in this span.
        if not SPAN.try_reset(token):
            print(f"{name} was ended in another task, where the span is: {SPAN.get()}")


async def rows(table: str) -> AsyncIterator[int]:
    with span(f"rows of {table}"):
        for number in range(1000):
            yield number


async def first_row(table: str) -> int | None:
    with span("first row"):
        async for row in rows(table):
            return row  # and nobody closes the generator
    return None


async def main() -> None:
    print("the first row is", await asyncio.create_task(first_row("users")))
    await asyncio.sleep(0)  # the loop finds the generator and closes it
    print("and here is", SPAN.get())


if __name__ == "__main__":
    asyncio.run(main())
