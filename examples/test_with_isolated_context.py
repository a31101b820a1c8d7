"""Tests of code that sets context variables, none of which finds what another has left behind.

    pip install contextvars_cy pytest
    pytest examples/test_with_isolated_context.py

With the mark each test, its fixtures and their teardown run in one fresh Context. Take the mark away, and
`test_a_visitor_is_nobody` fails: it sees the user whom the test before it has signed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from contextvars_cy import Context, ContextVar

# ---- the program ----

user: ContextVar[str] = ContextVar("user", default="nobody")
tenant: ContextVar[str] = ContextVar("tenant")


def sign_in(name: str) -> None:
    user.set(name)


async def greet() -> str:
    await asyncio.sleep(0)
    return f"Hello {user.get()} of {tenant.get('no tenant')}!"


# ---- its tests ----

pytestmark = pytest.mark.isolated_context


@pytest.fixture
def acme() -> Iterator[None]:
    token = tenant.set("acme")
    yield
    tenant.reset(token)  # In the Context where it was set.


def test_sign_in(acme: None) -> None:
    sign_in("ada")
    assert asyncio.run(greet()) == "Hello ada of acme!"


def test_a_visitor_is_nobody() -> None:
    assert asyncio.run(greet()) == "Hello nobody of no tenant!"


def test_what_was_set(isolated_context: Context) -> None:
    sign_in("grace")
    assert isolated_context[user] == "grace"
    assert tenant not in isolated_context
