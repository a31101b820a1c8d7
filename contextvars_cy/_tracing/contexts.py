"""Contexts, ours and the interpreter's, as one thing to look at."""

from __future__ import annotations

from typing import Any

from .. import Context, Hamt, host

IS_NATIVE = host == "native"


def kept(context: Any) -> Any:
    """What stays the same object as long as code can run in the Context, which may be a native one already."""
    return context.native if IS_NATIVE and type(context) is Context else context


def is_anchor(var: Any, value: object) -> bool:
    """Whether this native variable is the one that has all of ours, on the native host. Its name is the same in a copy
    of the package that has another one."""
    return type(value) is Hamt and bool(var.name == "contextvars_cy")
