"""Registered values, in the `baggage` header of what a session of requests sends.

`connect(session)`; on the other side `contextvars_cy.integrations.asgi` and `.wsgi` read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from ..travel import Audience
from ._hosts import Hosts
from ._needed import needed

with needed("requests"):
    import requests

__all__ = ["connect"]

# Of the sessions that are connected.
_hosts_of: WeakKeyDictionary[requests.Session, Hosts] = WeakKeyDictionary()


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]


def connect(
    session: requests.Session,
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

    A session that was connected before follows the new rules alone. It wraps the session's `send`, which redirects call
    too; a pickled session arrives without it. TypeError for anything but a session of requests; ValueError if an
    audience is unknown, or a key of `hosts` is no name of a host.

    >>> import requests
    >>> session = requests.Session()
    >>> connect(session, hosts={"*.internal": "trusted", "ads.example.org": None})
    """
    if not isinstance(session, requests.Session):
        raise TypeError(f"connect() takes a Session of requests, not {session!r}")
    is_connected = session in _hosts_of
    _hosts_of[session] = Hosts(audience, hosts)
    if is_connected:
        return
    send = session.send

    def send_with_values(request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        # As requests itself finds the host to connect to.
        _hosts_of[session].write(request.headers, urlsplit(request.url or "").hostname)
        return send(request, **kwargs)

    session.send = send_with_values  # type: ignore[method-assign]
