"""What the tests of the clients of HTTP send, to whom, and which rules say so."""

from __future__ import annotations

from typing import Any

from contextvars_cy import travel
from web_services import attempt, request_id, tenant

PUBLIC, TRUSTED = "request-id=r1", "request-id=r1,tenant=acme"
# Two names of one host, which are two hosts to a client.
OURS, STRANGER = "127.0.0.1", "localhost"
# The arguments of `connect`, and what each of the two gets.
RULES: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({}, PUBLIC, PUBLIC),
    ({"audience": "trusted"}, TRUSTED, TRUSTED),
    ({"audience": None}, None, None),
    ({"hosts": {OURS: "trusted"}}, TRUSTED, PUBLIC),
    ({"hosts": {OURS: "trusted", STRANGER: None}}, TRUSTED, None),
    ({"audience": None, "hosts": {OURS: "trusted"}}, TRUSTED, None),
]


def register_and_set() -> None:
    travel.register(request_id, "request-id", audience="public")
    travel.register(tenant, "tenant", audience="trusted")
    travel.register(attempt, "attempt", codec=int)
    request_id.set("r1")
    tenant.set("acme")
