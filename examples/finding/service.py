"""A small service: it answers the requests of a connection, and logs for whom."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

user = ContextVar("user", default="nobody")
running: set[asyncio.Task[str]] = set()


async def query() -> None:
    await asyncio.sleep(0.04)


async def endpoint(request: dict[str, Any]) -> str:
    user.set(request["token"])
    for _ in range(request["queries"]):
        await query()
    return f"200 {request['path']}"


async def time_limit(request: dict[str, Any]) -> str:
    task = asyncio.create_task(endpoint(request))
    running.add(task)  # a shutdown waits for them
    return await asyncio.wait_for(task, 1)


async def access_log(request: dict[str, Any]) -> None:
    answer = await time_limit(request)
    print(answer, user.get())


async def connection() -> None:
    await access_log({"path": "/home", "token": "ada", "queries": 5})
    await access_log({"path": "/news", "token": "grace", "queries": 8})


if __name__ == "__main__":
    asyncio.run(connection())
