"""service.py, mended: the access log takes the user from the endpoint's Context, and no task is kept for good."""

from __future__ import annotations

import asyncio
from typing import Any

from contextvars_cy import ContextVar, apply, current_context

user = ContextVar("user", default="nobody")
running: set[asyncio.Task[str]] = set()


async def query() -> None:
    await asyncio.sleep(0.04)


async def endpoint(request: dict[str, Any]) -> str:
    request["context"] = current_context()
    user.set(request["token"])
    for _ in range(request["queries"]):
        await query()
    return f"200 {request['path']}"


async def time_limit(request: dict[str, Any]) -> str:
    task = asyncio.create_task(endpoint(request))
    running.add(task)  # a shutdown waits for them
    task.add_done_callback(running.discard)
    return await asyncio.wait_for(task, 1)


async def access_log(request: dict[str, Any]) -> None:
    answer = await time_limit(request)
    with apply(request["context"], only=[user]):
        print(answer, user.get())


async def connection() -> None:
    await access_log({"path": "/home", "token": "ada", "queries": 5})
    await access_log({"path": "/news", "token": "grace", "queries": 8})


if __name__ == "__main__":
    asyncio.run(connection())
