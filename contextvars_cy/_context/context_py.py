"""Context variables after PEP 567, with CPython 3.14's semantics: the reference twin.

A `Context` is a thin wrapper around a *snapshot*, one immutable `Hamt` from `ContextVar` to value. Setting a variable
makes a new snapshot and stores it in the current Context; copying a Context shares its snapshot, in O(1).

Where the current Context is found is the business of the *host*, and the functions between the two rules below are all
the difference between the hosts:

- On the **native** host the snapshot rides inside Python's own context, as the value of one native variable, the
  *anchor*. Whoever copies, enters or leaves a native Context (asyncio does so in C) carries our variables along. Each
  of our Contexts wraps one native Context.
- On the **thread** host every thread has a stack of our own Contexts, its `ThreadState`, as in CPython's `context.c`.
"""

from __future__ import annotations

from _weakref import _remove_dead_weakref  # type: ignore[attr-defined]
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from itertools import count
from sys import getrecursionlimit, modules, setrecursionlimit
from threading import get_ident, local
from types import GenericAlias, TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar, final, overload
from weakref import ref

from .._backend import debug, host
from .._hamt.diff import HamtDiff
from .._hamt.hamt_py import EMPTY, Hamt, iterate
from .._hamt.trie_py import find
from .._sealed import PACKAGE, Sealed, noted
from .._sentinels import ABSENT, MISSING
from .debug import origin, warn_of_shared_default
from .interpreter import (
    TASKS_ARE_NATIVE,
    context_of,
    copy,
    copy_current,
    enter,
    exchanger,
    leave,
    reader,
    replace_init,
    run,
)
from .messages import ASSIGNS, ELSEWHERE, UNSET, refuse_arguments, shown_as, whose
from .standard_library import NativeContext, NativeContextVar, NativeToken

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    from .._features.watch import Watcher, WatchEvent

    P = ParamSpec("P")
    E = TypeVar("E", covariant=True)

    class HamtIterator(Iterator[E]):
        """With the type of its elements. And with a length, as a native Context's: the views that checkers have a
        Mapping return are something else."""

        def __next__(self) -> E: ...

        def __len__(self) -> int: ...
else:
    from .._hamt.hamt_py import HamtIterator

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R")

Snapshot = Hamt["ContextVar[Any]", Any]

_serial = count()
# Whether Contexts show the native variables that are set in them too.
_shows_native_variables = False
# By capabilities, which build on this module: the functions behind methods of ContextVar, and what is called after each
# change while anybody watches.
_implementations: dict[str, Callable[..., Any]] = {}
_tell: Callable[[str, Any, Any, Any], None] | None = None
# The same for changes of values alone, which debug mode notes, too.
_tell_of_change = _tell
_note: Callable[[str, Any, Any, Any], None] | None = None
# The module of this name, from the first Context on that is entered under a loop.
_entering: Any = None
# Each thread's ThreadState, weakly, and what tells of the thread's end.
_threads = local()
_states: dict[int, ThreadState] = {}


