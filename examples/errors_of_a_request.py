"""Errors are collected for each request, wherever its code runs, in a list that is made when the first one is noted.

python examples/errors_of_a_request.py
"""

from __future__ import annotations

import asyncio

from contextvars_cy import ContextVar

ERRORS: ContextVar[list[str]] = ContextVar("errors", default_factory=list)


def note(error: str) -> None:
    ERRORS.get().append(error)


async def check_price(price: int) -> None:
    await asyncio.sleep(0)
    if price < 0:
        note(f"a price of {price}")


async def handle(prices: list[int]) -> str:
    ERRORS.get()  # made here, so that the tasks below share it
    await asyncio.gather(*(check_price(price) for price in prices))
    with ERRORS.unset():  # what this notes is nobody's business
        note("the cache was cold")
    return f"{prices}: {', '.join(ERRORS.get()) or 'fine'}"


async def main() -> None:
    for answer in await asyncio.gather(handle([1, -2, -3]), handle([4, 5]), handle([-6])):
        print(answer)
    print("errors outside of the requests:", ERRORS.is_set())


if __name__ == "__main__":
    asyncio.run(main())
