"""Values of a client's `baggage` header, in an application of WSGI: Flask, Django, Bottle, Pyramid.

`app.wsgi_app = TravelMiddleware(app.wsgi_app)` in Flask, `application = TravelMiddleware(application)` elsewhere. It
needs no other package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .. import Context, assign, copy_context
from ..travel import HEADER, Audience, check_audience
from ._arriving import arrived

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["TravelMiddleware"]

_KEY = f"HTTP_{HEADER.upper()}"


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]


class TravelMiddleware:
    """Sets the registered variables that a request's `baggage` header has values for, in a Context of its own.

    `audience` says who has written the header: `"public"`, anybody, unless you say `"trusted"`, where only your own
    services reach the application. ValueError if it is unknown.

    The Context is a copy of the one that the server calls in. The application runs in it, and so does every step of the
    body that it returns, and the body's `close`: bodies that take turns in one thread do not see each other's values,
    and nothing stays in the thread. So what the application sets is not seen by layers outside of this one. A list, a
    tuple and a `wsgi.file_wrapper` are handed to the server as they are, which may then send them in its fast way.

    What is broken in a header is left out, and logged as a warning of `contextvars_cy.travel`: no header is an error,
    and no warning.

    O(n) for n registered variables if there is a header, else O(1): some microseconds a request, and less than one for
    each step of the body.

    >>> from wsgiref.util import setup_testing_defaults
    >>> from contextvars_cy import ContextVar, travel
    >>> request_id = ContextVar("request_id", default="-")
    >>> travel.register(request_id, "wsgi-request-id", audience="public")
    >>> def app(environ, start_response):
    ...     start_response("200 OK", [])
    ...     yield request_id.get().encode()
    >>> environ = {"HTTP_BAGGAGE": "wsgi-request-id=r1"}
    >>> setup_testing_defaults(environ)
    >>> list(TravelMiddleware(app)(environ, lambda status, headers: None))
    [b'r1']
    """

    def __init__(self, app: WSGIApplication, *, audience: Audience = "public") -> None:
        check_audience(audience)
        self.app = app
        self.audience: Audience = audience

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        context = copy_context()
        body = context.run(self._start, environ, start_response)
        if type(body) in (list, tuple) or _is_file(body, environ):
            return body
        return _Body(context, body)

    def _start(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        header = environ.get(_KEY)
        if header:
            assign(arrived(header, self.audience))
        return self.app(environ, start_response)


def _is_file(body: object, environ: WSGIEnvironment) -> bool:
    # Of some servers it is a function, and what that returns is nothing special.
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


class _Body:
    """A body whose steps run in the request's Context."""

    def __init__(self, context: Context, body: Iterable[bytes]) -> None:
        self._run = context.run
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        self._iterator = self._run(iter, self._body)
        return self

    def __next__(self) -> bytes:
        return self._run(next, self._iterator)

    def close(self) -> None:
        close: Any = getattr(self._body, "close", None)
        if close is not None:
            self._run(close)