@final
class ContextVar(Sealed, Generic[T]):
    """A variable of which every Context holds a value of its own (PEP 567).

    `name` is for people to read; `default` is what `get` returns where the current Context has no value. In its place
    `default_factory`, called without arguments at the first `get` in a Context, makes a value and sets it there: it
    is never shared with a Context that was there before. Create variables at the top level of a module: a Context
    keeps alive every variable that was set in it.

    >>> user = ContextVar("user", default="nobody")
    >>> with user.set("ada"):
    ...     user.get()
    'ada'
    >>> user.get()
    'nobody'
    """

    __slots__ = ("_default", "_default_factory", "_hash", "_name")

    _name: str
    _default: Any
    _default_factory: Callable[[], Any] | None
    _hash: int

    @overload
    def __new__(cls, name: str, /) -> ContextVar[T]: ...

    @overload
    def __new__(cls, name: str, /, *, default: T) -> ContextVar[T]: ...

    @overload
    def __new__(cls, name: str, /, *, default_factory: Callable[[], T]) -> ContextVar[T]: ...

    @shown_as(lambda cls, name, /, *, default=..., default_factory=None: None)
    def __new__(
        cls, name: Any = ABSENT, /, *more: Any, default: Any = ABSENT, default_factory: Any = None, **unknown: Any
    ) -> ContextVar[T]:
        if name is ABSENT or more or unknown:
            refuse_arguments((name is not ABSENT) + len(more), unknown)
        if not isinstance(name, str):
            raise TypeError("context variable name must be a str")
        # Only for its error: the standard library refuses a name that has no hash, so this does too.
        hash(name)
        if default_factory is not None:
            if default is not ABSENT:
                raise TypeError("ContextVar() takes a default or a default_factory, not both")
            if not callable(default_factory):
                raise TypeError(f"default_factory must be callable, not {default_factory!r}")
        if debug:
            warn_of_shared_default(name, default)
        self = object.__new__(cls)
        self._name = name
        self._default = default
        self._default_factory = default_factory
        # Numbers in a row put the first 32 variables in one node of the trie, without a collision.
        self._hash = next(_serial)
        return self

    @property
    def name(self) -> str:
        """The name that the variable was created with."""
        return self._name

    @overload
    def get(self, /) -> T: ...

    @overload
    def get(self, default: D, /) -> T | D: ...

    def get(self, default: Any = ABSENT, /) -> Any:
        """Return the variable's value in the current Context. O(log n) in the number of variables set there.

        Where there is none: the argument, else the variable's own default, or what its `default_factory` makes and
        this sets, else LookupError.

        >>> ContextVar("colour", default="blue").get()
        'blue'
        >>> ContextVar("colour", default="blue").get("red")
        'red'
        >>> seen = ContextVar("seen", default_factory=list)
        >>> seen.get().append("red")
        >>> seen.get(), Context().run(seen.get)
        (['red'], [])
        """
        value = find(_load()._root, self._hash, self)
        if value is not ABSENT:
            return value
        if default is not ABSENT:
            return default
        if self._default is not ABSENT:
            return self._default
        if self._default_factory is not None:
            return _make_default(self)
        raise noted(LookupError(self), UNSET)

    def is_set(self) -> bool:
        """Whether the current Context has a value for the variable; a default is none. O(log n).

        >>> colour = ContextVar("colour", default="blue")
        >>> with colour.set("red"):
        ...     colour.is_set()
        True
        >>> colour.is_set()
        False
        """
        return find(_load()._root, self._hash, self) is not ABSENT

    def set(self, value: T, /) -> Token[T]:
        """Set the variable in the current Context and return a Token that undoes it. O(log n).

        The Token is for `reset`, or undoes the set itself at the end of a `with` block.

        >>> colour = ContextVar("colour")
        >>> token = colour.set("blue")
        >>> colour.get()
        'blue'
        >>> colour.reset(token)
        """
        token: Token[T] = object.__new__(Token)
        token._var = self
        token._used = False
        if debug:
            token._origin = origin()
        _update(self, value, token)
        # Looked at once, because another thread may cancel.
        tell = _tell_of_change
        if tell is not None:
            tell("unset" if value is ABSENT else "set", self, token._old_value, value)
        return token

    def unset(self) -> Token[T]:
        """Take the variable's value out of the current Context and return a Token that undoes it. O(log n).

        >>> colour = ContextVar("colour", default="blue")
        >>> token = colour.set("red")
        >>> with colour.unset():
        ...     colour.get()
        'blue'
        >>> colour.get()
        'red'
        """
        return self.set(ABSENT)  # type: ignore[arg-type]

    def reset(self, token: Token[T], /) -> None:
        """Give the variable back the value it had before the `set` that made the token. O(log n).

        TypeError for what is no Token, RuntimeError for a token that was used already, ValueError for one that was
        made by another variable or in another Context; after any of these nothing has changed. In debug mode, under
        `python -X dev` or with `CONTEXTVARS_CY_DEBUG=1`, the error says where the token was made.

        >>> colour = ContextVar("colour")
        >>> token = colour.set("blue")
        >>> colour.reset(token)
        >>> colour.get("none")
        'none'
        """
        if type(token) is not Token:
            raise TypeError(f"expected an instance of Token, got {token!r}{whose(token)}")
        # Comes first, because it may run a finaliser, which may use the token.
        here = _here(token)
        if token._used:
            raise RuntimeError(f"{token!r} has already been used once{_made_where(token)}")
        if token._var is not self:
            raise ValueError(f"{token!r} was created by a different ContextVar{_made_where(token)}")
        if token._context is not here:
            raise noted(ValueError(f"{token!r} was created in a different Context{_made_where(token)}"), ELSEWHERE)
        _undo(token)

    def try_reset(self, token: Token[T], /) -> bool:
        """As `reset`, but False, and nothing changed, where the token was made in another Context; else True. O(log n).

        For cleaning up what may be done by somebody else: the finaliser of an async generator, a callback, the end of a
        task that was cancelled. CPython issue 118944 tells of it.

        >>> colour = ContextVar("colour")
        >>> token = colour.set("blue")
        >>> copy_context().run(colour.try_reset, token)
        False
        >>> colour.try_reset(token)
        True
        """
        if type(token) is Token and token._var is self and not token._used and token._context is not _here(token):
            return False
        self.reset(token)
        return True

    def watch(self, callback: Callable[[WatchEvent], object], /) -> Watcher:
        """Call `callback(event)` after each change of this variable's value, with a `WatchEvent`. O(1).

        Returns a `Watcher`, whose `cancel()`, or a `with` block, ends it. Of a Context that is entered, left or
        switched to it tells where the value changes. See `contextvars_cy.watch`, which tells of all variables.

        >>> colour = ContextVar("colour", default="blue")
        >>> with colour.watch(lambda event: print(event.kind, event.value)):
        ...     with colour.set("red"):
        ...         Context().run(colour.get)
        set red
        enter <Token.MISSING>
        exit red
        'blue'
        reset <Token.MISSING>
        """
        return _implementations["watch"](self, callback)  # type: ignore[no-any-return]

    def proxy(self) -> T:
        """Return an object that stands for the variable's value, whichever that is at the moment.

        Attributes, items, calls and operators of the `Proxy` are the value's; where there is none, they raise a
        LookupError that says so. After the LocalProxy of werkzeug.

        >>> user = ContextVar("user", default="nobody")
        >>> current_user = user.proxy()
        >>> with user.set("ada"):
        ...     current_user.upper(), current_user + "!", f"{current_user:>5}"
        ('ADA', 'ada!', '  ada')
        >>> current_user == "nobody"
        True
        """
        # Whatever a T may do, this does.
        return _implementations["proxy"](self)  # type: ignore[no-any-return]

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        default = "" if self._default is ABSENT else f" default={self._default!r}"
        if self._default_factory is not None:
            default = f" default_factory={self._default_factory!r}"
        return f"<ContextVar name={self._name!r}{default} at {id(self):#x}>"

    __class_getitem__ = classmethod(GenericAlias)  # type: ignore[var-annotated]


