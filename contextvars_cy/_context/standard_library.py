"""The interpreter's own `contextvars`, even if a copy of this package, under another name, has replaced it."""

from __future__ import annotations

import contextvars as _contextvars
from typing import TYPE_CHECKING

__all__ = ["NativeContext", "NativeContextVar", "NativeToken", "contextvars", "copy_native_context"]

if TYPE_CHECKING:
    from contextvars import Context as NativeContext
    from contextvars import ContextVar as NativeContextVar
    from contextvars import Token as NativeToken
    from contextvars import copy_context as copy_native_context

    contextvars = _contextvars
else:
    contextvars = getattr(_contextvars, "_native", _contextvars)
    NativeContext, NativeContextVar, NativeToken = contextvars.Context, contextvars.ContextVar, contextvars.Token
    copy_native_context = contextvars.copy_context
