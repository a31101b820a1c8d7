"""The native host: a snapshot rides inside Python's own context, as the value of one native variable, the *anchor*.

Code that copies, enters or leaves a native Context (asyncio does so in C) carries our variables along. Each of our
Contexts wraps one native Context. `thread_host_py` defines the same names for the other host.
"""

from __future__ import annotations

from _weakref import _remove_dead_weakref  # type: ignore[attr-defined]
from collections.abc import Callable
from typing import Any, TypeVar, cast
from weakref import ref

from .._hamt.hamt_py import EMPTY, Hamt
from .._hamt.trie_py import find
from .._sentinels import ABSENT
from .context_py import (
    Assignment,
    Context,
    ContextVar,
    Snapshot,
    ThreadState,
    Token,
    checked_variable,
    refuse_to_leave,
    with_change,
)
from .interpreter import context_of, copy, copy_current, enter, exchanger, leave, reader, run
from .messages import CONTEXT, ENTERED, NOT_ENTERED
from .standard_library import NativeContext, NativeContextVar, NativeToken

R = TypeVar("R")

_anchor: NativeContextVar[Snapshot] = NativeContextVar("contextvars_cy")
# Whether Contexts also show the native variables set in them.
_shows_native_variables = False


# ---- snapshots ----

current_snapshot = reader(_anchor, EMPTY)
_exchange = exchanger(_anchor, EMPTY)


def snapshot_of(context: Context) -> Snapshot:
    return context._native.get(_anchor, EMPTY)


def update(var: ContextVar[Any] | None, value: Any, made: Token[Any] | Assignment | None) -> Any:
    """Change the current snapshot and return the old value; store that and the place in `made`. On an error nothing has
    changed."""
    native_tokens: list[NativeToken[Snapshot]] = []
    snapshot = changed = EMPTY
    old_value: Any = ABSENT
    try:
        # Again if a signal handler or a finaliser set a variable meanwhile.
        while not native_tokens:
            snapshot = current_snapshot()
            changed, old_value = with_change(snapshot, var, value)
            _exchange(native_tokens, snapshot, changed)
        if made is not None:
            # Not the native token, which keeps the whole old snapshot alive.
            made._old_value, made._context = old_value, context_of(native_tokens[0])
    except BaseException:
        # If there is no token, CPython may have set the variable before it ran out of memory for the token.
        if changed is not snapshot and (native_tokens or current_snapshot() is changed):
            _take_back(snapshot, changed)
        raise
    return old_value


def _take_back(snapshot: Snapshot, changed: Snapshot) -> None:
    """Undo the change, but not what was set after it."""
    native_tokens: list[NativeToken[Snapshot]] = []
    while not native_tokens:
        found = current_snapshot()
        _exchange(native_tokens, found, _with_changes(snapshot, changed, found))


def _with_changes(snapshot: Snapshot, before: Snapshot, after: Snapshot) -> Snapshot:
    """The snapshot with the changes from `before` to `after`."""
    for var, value in after.items():
        if find(before._root, var._folded, var, var._hash) is not value:
            snapshot, _ = with_change(snapshot, var, value)
    for var in before:
        if find(after._root, var._folded, var, var._hash) is ABSENT:
            snapshot, _ = with_change(snapshot, var, ABSENT)
    return snapshot


def place_of_set(made: Token[Any] | Assignment | None = None) -> Any:
    """What a token made now remembers as its Context: the native one, which only a set reveals."""
    native_tokens: list[NativeToken[Snapshot]] = []
    while not native_tokens:
        snapshot = current_snapshot()
        _exchange(native_tokens, snapshot, snapshot)
    return context_of(native_tokens[0])


def context_of_token(token: Token[Any]) -> Context:
    return _wrap(cast(NativeContext, token._context))


# ---- Contexts ----

# From a native Context's address to its wrapper. A wrapper keeps its native Context alive, so the address stays valid
# as long as the wrapper lives; storing the wrapper in the native Context would make a reference cycle. Not a
# WeakValueDictionary, whose setdefault takes several steps.
_wrappers: dict[int, _Reference] = {}


class _Reference(ref[Context]):
    __slots__ = ("address",)

    address: int


