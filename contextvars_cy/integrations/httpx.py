"""Registered values, in the `baggage` header of what a client of httpx sends.

`connect(client)`; on the other side `contextvars_cy.integrations.asgi` and `.wsgi` read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..travel import Audience
from ._hosts import Hosts
from ._needed import needed

with needed("httpx"):
    import httpx

__all__ = ["connect"]


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]


def connect(
    client: httpx.Client | httpx.AsyncClient,
    *,
    audience: Audience | None = "public",
    hosts: Mapping[str, Audience | None] | None = None,
) -> None:
    """Write the values that a request's host may see into its `baggage` header. O(n) for n registered variables.

    - `audience`: what all hosts are, `"public"` unless you say otherwise; None: they get nothing.
    - `hosts`: the audiences of some, or None for those that get nothing. A key is a host's name, or `*.example.org` for
      all below it; the name counts before patterns, and the longest of these first.

    The values are those of the code that sends, at that moment. Each step of a redirect is decided anew: what was for
    the first host does not go on to a stranger. The header's members of other programs stay. Of a value that cannot be
    encoded there is a TravelWarning, and the request goes without it.

    A client that was connected before follows the new rules alone. It is a request hook of the client: connect after
    you assign `client.event_hooks`. TypeError for anything but a client of httpx; ValueError if an audience is unknown,
    or a key of `hosts` is no name of a host.

    >>> import httpx
    >>> client = httpx.Client()
    >>> connect(client, hosts={"*.internal": "trusted", "ads.example.org": None})
    >>> client.close()
    """
    if isinstance(client, httpx.AsyncClient):
        kind: type[_Hook] = _AsyncHook
    elif isinstance(client, httpx.Client):
        kind = _Hook
    else:
        raise TypeError(f"connect() takes a Client or an AsyncClient of httpx, not {client!r}")
    hook = kind(Hosts(audience, hosts))
    hooks = client.event_hooks
    others = [other for other in hooks["request"] if not isinstance(other, _Hook)]
    client.event_hooks = {**hooks, "request": [*others, hook]}


class _Hook:
    """httpx calls it for each request, also those that redirects and authentication make."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    def write(self, request: httpx.Request) -> None:
        self._hosts.write(request.headers, request.url.raw_host.decode("ascii"))

    def __call__(self, request: httpx.Request) -> Any:
        self.write(request)


class _AsyncHook(_Hook):
    async def __call__(self, request: httpx.Request) -> None:
        self.write(request)
