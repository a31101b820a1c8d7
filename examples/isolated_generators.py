"""Rows of two tenants are streamed side by side. Each stream works, logs and cleans up for its own tenant.

python examples/isolated_generators.py
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from contextvars_cy import ContextVar, isolated

TENANT: ContextVar[str] = ContextVar("tenant", default="-")


def log(message: str) -> None:
    print(f"{TENANT.get()}: {message}")


async def query(number: int) -> str:
    await asyncio.sleep(0)  # the other stream runs here
    return f"row {number} of {TENANT.get()}"


@isolated
async def rows(tenant: str) -> AsyncGenerator[str, None]:
    with TENANT.set(tenant):
        log("cursor opened")
        try:
            for number in range(1000):
                yield await query(number)
        finally:
            await asyncio.sleep(0)
            log("cursor closed")


async def send(stream: AsyncGenerator[str, None], count: int) -> None:
    async for row in stream:
        log(f"sent {row}")
        count -= 1
        if not count:
            break  # the client has hung up, and nobody closes the stream


async def main() -> None:
    with TENANT.set("server"):
        await asyncio.gather(send(rows("acme"), 2), send(rows("globex"), 1))
        log("all sent")
    # The event loop closes both streams, each in its own Context.


if __name__ == "__main__":
    asyncio.run(main())
