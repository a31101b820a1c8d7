"""Variables whose values are never written down."""

from __future__ import annotations

from typing import Any, TypeVar

from .. import ContextVar
from .._context.standard_library import NativeContextVar

V = TypeVar("V")

# Neither kind of variable can be referenced weakly.
_secret: set[Any] = set()


def secret(var: V) -> V:
    """Never write down a value of this variable, in a snapshot or a recording that begins later; return it. O(1).

    Its name is shown. TypeError if it is not a ContextVar; the standard library's are taken too, for snapshots. It
    stays marked, and alive, as long as the program runs.

    >>> password = secret(ContextVar("password"))
    >>> with password.set("hunter2"):
    ...     snapshot().here.context.values["password"]
    '<secret>'
    """
    if type(var) is not ContextVar and type(var) is not NativeContextVar:
        raise TypeError(f"secret() takes a ContextVar, not {var!r}")
    _secret.add(var)
    return var


def is_secret(var: Any) -> bool:
    return var in _secret
