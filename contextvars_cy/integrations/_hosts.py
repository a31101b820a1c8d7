"""Which host is which audience, for the clients of HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from ..travel import Audience, check_audience, inject

# A name as its servers know it, or the text of an address of IPv6, and patterns of the former.
_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f.]*:[0-9a-f:.]+")


class Hosts:
    """The audience of each host: that of its name, else of the longest pattern that it fits, else the default."""

    def __init__(self, audience: Audience | None, hosts: Mapping[str, Audience | None] | None) -> None:
        if hosts is None:
            hosts = {}
        elif not isinstance(hosts, Mapping):
            raise TypeError(f"hosts is a mapping from host names to audiences, not {hosts!r}")
        _check(audience)
        self._audience: Audience | None = audience
        self._audiences: dict[str, Audience | None] = {}
        for host, its_audience in hosts.items():
            name = host.lower() if isinstance(host, str) else ""
            if not _HOST.fullmatch(name):
                raise ValueError(
                    f"hosts has {host!r}: give the name of a host, such as 'api.example.org', or of all below one, "
                    "'*.example.org', without scheme, port and path, and in ASCII; all others have `audience`"
                )
            if name in self._audiences:
                raise ValueError(f"hosts has {host!r} twice: upper and lower case are the same")
            _check(its_audience, host)
            self._audiences[name] = its_audience

    def audience_of(self, host: str | None) -> Audience | None:
        """The audience, or None if nothing goes there. O(m) for a name of m labels."""
        # The dot at the end says that nothing is to be added to the name.
        name = (host or "").lower().rstrip(".")
        if name in self._audiences:
            return self._audiences[name]
        while name:
            name = name.partition(".")[2]
            pattern = f"*.{name}"
            if pattern in self._audiences:
                return self._audiences[pattern]
        return self._audience

    def write(self, headers: MutableMapping[str, Any], host: str | None) -> None:
        """Make the headers say what this host may see, and no more: they may come from a request to another one."""
        audience = self.audience_of(host)
        if audience is None:
            inject(headers, audience="public", only=())
        else:
            inject(headers, audience=audience)


def _check(audience: Audience | None, host: str | None = None) -> None:
    if audience is not None:
        try:
            check_audience(audience)
        except ValueError as error:
            raise ValueError(error if host is None else f"hosts[{host!r}]: {error}") from None
