"""Values of a client's `baggage` header, in an application of ASGI: Starlette, FastAPI, Litestar, Quart, Django.

`app = TravelMiddleware(app)`, or `Starlette(middleware=[Middleware(TravelMiddleware)])`. It needs no other package.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .. import MISSING, Context, ContextVar, assign, copy_context, travel
from ..travel import HEADER, Audience
from ._arriving import arrived

__all__ = ["TravelMiddleware"]

# Each framework has types of its own for scope, receive and send, and they do not fit each other.
App = Callable[[Any, Any, Any], Awaitable[Any]]

_NAME = HEADER.encode()
# In the scopes that the middleware has seen.
_SEEN = "contextvars_cy.travel"
# A copy of the Context that the request began in.
_before: ContextVar[Context] = ContextVar("contextvars_cy.integrations.asgi")


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]


class TravelMiddleware:
    """Sets the registered variables that a request's `baggage` header has values for, until the application returns.

    `audience` says who has written the header: `"public"`, anybody, unless you say `"trusted"`, where only your own
    services reach the application. ValueError if it is unknown.

    Requests and WebSockets have it, streams to their end; what else the server calls for is passed on. The values end
    with the call, also by an error, a cancellation or a client that hangs up, and so does what the application sets in
    registered variables. What is broken in a header is left out, and logged as a warning of `contextvars_cy.travel`: no
    header is an error, and no warning.

    Put it outside of all that sets registered variables. A server may begin a request in a copy of the last one's
    Context (uvicorn does, see CPython issue 140947): then registered variables get the values from before that one.

    O(n) for n registered variables: some microseconds a request.

    >>> import asyncio
    >>> request_id = ContextVar("request_id", default="-")
    >>> travel.register(request_id, "asgi-request-id", audience="public")
    >>> async def app(scope, receive, send):
    ...     print(request_id.get())
    >>> scope = {"type": "http", "headers": [(b"baggage", b"asgi-request-id=r1")]}
    >>> asyncio.run(TravelMiddleware(app)(scope, None, None))
    r1
    """

    def __init__(self, app: App, *, audience: Audience = "public") -> None:
        travel.check_audience(audience)
        self.app = app
        self.audience: Audience = audience

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        # What the call begins with, and what was set before any request.
        outside = copy_context()
        before = _before.get(outside)
        if before is not outside and _SEEN not in scope:
            _give_back(before)
        # In place, because layers outside look at what others inside put there, such as the route.
        scope[_SEEN] = True
        mark = _before.set(before)
        header = b",".join([value for name, value in scope.get("headers", ()) if name == _NAME])
        try:
            if header:
                assign(arrived(header, self.audience))
            await self.app(scope, receive, send)
        finally:
            # False in another Context, where the garbage collector may close this: nothing was set there.
            if _before.try_reset(mark):
                _give_back(outside)


def _give_back(before: Context) -> None:
    """Give the registered variables the values that they had before, whoever has changed them."""
    now = copy_context()
    values = {}
    for var in travel.registered_variables():
        value = before.get(var, MISSING)
        if now.get(var, MISSING) is value:
            continue
        if value is MISSING:
            var.unset()
        else:
            values[var] = value
    # At once, which takes half the time.
    assign(values)
