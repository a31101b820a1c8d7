# `from contextvars_cy cimport ContextVar, contextvar_get, …` for other Cython projects.

from ._context.context_cy cimport (
    Context,
    ContextVar,
    ThreadState,
    Token,
    context_copy_current,
    context_current,
    context_enter,
    context_exit,
    contextvar_get,
    contextvar_reset,
    contextvar_set,
)
from ._hamt.hamt_cy cimport Hamt