def _make_default(var: ContextVar[T]) -> T:
    value = var._default_factory()  # type: ignore[misc]
    token = var.set(value)
    if token._old_value is ABSENT:
        return value  # type: ignore[no-any-return]
    # The factory has set the variable, or a finaliser has in the meantime: the first value stays.
    var.reset(token)
    return token._old_value  # type: ignore[no-any-return]


@final
class Token(Sealed, Generic[T]):
    """What `ContextVar.set` returns: the variable, its old value, and the Context in which it was set (PEP 567).

    A Token can be used once, by `ContextVar.reset` or as a context manager.

    >>> colour = ContextVar("colour")
    >>> with colour.set("blue") as token:
    ...     token.var is colour, token.old_value
    (True, <Token.MISSING>)
    """

    __slots__ = ("_context", "_old_value", "_origin", "_used", "_var")

    MISSING: Final = MISSING
    """What `old_value` is where the variable had no value."""

    # None where it belongs to an Assignment.
    _var: Any
    _old_value: Any
    _context: object
    _used: bool
    # Where it was made, in debug mode.
    _origin: str

    def __new__(cls, *args: NoReturn, **kwargs: NoReturn) -> Token[T]:
        raise RuntimeError("Tokens can only be created by ContextVars")

    @property
    def var(self) -> ContextVar[T]:
        """The variable that was set."""
        return self._var  # type: ignore[no-any-return]

    @property
    def old_value(self) -> T | Any:
        """The value that the variable had before, or `Token.MISSING`."""
        return MISSING if self._old_value is ABSENT else self._old_value

    def __enter__(self) -> Token[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        try:
            self._var.reset(self)
        except RecursionError:
            if self._used:
                raise
            _with_more_room(self._var.reset, self)

    def __repr__(self) -> str:
        return f"<Token{' used' if self._used else ''} var={self._var!r} at {id(self):#x}>"

    __hash__ = None  # type: ignore[assignment]

    __class_getitem__ = classmethod(GenericAlias)  # type: ignore[var-annotated]


def _made_where(token: Token[Any]) -> str:
    return f"; it was made {token._origin}" if debug else ""


def _with_more_room(undo: Callable[..., None], *args: Any) -> None:
    """For the end of a `with` block where the stack ends, which a C function would reach all the same."""
    limit = getrecursionlimit()
    setrecursionlimit(limit + 100)
    try:
        undo(*args)
    finally:
        setrecursionlimit(limit)


def _undo(token: Token[Any]) -> None:
    tell = _tell_of_change
    token._used = True
    try:
        before = tell and _old_value(_load(), token._var, token._old_value)
        _update(token._var, token._old_value, None)
    except BaseException:
        # Out of memory, or interrupted: the token can be used again.
        token._used = False
        raise
    if tell is not None:
        tell("reset", token._var, before, token._old_value)


@final
class Assignment(Sealed):
    """What `assign` returns: it undoes that, by `undo` or at the end of a `with` block, once.

    >>> colour = ContextVar("colour", default="blue")
    >>> with assign({colour: "red"}):
    ...     colour.get()
    'red'
    >>> colour.get()
    'blue'
    """

    __slots__ = ("_token",)

    # Of no variable; its old value is what the variables had, in a dict, with ABSENT for those that had none.
    _token: Token[Any]

    def __new__(cls, *args: NoReturn, **kwargs: NoReturn) -> Assignment:
        raise RuntimeError("Assignments can only be created by assign()")

    def undo(self) -> None:
        """Give every variable back the value it had before: all of them, or on an error none. O(m log n).

        RuntimeError where it was undone already, ValueError in another Context than that of the `assign`.

        >>> colour = ContextVar("colour", default="blue")
        >>> assignment = assign({colour: "red"})
        >>> assignment.undo()
        >>> colour.get()
        'blue'
        """
        # Comes first, as in `reset`.
        here = _here(self._token)
        if self._token._used:
            raise RuntimeError(f"{self!r} has already been undone{_made_where(self._token)}")
        if self._token._context is not here:
            raise ValueError(f"{self!r} was made in a different Context{_made_where(self._token)}")
        _undo(self._token)

    def __enter__(self) -> Assignment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        try:
            self.undo()
        except RecursionError:
            if self._token._used:
                raise
            _with_more_room(self.undo)

    def __repr__(self) -> str:
        return f"<Assignment{' undone' if self._token._used else ''} at {id(self):#x}>"

    __hash__ = None  # type: ignore[assignment]


# Of a union, mypy takes no type for the keys of a dict of different variables.
@overload
def assign(values: Mapping[ContextVar[Any], Any], /) -> Assignment: ...


@overload
def assign(values: Iterable[tuple[ContextVar[Any], Any]], /) -> Assignment: ...


@shown_as(lambda values, /: None)
def assign(values: Any = ABSENT, /, *more: Any) -> Assignment:
    """Set many variables in the current Context at once: all of them, or on an error none. O(m log n) for m of n.

    `values` is a mapping from ContextVar to value, or what `dict` takes. TypeError for a key that is no ContextVar.
    Returns an `Assignment`, which undoes all as one, by `undo` or at the end of a `with` block. Faster than as many
    calls of `ContextVar.set` from three variables on.

    >>> user, tenant = ContextVar("user", default="nobody"), ContextVar("tenant")
    >>> with assign({user: "ada", tenant: "acme"}):
    ...     user.get(), tenant.get()
    ('ada', 'acme')
    >>> user.get(), tenant.get(None)
    ('nobody', None)
    """
    if values is ABSENT or more:
        raise TypeError(f"{ASSIGNS}, not {(values is not ABSENT) + len(more)} arguments")
    if type(values) is ContextVar or type(values) is tuple and values and type(values[0]) is ContextVar:
        raise TypeError(f"{ASSIGNS}, not a {type(values).__name__}")
    changes: dict[ContextVar[Any], Any] = dict(values)
    for var in changes:
        _checked(var)
    assignment = object.__new__(Assignment)
    token: Token[Any] = object.__new__(Token)
    assignment._token = token
    token._var = None
    token._used = False
    if debug:
        token._origin = origin()
    _update(None, changes, token)
    tell = _tell_of_change
    if tell is not None:
        tell("set", None, token._old_value, changes)
    return assignment


if TYPE_CHECKING:

    class _Mapping(Sealed, Mapping[ContextVar[Any], Any]): ...
else:
    # Registered as a Mapping below, which as a base would bring methods of its own.
    _Mapping = Sealed


@final
class Context(_Mapping):
    """A mapping from every ContextVar that was set in it to its value (PEP 567).

    `Context()` is empty; `copy_context()` copies the current one. Code runs in a Context by `run`, or in the body of
    `with context:`. A Context can be entered once at a time; what the code sets stays in it. The body of the `with`
    has to end before anything is awaited or yielded: what goes on then would find itself in this Context.

    >>> colour = ContextVar("colour", default="blue")
    >>> context = Context()
    >>> with context:
    ...     token = colour.set("red")
    >>> colour.get(), context[colour]
    ('blue', 'red')
    """

    # `interpreter` and `_is_registered` belong to the native host, the others to the thread host. Whoever enters it
    # takes the second element of `_idle`: of two threads one finds it gone, and a list of two needs no memory to have
    # it back. The Contexts that a thread is in are linked by `_before`; a base Context, which nobody entered, knows
    # its thread.
    __slots__ = ("__weakref__", "_before", "_home", "_idle", "_is_registered", "_native", "_snapshot")

    _native: NativeContext
    _is_registered: bool
    _snapshot: Snapshot
    _before: Context | None
    _home: Callable[[], ThreadState | None] | None
    _idle: list[None]

    @shown_as(lambda cls: None)
    def __new__(cls, *args: NoReturn, **kwargs: NoReturn) -> Context:
        if args or kwargs:
            raise TypeError("Context() does not accept any arguments")
        return _new_context()

    @property
    def native(self) -> NativeContext:
        """The native Context that this one wraps, for an API that insists on the real type; native host only."""
        if host == "thread":
            raise AttributeError("a Context of the thread host wraps no native one; set CONTEXTVARS_CY_HOST=native")
        return _registered(self)._native

    def run(self, callable: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `callable(*args, **kwargs)` in this Context and return its result; O(1) beside the call.

        RuntimeError where the Context is entered already, in this thread or another.

        >>> colour = ContextVar("colour")
        >>> context = copy_context()
        >>> token = context.run(colour.set, "red")
        >>> context[colour]
        'red'
        """
        try:
            return (_run if _tell is None else _run_and_tell)(self, callable, args, kwargs)
        finally:
            # An exception's traceback keeps the frames that called. If one of those kept the callable, a task that has
            # failed, and holds its exception, would hold itself.
            del self, callable, args, kwargs

    def copy(self) -> Context:
        """Return a Context with the same values. O(1).

        >>> Context().copy() == Context()
        True
        """
        return _copy(self)

    @overload
    def get(self, key: ContextVar[T], /) -> T | None: ...

    @overload
    def get(self, key: ContextVar[T], default: T, /) -> T: ...

    @overload
    def get(self, key: ContextVar[T], default: D, /) -> T | D: ...

    def get(self, key: ContextVar[Any], default: Any = None, /) -> Any:
        """Return the value of the variable in this Context, or the default. O(log n). The variable's own default
        plays no part.

        >>> Context().get(ContextVar("colour", default="blue"))
        """
        value = _value_in(self, key)
        return default if value is ABSENT else value

    def keys(self) -> HamtIterator[ContextVar[Any]]:  # type: ignore[override]  # pyright: ignore
        """Return an iterator over the variables; O(n).

        >>> list(Context().keys())
        []
        """
        return iterate(_shown(self), "keys")  # type: ignore[return-value]

    def values(self) -> HamtIterator[Any]:  # type: ignore[override]  # pyright: ignore
        """Return an iterator over the values; O(n).

        >>> list(Context().values())
        []
        """
        return iterate(_shown(self), "values")  # type: ignore[return-value]

    def items(self) -> HamtIterator[tuple[ContextVar[Any], Any]]:  # type: ignore[override]  # pyright: ignore
        """Return an iterator over the (variable, value) pairs; O(n).

        >>> list(Context().items())
        []
        """
        return iterate(_shown(self), "items")  # type: ignore[return-value]

    def diff(self, other: Context, /) -> HamtDiff:
        """Return what turns this Context's values into the other's, as a `HamtDiff`: added, removed and changed.

        Values are compared by identity first, then by `==`. Of a Context and its copy it takes the time of their
        difference, else O(n). TypeError for what is no Context.

        >>> colour = ContextVar("colour", default="blue")
        >>> before = copy_context()
        >>> with colour.set("red"):
        ...     before.diff(current_context()).added == {colour: "red"}
        True
        """
        return _shown(self).diff(_shown(_checked_context(other)))

    def __getitem__(self, key: ContextVar[T], /) -> T:
        value = _value_in(self, key)
        if value is ABSENT:
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def __contains__(self, key: object, /) -> bool:
        return _value_in(self, key) is not ABSENT

    def __len__(self) -> int:
        return len(_shown(self))

    def __iter__(self) -> HamtIterator[ContextVar[Any]]:
        return self.keys()

    def __eq__(self, other: object, /) -> bool:
        if type(other) is not Context:
            return NotImplemented
        # Not looked at twice, since another thread may be setting variables in it.
        return other is self or _shown(self) == _shown(other)

    __hash__ = None  # type: ignore[assignment]
    __reversed__ = None

    def __enter__(self) -> Context:
        _about_to_enter(self)
        (_enter if _tell is None else _enter_and_tell)(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        (_leave if _tell is None else _leave_and_tell)(self)

    def __repr__(self) -> str:
        return f"<contextvars_cy.Context object at {id(self):#x}>"


def _value_in(context: Context, key: Any) -> Any:
    if type(key) is NativeContextVar and _shows_native_variables:
        return ABSENT if key is _anchor else context._native.get(key, ABSENT)
    var = _checked(key)
    return _snapshot_of(context)._find(var, var._hash)


def _shown(context: Context) -> Hamt[Any, Any]:
    return _with_native_variables(context) if _shows_native_variables else _snapshot_of(context)


def _with_native_variables(context: Context) -> Hamt[Any, Any]:
    # A copy, because another thread may be setting variables in the Context.
    values = copy(context._native)
    snapshot: Hamt[Any, Any] = values.get(_anchor, EMPTY)
    for variable, value in values.items():
        if variable is not _anchor:
            snapshot = snapshot.set(variable, value)
    return snapshot


def _checked(key: object) -> ContextVar[Any]:
    if type(key) is not ContextVar:
        raise TypeError(f"a ContextVar key was expected, got {key!r}{whose(key)}")
    return key


@final
class ThreadState(Sealed):
    """Where one thread's current Context is found; `thread_state()` returns the calling thread's.

    For schedulers and interpreters of one's own, which enter and leave Contexts in other places than a `with` block:

    >>> state, context = thread_state(), Context()
    >>> state.enter(context)
    >>> state.context is context
    True
    >>> state.exit(context)
    """

    # Both belong to the thread host; the base Context is the one that nobody entered.
    __slots__ = ("__weakref__", "_base", "_current")

    _base: Context
    _current: Context

    def __new__(cls, *args: NoReturn, **kwargs: NoReturn) -> ThreadState:
        raise RuntimeError("a thread has one ThreadState; ask thread_state() for it")

    @property
    def context(self) -> Context:
        """The thread's current Context itself, as `current_context()` returns it."""
        self._check_thread()
        return _current()

    def enter(self, context: Context, /) -> None:
        """Make the Context the current one, on top of those entered before. O(1).

        RuntimeError where it is entered already, in this thread or another.
        """
        self._check_thread()
        _about_to_enter(_checked_context(context))
        (_enter if _tell is None else _enter_and_tell)(context)

    def exit(self, context: Context, /) -> None:
        """Make the Context that was current before this one the current one again. O(1).

        RuntimeError where this one is not the current Context, so exits out of order are refused.
        """
        self._check_thread()
        (_leave if _tell is None else _leave_and_tell)(_checked_context(context))

    def _check_thread(self) -> None:
        if self is not thread_state():
            raise RuntimeError(f"{self!r} belongs to another thread; call thread_state() in this one")


def _checked_context(context: object) -> Context:
    if type(context) is not Context:
        raise TypeError(f"an instance of Context was expected{whose(context)}")
    return context


def thread_state() -> ThreadState:
    """Return the calling thread's ThreadState; it is made at the first call and gone with its thread. O(1).

    >>> thread_state() is thread_state()
    True
    """
    try:
        state = _threads.state()
    except AttributeError:
        state = None
    return _make_thread_state() if state is None else state


def _make_thread_state() -> ThreadState:
    thread = get_ident()
    made = object.__new__(ThreadState)
    _equip(made)
    end = _threads.__dict__.setdefault("end", _ThreadEnd(thread))
    while True:
        # One step: an interrupt leaves a whole one or none, and where a finaliser has made one meanwhile, that stays.
        state = end.__dict__.setdefault("state", ref(made))()
        if state is not None:
            break
        _remove_dead_weakref(end.__dict__, "state")
    # In the place of one that has ended, whose number this thread has now.
    _states[thread] = state
    _threads.state = end.state
    return state  # type: ignore[no-any-return]


class _ThreadEnd:
    """Goes when its thread ends, and takes the ThreadState along.

    Finalisers that run later may make another one. The interpreter does not come back to `_threads` for that thread, so
    what is there is left behind. It is a weak reference: the state itself goes when the thread's number is given again.
    """

    state: Callable[[], ThreadState | None] = staticmethod(lambda: None)

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def __del__(self) -> None:
        state = self.state()
        if state is not None and _states.get(self._thread) is state:
            del _states[self._thread]


def current_context() -> Context:
    """Return the current Context itself, not a copy: what is set later shows in it. O(1).

    On the thread host a Context is always the same object. On the native host two calls in one Context return the same
    object for as long as somebody holds the first; after that another object may stand for the same Context. It
    compares equal then, and tokens, which remember the native Context, do not mind.

    >>> colour = ContextVar("colour")
    >>> context = current_context()
    >>> with colour.set("red"):
    ...     context[colour], current_context() is context
    ('red', True)
    """
    return _current()


def copy_context() -> Context:
    """Return a copy of the current Context. O(1).

    >>> copy_context() == current_context()
    True
    """
    return _copy_current()


# ---- the hosts: how a snapshot is found and stored, and how Contexts are made, entered and left ----

if host == "native":
    _anchor: NativeContextVar[Snapshot] = NativeContextVar("contextvars_cy")

    # The native Context's address to its wrapper. A wrapper keeps its native Context alive, so the address stays its
    # own for as long as the wrapper lives; kept in the native Context itself, the wrapper would be a reference cycle.
    # No WeakValueDictionary, whose setdefault is several steps.
    _wrappers: dict[int, _Reference] = {}

    class _Reference(ref[Context]):
        __slots__ = ("address",)

        address: int

    def _forget(reference: _Reference) -> None:
        # It has no address where the memory ran out before it had one.
        _remove_dead_weakref(_wrappers, getattr(reference, "address", None))

    def _wrap(native: NativeContext) -> Context:
        known = _wrappers.get(id(native))
        context = None if known is None else known()
        return _registered(_with_native(native)) if context is None else context

    def _registered(context: Context) -> Context:
        """The Context, or the one that is known already for its native one.

        It can be found from then on, by whoever finds the native one to be the current one. A copy that nobody has
        entered, or asked for its native Context, cannot be that, and needs no place here.
        """
        if context._is_registered:
            return context
        reference = _Reference(context, _forget)
        address = reference.address = id(context._native)
        while True:
            # One step, so that of two wrappers, made by two threads or by a finaliser in between, the first stays.
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

    _load = reader(_anchor, EMPTY)
    _exchange = exchanger(_anchor, EMPTY)

    def _update(var: ContextVar[Any] | None, value: Any, token: Token[Any] | None) -> None:
        native_tokens: list[NativeToken[Snapshot]] = []
        snapshot = changed = EMPTY
        old_value: Any = ABSENT
        try:
            # Again, if a signal handler or a finaliser has set a variable in the meantime.
            while not native_tokens:
                snapshot = _load()
                old_value = _old_value(snapshot, var, value)
                changed = _with(snapshot, var, value)
                _exchange(native_tokens, snapshot, changed)
            if token is not None:
                # Not the native token, which keeps the whole old snapshot alive.
                token._old_value, token._context = old_value, context_of(native_tokens[0])
        except BaseException:
            # Without a token CPython may have had no memory for it, after it had set the variable.
            if changed is not snapshot and (native_tokens or _load() is changed):
                _take_back(snapshot, changed)
            raise

    def _take_back(snapshot: Snapshot, changed: Snapshot) -> None:
        """Undo the change, and nothing that was set on top of it."""
        native_tokens: list[NativeToken[Snapshot]] = []
        while not native_tokens:
            found = _load()
            _exchange(native_tokens, found, _with_changes(snapshot, changed, found))

    def _here(token: Token[Any] | None = None) -> Any:
        native_tokens: list[NativeToken[Snapshot]] = []
        while not native_tokens:
            snapshot = _load()
            _exchange(native_tokens, snapshot, snapshot)
        return context_of(native_tokens[0])

    def _with_changes(snapshot: Snapshot, before: Snapshot, after: Snapshot) -> Snapshot:
        """The snapshot with what turned the one that was before into the one after: who set it knew nothing of this."""
        for var, value in after.items():
            if find(before._root, var._hash, var) is not value:
                snapshot = _with(snapshot, var, value)
        for var in before:
            if find(after._root, var._hash, var) is ABSENT:
                snapshot = _with(snapshot, var, ABSENT)
        return snapshot

    def _current() -> Context:
        return _wrap(_here())

    def _equip(state: ThreadState) -> None:
        pass

    def _snapshot_of(context: Context) -> Snapshot:
        return context._native.get(_anchor, EMPTY)

    def _new_context() -> Context:
        return _with_native(NativeContext())

    def _copy(context: Context) -> Context:
        return _with_native(copy(context._native))

    def _copy_current() -> Context:
        return _with_native(copy_current())

    def _run(context: Context, callable: Callable[..., R], args: Any, kwargs: Any) -> R:  # pyright: ignore
        _registered(context)
        try:
            return run(context._native, callable, *args, **kwargs)
        except RuntimeError as error:
            _name_our_context(error, context)
            raise
        finally:
            del context, callable, args, kwargs

    def _enter(context: Context) -> None:
        _registered(context)
        try:
            enter(context._native)
        except RuntimeError as error:
            _name_our_context(error, context)
            raise

    def _leave(context: Context) -> None:
        try:
            leave(context._native)
        except RuntimeError as error:
            if _entering is not None:
                _entering.refuse_to_leave(context, error)
            _name_our_context(error, context)
            raise

    def enter_native(context: Context) -> None:
        """For `entering`: what an event loop's C code does, and nobody is told."""
        enter(context._native)

    def leave_native(context: Context) -> None:
        """For `entering`: what an event loop's C code does, and nobody is told."""
        leave(context._native)

    def _name_our_context(error: RuntimeError, context: Context) -> None:
        """Have the refusal of a native Context name the Context that wraps it, and any other error as it is."""
        traceback = error.__traceback__
        while traceback and traceback.tb_next:
            traceback = traceback.tb_next
        # What the program itself has raised is the program's.
        ours = traceback and traceback.tb_frame.f_globals.get("__package__") == __package__
        if ours and len(error.args) == 1 and type(error.args[0]) is str:
            for text in (_ENTERED, _NOT_ENTERED):
                if error.args[0] == text.format(context._native):
                    error.args = (text.format(context),)

else:
    # When the interpreter ends, this module is gone before the thread's values are finalised, unless the thread has it.
    NativeContextVar[Any]("contextvars_cy threads").set((_threads, _states))

    def _load() -> Snapshot:
        try:
            return _threads.state()._current._snapshot  # type: ignore[no-any-return]
        except AttributeError:
            return thread_state()._current._snapshot

    def _update(var: ContextVar[Any] | None, value: Any, token: Token[Any] | None) -> None:
        context = _here()
        while True:
            snapshot = context._snapshot
            old_value = _old_value(snapshot, var, value)
            changed = _with(snapshot, var, value)
            # Without a call between them, no signal handler or finaliser comes between the test and the store.
            if context._snapshot is snapshot:
                if token is not None:
                    token._old_value, token._context = old_value, context
                context._snapshot = changed
                return

    def _here(token: Token[Any] | None = None) -> Any:
        context = _current()
        # A token from elsewhere is refused for that.
        if context is thread_state()._base and (token is None or token._context is context):
            _refuse_event_loop()
        return context

    def _refuse_event_loop() -> None:
        """A thread's base Context is every task's; a value set there by one would leak to all, in silence."""
        if _running_loop() is not None:
            raise RuntimeError(_LEAK)

    def _current() -> Context:
        return thread_state()._current

    def _equip(state: ThreadState) -> None:
        state._base = state._current = _new_context()
        state._base._home = ref(state)

    def _snapshot_of(context: Context) -> Snapshot:
        return context._snapshot

    def _new_context() -> Context:
        return _with_snapshot(EMPTY)

    def _with_snapshot(snapshot: Snapshot) -> Context:
        context: Context = object.__new__(Context)
        context._snapshot = snapshot
        context._before = context._home = None
        context._idle = [None, None]
        return context

    def _copy(context: Context) -> Context:
        return _with_snapshot(context._snapshot)

    def _copy_current() -> Context:
        return _with_snapshot(_load())

    # The interpreter looks for signals, and for exceptions that other threads have sent, when a function begins and
    # after each call (before Python 3.10, and on PyPy, anywhere). So a Context is entered and left without a call, as a
    # whole or not at all; and the branch to the error stands last, because Python 3.10 looks after a jump too.

    def _run(context: Context, callable: Callable[..., R], args: Any, kwargs: Any) -> R:
        state = thread_state()
        before = state._current
        _check_home(context, state)
        try:
            del context._idle[1]
        except IndexError:
            raise RuntimeError(_ENTERED.format(context)) from None
        context._before = before
        state._current = context
        try:
            return callable(*args, **kwargs)
        finally:
            del callable, args, kwargs
            if state._current is context and context._before is not None:
                state._current = context._before
                context._before = None
                context._idle += (None,)
                del context, before
            else:
                raise _refusal_to_leave(context)

    def _enter(context: Context) -> None:
        state = thread_state()
        before = state._current
        _check_home(context, state)
        try:
            del context._idle[1]
        except IndexError:
            raise RuntimeError(_ENTERED.format(context)) from None
        context._before = before
        state._current = context

    def _leave(context: Context) -> None:
        state = thread_state()
        if state._current is context and context._before is not None:
            state._current = context._before
            context._before = None
            context._idle += (None,)
        else:
            raise _refusal_to_leave(context)

    def _check_home(context: Context, state: ThreadState) -> None:
        """Refuse another thread's base Context: it is entered by that thread for as long as that lives."""
        home = context._home and context._home()
        if home is not None and home is not state:
            raise RuntimeError(_ENTERED.format(context))

    def _refusal_to_leave(context: Context) -> RuntimeError:
        refusal = RuntimeError(_NOT_ENTERED.format(context) if context._before is None else _DIFFERENT)
        if _entering is not None:
            _entering.refuse_to_leave(context, refusal)
        return refusal


def _old_value(snapshot: Snapshot, var: ContextVar[Any] | None, value: Any) -> Any:
    """The variable's value, or ABSENT; without a variable those of all that the dict names, in a dict."""
    if var is None:
        return {key: find(snapshot._root, key._hash, key) for key in value}
    return find(snapshot._root, var._hash, var)


def _with(snapshot: Snapshot, var: ContextVar[Any] | None, value: Any) -> Snapshot:
    """The snapshot with the variable set, or unset where the value is ABSENT; without a variable all in the dict."""
    if var is None:
        for changed, new_value in value.items():
            snapshot = _with(snapshot, changed, new_value)
        return snapshot
    if value is ABSENT:
        return snapshot._discard(var, var._hash)
    return snapshot._set(var, var._hash, value)


def _running_loop() -> Any:
    events = modules.get("asyncio.events")
    # While asyncio is being imported, the function is not there yet, and no loop runs.
    running_loop = getattr(events, "_get_running_loop", None)
    return None if running_loop is None else running_loop()


def _about_to_enter(context: Context) -> None:
    """Before, because an interrupt after it would leave the Context entered."""
    global _entering
    loop = _running_loop()
    # An asynchronous test does without a loop what it would do in one.
    if loop is not None or "unittest.async_case" in modules:
        if _entering is None:
            from . import entering as module

            _entering = module
        _entering.about_to_enter(context, loop)


def implement(method: str, function: Callable[..., Any]) -> None:
    """For capabilities: what `ContextVar.watch` or `ContextVar.proxy` calls. To import that would fail when the
    interpreter ends."""
    _implementations[method] = function


def tell_changes_to(tell: Callable[[str, ContextVar[Any] | None, Any, Any], None] | None) -> None:
    """For `watch`: have `tell(kind, variable, old, new)` called after each change from now on; None ends that."""
    global _tell, _tell_of_change
    note, _tell = _note, tell
    if note is None or tell is None:
        _tell_of_change = note or tell
        return

    def note_and_tell(kind: str, var: Any, old: Any, new: Any) -> None:
        note(kind, var, old, new)
        tell(kind, var, old, new)

    _tell_of_change = note_and_tell


def note_changes_by(note: Callable[[str, Any, Any, Any], None], look: Callable[[ContextVar[Any]], None]) -> None:
    """For debug mode: have `note(kind, variable, old, new)` called after each change of values, and `look(variable)`
    before each `get`."""
    global _note
    _note = note
    tell_changes_to(_tell)
    get: Any = ContextVar.get

    @wraps(get)
    def get_after_look(self: ContextVar[Any], *default: Any) -> Any:
        look(self)
        return get(self, *default)

    ContextVar.get = get_after_look  # type: ignore[method-assign]


def show_native_variables(shown: bool) -> None:
    """For `install`, on the native host: have every Context show the native variables that are set in it, or not."""
    global _shows_native_variables
    _shows_native_variables = shown


def in_native_context(function: Callable[..., R]) -> Callable[..., R]:
    """For event loops: the function, given the native Context for one of ours that is its argument `context`."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> R:
        context = options.get("context")
        if type(context) is Context:
            options["context"] = context.native
        return function(*args, **options)

    return call


def give_tasks_native_contexts(cls: Any) -> None:
    """For event loops: the same for this class of asyncio's tasks, if it takes native Contexts alone."""
    init = cls.__init__

    @wraps(init)
    def __init__(self: Any, *args: Any, **options: Any) -> None:
        context = options.get("context")
        if type(context) is Context and (TASKS_ARE_NATIVE or options.get("eager_start")):
            options["context"] = context.native
        init(self, *args, **options)
        # In asyncio's debug mode a task knows the stack that it was made on, of which this function is no part.
        if self._source_traceback:
            del self._source_traceback[-1]

    replace_init(cls, __init__)


def _run_and_tell(context: Context, callable: Callable[..., R], args: Any, kwargs: Any) -> R:
    entered: list[Context] = []
    try:
        told = (entered, _current(), context, callable, args, kwargs)
        return _run(context, _call_and_tell, told, {})  # type: ignore[no-any-return]
    finally:
        tell = _tell
        if entered and tell is not None:
            tell("exit", None, context, None)
        # As in `Context.run`.
        del context, callable, args, kwargs, entered


def _call_and_tell(
    entered: list[Context], left: Context, context: Context, callable: Callable[..., R], args: Any, kwargs: Any
) -> R:
    entered.append(context)
    try:
        tell = _tell
        if tell is not None:
            tell("enter", None, left, context)
        return callable(*args, **kwargs)
    finally:
        del context, callable, args, kwargs, left, entered


def _enter_and_tell(context: Context) -> None:
    left = _current()
    tell = _tell
    _enter(context)
    try:
        if tell is not None:
            tell("enter", None, left, context)
    except BaseException:
        # An interrupt, or no room on the stack: nobody else would leave it.
        _leave(context)
        raise


def _leave_and_tell(context: Context) -> None:
    _leave(context)
    tell = _tell
    if tell is not None:
        tell("exit", None, context, None)


_ENTERED: Final = "cannot enter context: {} is already entered"
_NOT_ENTERED: Final = "cannot exit context: {} has not been entered"
_DIFFERENT: Final = "cannot exit context: thread state references a different context object"
_LEAK: Final = (
    "a context variable was set under a running asyncio event loop, in the thread's base Context: on the thread host "
    "every task would see it. Use the native host, which follows event loops (CONTEXTVARS_CY_HOST=native), or set it "
    "in a Context of your own (Context.run)"
)

# ---- end of the hosts ----

Mapping.register(Context)  # pyright: ignore[reportAttributeAccessIssue]
for _public in (
    ContextVar,
    Token,
    Assignment,
    assign,
    Context,
    ThreadState,
    thread_state,
    current_context,
    copy_context,
):
    _public.__module__ = PACKAGE