def _forget(reference: _Reference) -> None:
    # It has no address if memory ran out too early.
    _remove_dead_weakref(_wrappers, getattr(reference, "address", None))


def _wrap(native: NativeContext) -> Context:
    known = _wrappers.get(id(native))
    context = None if known is None else known()
    return _registered(_with_native(native)) if context is None else context


def _registered(context: Context) -> Context:
    """The Context, or the one already registered for its native Context.

    From then on it is found if its native Context is the current one. A copy that was never entered, or asked for its
    native Context, cannot be current, and needs no entry.
    """
    if context._is_registered:
        return context
    reference = _Reference(context, _forget)
    address = reference.address = id(context._native)
    while True:
        # One step, so that if two threads, or a finaliser in between, make two wrappers, the first stays.
        wrapper = _wrappers.setdefault(address, reference)()
        if wrapper is not None:
            wrapper._is_registered = True
            return wrapper
        _remove_dead_weakref(_wrappers, address)


def _with_native(native: NativeContext) -> Context:
    context: Context = object.__new__(Context)
    context._native = native
    context._is_registered = False
    return context


def new_context() -> Context:
    return _with_native(NativeContext())


def copy_of(context: Context) -> Context:
    return _with_native(copy(context._native))


def current_copy() -> Context:
    return _with_native(copy_current())


def current() -> Context:
    return _wrap(place_of_set())


def native_of(context: Context) -> NativeContext:
    return _registered(context)._native


def run_in(context: Context, callable: Callable[..., R], args: Any, kwargs: Any) -> R:
    _registered(context)
    try:
        return run(context._native, callable, *args, **kwargs)
    except RuntimeError as error:
        _name_our_context(error, context)
        raise
    finally:
        del context, callable, args, kwargs


def enter_context(context: Context) -> None:
    _registered(context)
    try:
        enter(context._native)
    except RuntimeError as error:
        _name_our_context(error, context)
        raise


def leave_context(context: Context) -> None:
    try:
        leave(context._native)
    except RuntimeError as error:
        refuse_to_leave(context, error)
        _name_our_context(error, context)
        raise


def _name_our_context(error: RuntimeError, context: Context) -> None:
    """Make a native Context's refusal name the Context that wraps it; leave any other error as it is."""
    traceback = error.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    # Leave the program's own errors alone.
    ours = traceback and traceback.tb_frame.f_globals.get("__package__") == __package__
    if ours and len(error.args) == 1 and type(error.args[0]) is str:
        for text in (ENTERED, NOT_ENTERED):
            if error.args[0] == text.format(context._native):
                error.args = (text.format(CONTEXT.format(id(context))),)


def contexts_of_threads() -> dict[int, Context] | None:
    """For `snapshot`: the current Contexts of this interpreter's threads, by the number that `get_ident` returns there;
    a thread without one has an empty one. None if only a thread itself can tell."""
    return None


def prepare_thread(state: ThreadState) -> None:
    """Does nothing: the interpreter knows which Context a thread is in."""


# ---- what a Context shows ----


def show_native_variables(shown: bool) -> None:
    """For `install`: make every Context show the native variables set in it, or hide them."""
    global _shows_native_variables
    _shows_native_variables = shown


def shown_values(context: Context) -> Hamt[Any, Any]:
    if not _shows_native_variables:
        return snapshot_of(context)
    # A copy, because another thread may set variables in the Context.
    values = copy(context._native)
    snapshot: Hamt[Any, Any] = values.get(_anchor, EMPTY)
    for variable, value in values.items():
        if variable is not _anchor:
            snapshot = snapshot.set(variable, value)
    return snapshot


def value_in(context: Context, key: Any) -> Any:
    if type(key) is NativeContextVar and _shows_native_variables:
        return ABSENT if key is _anchor else context._native.get(key, ABSENT)
    var = checked_variable(key)
    return snapshot_of(context)._find(var, var._folded, var._hash)


# ---- what an event loop's C code does; no watcher is told ----


def enter_untold(context: Context) -> None:
    """For `entering`."""
    enter(context._native)


def leave_untold(context: Context) -> None:
    """For `entering`."""
    leave(context._native)
