"""Which audience a host is, and what a wrong rule gets; httpx and requests share it."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import httpx
import pytest
import requests

from contextvars_cy.integrations import httpx as httpx_integration
from contextvars_cy.integrations import requests as requests_integration
from contextvars_cy.integrations._hosts import Hosts

RULES: Any = {
    "api.example.org": "process",
    "*.example.org": "trusted",
    "*.ads.example.org": None,
    "localhost": "trusted",
    "::1": "trusted",
    "UPPER.example.com": "trusted",
}


@pytest.mark.parametrize(
    ("host", "audience"),
    [
        ("api.example.org", "process"),
        ("API.Example.ORG", "process"),
        # The same host, with the dot of the root.
        ("api.example.org.", "process"),
        ("x.ads.example.org.", None),
        ("www.example.org", "trusted"),
        ("a.b.c.example.org", "trusted"),
        ("x.api.example.org", "trusted"),
        ("ads.example.org", "trusted"),
        ("x.ads.example.org", None),
        ("a.x.ads.example.org", None),
        ("example.org", "public"),
        ("evilexample.org", "public"),
        ("api.example.org.evil.net", "public"),
        ("localhost", "trusted"),
        ("127.0.0.1", "public"),
        ("::1", "trusted"),
        ("upper.example.com", "trusted"),
        ("", "public"),
        (None, "public"),
        (".", "public"),
        ("..example.org", "trusted"),
    ],
)
def test_a_host_is_its_audience(host: str | None, audience: str | None) -> None:
    for rules in (RULES, MappingProxyType(RULES)):
        assert Hosts("public", rules).audience_of(host) == audience


def test_hosts_without_a_rule_have_the_default() -> None:
    for default in ("process", "trusted", "public", None):
        for hosts in (None, {}, {"b.example": "public"}):
            assert Hosts(default, hosts).audience_of("a.example") == default  # type: ignore[arg-type]


@pytest.fixture(params=["httpx.Client", "httpx.AsyncClient", "requests.Session"])
def connect(request: pytest.FixtureRequest) -> Any:
    kinds: dict[str, Any] = {
        "httpx.Client": (httpx.Client, httpx_integration.connect),
        "httpx.AsyncClient": (httpx.AsyncClient, httpx_integration.connect),
        "requests.Session": (requests.Session, requests_integration.connect),
    }
    kind, connect = kinds[request.param]
    return lambda **rules: connect(kind(), **rules)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"audience": "everybody"}, "^audience='everybody': choose one of process, trusted, public"),
        ({"hosts": {"a.example": "everybody"}}, r"hosts\['a.example'\]: audience='everybody': choose one of"),
        ({"hosts": {"a.example": ("trusted",)}}, r"hosts\['a.example'\]: .*choose one of"),
        ({"hosts": {"a.example": ["trusted"]}}, r"hosts\['a.example'\]: "),
        ({"audience": ["trusted"]}, "unhashable|choose one of"),
        *[
            ({"hosts": {host: "trusted"}}, "without scheme, port and path")
            for host in ("https://a.example", "a.example:443", "a.example/path", "[::1]", "user@a.example", "a b")
        ],
        *[
            ({"hosts": {host: "trusted"}}, "give the name of a host")
            for host in ("", "*", "*.", "*example.org", "a.*.org", "**.org", ".example.org", "a..b", "a.example.")
        ],
        ({"hosts": {"bücher.example": "trusted"}}, "in ASCII"),
        ({"hosts": {1: "trusted"}}, "hosts has 1"),
        ({"hosts": {None: "trusted"}}, "hosts has None"),
        ({"hosts": {"a.example": "trusted", "A.example": None}}, "hosts has 'A.example' twice"),
    ],
)
def test_a_wrong_rule_is_an_error_that_names_it(connect: Any, rules: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        connect(**rules)


@pytest.mark.parametrize("hosts", ["a.example", ["a.example"], [("a.example", "trusted")], 1])
def test_rules_that_are_no_mapping_are_an_error(connect: Any, hosts: Any) -> None:
    with pytest.raises(TypeError, match="hosts is a mapping from host names to audiences"):
        connect(hosts=hosts)


@pytest.mark.parametrize("wrong", [None, httpx, requests, "client", httpx.Client, requests.Session])
def test_what_is_no_client_is_an_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match="takes a Client or an AsyncClient of httpx"):
        httpx_integration.connect(wrong)
    with pytest.raises(TypeError, match="takes a Session of requests"):
        requests_integration.connect(wrong)
