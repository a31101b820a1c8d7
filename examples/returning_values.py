"""An ASGI middleware that logs who was logged in, which only the application that it calls finds out.

The middleware runs the application in a task of its own, to stop it after a while, as frameworks do for other reasons
(BaseHTTPMiddleware of Starlette does). So what the application sets is set in the copy of a Context, and lost.
"""

from __future__ import annotations

import asyncio
from typing import Any

from contextvars_cy import ContextVar, apply, copy_context, current_context

USER = ContextVar("USER", default="nobody")
QUERIES = ContextVar("QUERIES", default=0)


class KeepContext:
    """The innermost layer: it leaves the Context in which the application runs to the layers around."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope["state"]["context"] = current_context()  # itself, not a copy: what is set later shows in it
        await self.app(scope, receive, send)


class AccessLog:
    def __init__(self, app: Any, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope["state"] = {}
        before = copy_context()
        try:
            await asyncio.wait_for(asyncio.create_task(self.app(scope, receive, send)), self.seconds)
            outcome = "answered"
        except asyncio.TimeoutError:
            outcome = "stopped"
        lost = USER.get()
        with apply(scope["state"]["context"]):
            print(f"{scope['path']}: {outcome}, {USER.get()} (without apply: {lost})")
        changes = before.diff(scope["state"]["context"])
        print("  set:", ", ".join(sorted(f"{var.name}={value}" for var, value in changes.added.items())))


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    USER.set(scope["path"].strip("/"))
    for _ in range(3):
        QUERIES.set(QUERIES.get() + 1)
        await asyncio.sleep(60 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 204, "headers": []})


async def main() -> None:
    async def send(message: dict[str, Any]) -> None:
        pass

    app = AccessLog(KeepContext(application), seconds=0.1)
    for path in ("/ada", "/slow", "/bob"):
        await app({"type": "http", "path": path}, None, send)


if __name__ == "__main__":
    asyncio.run(main())
