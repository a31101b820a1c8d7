# cython: language_level=3
"""Uses each C function and type that contextvars_cy offers to `cimport`."""

from contextvars_cy cimport (
    Context,
    ContextVar,
    Hamt,
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

TYPES = [Context, ContextVar, Hamt, ThreadState, Token]

cdef ContextVar TENANT = ContextVar("tenant")
tenant = TENANT


def get(default):
    return contextvar_get(TENANT, default)


def get_or_fail():
    return contextvar_get(TENANT)


def set_(value):
    return contextvar_set(TENANT, value)


def reset(Token token):
    contextvar_reset(TENANT, token)


def set_in(Context context, value):
    context_enter(context)
    try:
        contextvar_set(TENANT, value)
        return context_current()
    finally:
        context_exit(context)


def exit_(Context context):
    context_exit(context)


def copy():
    cdef Context duplicate = context_copy_current()
    return duplicate


def sum_of_sets(int count):
    """A loop without a Python call to our functions: what `cimport` is for."""
    cdef Token token
    cdef int number, total = 0
    for number in range(count):
        token = contextvar_set(TENANT, number)
        total += contextvar_get(TENANT)
        contextvar_reset(TENANT, token)
    return total
