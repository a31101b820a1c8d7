"""Values of a request's header, and requests that see nothing of each other, in an application of ASGI.

Starlette, FastAPI, Litestar, Quart, Django: `app = TravelMiddleware(app)` takes values from a client's `baggage`
header, `app = FreshMiddleware(app)` gives each request a fresh Context. Both are also for
`Starlette(middleware=[Middleware(TravelMiddleware)])`. They need no other package.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from typing import Any, Literal

from .. import MISSING, Context, ContextVar, assign, copy_context, current_context, fresh, isolated, travel
from .._places import Place
from ..travel import HEADER, Audience
from ._arriving import arrived
from ._left import Places, left_behind, shown, shown_of

__all__ = ["FreshMiddleware", "TravelMiddleware"]

# Each framework has types of its own for scope, receive and send, and they do not fit each other.
App = Callable[[Any, Any, Any], Awaitable[Any]]

_KINDS = ("http", "websocket")
_NAME = HEADER.encode()
# In the scopes that the middleware has seen.
_SEEN = "contextvars_cy.travel"
# A copy of the Context that the request began in.
_before: ContextVar[Context] = ContextVar("contextvars_cy.integrations.asgi")
_logger = logging.getLogger("contextvars_cy.fresh")


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
        if scope["type"] not in _KINDS:
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


class FreshMiddleware:
    """Gives each request and WebSocket a fresh Context, and logs what it leaves behind there.

    In a request only the variables in `keep` have values, those that layers outside have set, or the whole process;
    beside them what a `TravelMiddleware` outside has taken from the request's header. So a request sees nothing of
    another, even if the server begins it in a copy of that one's Context (uvicorn does, see CPython issue 140947):
    what the server does in `receive` and `send` is done outside of the fresh Context, so none is copied there. On the
    native host that is so for the standard library's variables too.

    `report` says when a variable that the application has set, and not reset, is logged as a warning of
    `contextvars_cy.fresh`, with its value's repr, cut: `"each"`, in a line for each request, `"once"` for each variable
    and place, or `"never"`. With `where=True` the line names the file and line where it was set; that takes
    microseconds for each set and for each Context that is entered, anywhere in the process, while there are requests.

    Put it outside of all layers that set variables which are not in `keep`. TypeError if `keep` is not an iterable of
    ContextVars, ValueError for another `report`.

    O(m) for m variables to keep, and for those that were set: some microseconds a request, and some for each `receive`
    and `send`.

    Modelled on uvicorn's `--reset-contextvars`.

    >>> import asyncio
    >>> tenant, user = ContextVar("tenant", default="-"), ContextVar("user", default="nobody")
    >>> async def app(scope, receive, send):
    ...     print(tenant.get(), user.get())
    ...     user.set("ada")
    >>> guarded = FreshMiddleware(app, keep=[tenant], report="never")
    >>> async def requests():
    ...     tenant.set("acme")
    ...     for _ in range(2):
    ...         await guarded({"type": "http"}, None, None)
    >>> asyncio.run(requests())
    acme nobody
    acme nobody
    """

    def __init__(
        self,
        app: App,
        *,
        keep: Iterable[ContextVar[Any]] = (),
        report: Literal["each", "once", "never"] = "each",
        where: bool = False,
    ) -> None:
        if report not in ("each", "once", "never"):
            raise ValueError(f"report={report!r}: choose one of each, once, never")
        self.app = app
        self._run = fresh(keep)(self._run_in_it)
        self._report = report
        self._places = Places() if where else None
        self._told: set[tuple[ContextVar[Any], Place | None]] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in _KINDS:
            await self.app(scope, receive, send)
            return
        outside = copy_context()
        # Only a TravelMiddleware knows that these are not the last request's.
        travelled = travel.registered_variables() if _SEEN in scope else ()
        values = {var: outside[var] for var in travelled if var in outside}
        await self._run(values, scope, _outside(outside, receive), _outside(outside, send))

    async def _run_in_it(self, values: dict[ContextVar[Any], Any], scope: Any, receive: Any, send: Any) -> None:
        assign(values)
        before = copy_context()
        here = current_context()
        with nullcontext() if self._places is None else self._places.following(here):
            try:
                await self.app(scope, receive, send)
            finally:
                if self._report != "never":
                    self._tell(left_behind(before, here), here, scope)

    def _tell(self, values: dict[ContextVar[Any], Any], here: Context, scope: Any) -> None:
        texts = []
        for var, value in values.items():
            place = None if self._places is None else self._places.of(var, value, here)
            if self._report == "once":
                if (var, place) in self._told:
                    continue
                self._told.add((var, place))
            texts.append(f"{var.name} = {shown_of(var, value)}" + ("" if place is None else f", set at {place}"))
        if texts:
            # A stranger has written the path.
            what = f"{scope.get('method', scope['type'])} {shown(scope.get('path', ''))}"
            _logger.warning("%s left values behind: %s", what, "; ".join(texts))


def _outside(context: Context, function: Any) -> Any:
    """The server's function, whose steps run in a copy of that Context."""

    async def call(*arguments: Any) -> Any:
        return await context.run(_call, function, *arguments)

    return call


@isolated
async def _call(function: Any, *arguments: Any) -> Any:
    return await function(*arguments)
