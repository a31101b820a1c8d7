"""Errors that a user relies on, word for word."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def refuses(kind: type[BaseException], text: str) -> Iterator[None]:
    """`pytest.raises` for the whole text; notes, which pytest would match as well, are left to other tests."""
    with pytest.raises(kind) as raised:
        yield
    assert str(raised.value) == text


def as_errors_name(context: object) -> str:
    """As CPython's: an error shows no values."""
    return f"<contextvars_cy.Context object at {id(context):#x}>"
