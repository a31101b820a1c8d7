"""Variables whose values are never written down."""

from __future__ import annotations

from typing import Any

from .. import ContextVar

_secret: set[ContextVar[Any]] = set()


def secret(var: ContextVar[Any]) -> None:
    """Never write down a value of this variable, in no recording that begins later. O(1).

    TypeError if it is not a ContextVar.

    >>> password = ContextVar("password")
    >>> secret(password)
    """
    if type(var) is not ContextVar:
        raise TypeError(f"secret() takes a ContextVar of contextvars_cy, not {var!r}")
    _secret.add(var)


def is_secret(var: ContextVar[Any]) -> bool:
    return var in _secret
