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
from .._hamt.hamt_py import Hamt, iterate
from .._hamt.trie_py import find
from .._sealed import Sealed, noted, published
from .._sentinels import ABSENT, MISSING
from .debug import origin, warn_of_shared_default
from .interpreter import (
    TASKS_ARE_NATIVE,
    replace_init,
)
from .messages import ASSIGNS, ELSEWHERE, UNSET, has_pairs, refuse_arguments, shown_as, whose
from .standard_library import NativeContext

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
_threads: Any = local()
_states: dict[int, ThreadState] = {}


@published
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
        value = find(current_snapshot()._root, self._hash, self)
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
        return find(current_snapshot()._root, self._hash, self) is not ABSENT

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
        update(self, value, token)
        _report(_tell_of_change, "unset" if value is ABSENT else "set", self, token._old_value, value)
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
        here = place_of_set(token)
        if token._used:
            raise RuntimeError(f"{token!r} has already been used once{_made_where(token)}")
        if token._var is not self:
            raise ValueError(f"{token!r} was created by a different ContextVar{_made_where(token)}")
        if token._context is not here:
            raise noted(ValueError(f"{token!r} was created in a different Context{_made_where(token)}"), ELSEWHERE)
        _undo(token, self)

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
        if (
            type(token) is Token
            and token._var is self
            and not token._used
            and token._context is not place_of_set(token)
        ):
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


@published
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

    _var: ContextVar[T]
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
        return self._var

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


def _made_where(made: Token[Any] | Assignment) -> str:
    return f"; it was made {made._origin}" if debug else ""


def _with_more_room(undo: Callable[..., None], *args: Any) -> None:
    """For the end of a `with` block where the stack ends, which a C function would reach all the same."""
    limit = getrecursionlimit()
    setrecursionlimit(limit + 100)
    try:
        undo(*args)
    finally:
        setrecursionlimit(limit)


def _undo(made: Token[Any] | Assignment, var: ContextVar[Any] | None) -> None:
    tell = _tell_of_change
    made._used = True
    try:
        before = update(var, made._old_value, None)
    except BaseException:
        # Out of memory, or interrupted: it can be used again.
        made._used = False
        raise
    _report(tell, "reset", var, before, made._old_value)


def _report(tell: Callable[[str, Any, Any, Any], None] | None, kind: str, var: Any, old: Any, new: Any) -> None:
    """Call one of the functions that are told, which the caller has looked at once, since another thread may cancel."""
    if tell is not None:
        tell(kind, var, old, new)


@published
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

    __slots__ = ("_context", "_old_value", "_origin", "_used")

    # As a Token's; the old value is what the variables had, in a dict, with ABSENT for those that had none.
    _context: object
    _old_value: dict[ContextVar[Any], Any]
    _origin: str
    _used: bool

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
        here = place_of_set(self)
        if self._used:
            raise RuntimeError(f"{self!r} has already been undone{_made_where(self)}")
        if self._context is not here:
            raise ValueError(f"{self!r} was made in a different Context{_made_where(self)}")
        _undo(self, None)

    def __enter__(self) -> Assignment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        try:
            self.undo()
        except RecursionError:
            if self._used:
                raise
            _with_more_room(self.undo)

    def __repr__(self) -> str:
        return f"<Assignment{' undone' if self._used else ''} at {id(self):#x}>"

    __hash__ = None  # type: ignore[assignment]


# Of a union, mypy takes no type for the keys of a dict of different variables.
@overload
def assign(values: Mapping[ContextVar[Any], Any], /) -> Assignment: ...


@overload
def assign(values: Iterable[tuple[ContextVar[Any], Any]], /) -> Assignment: ...


@published
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
    is_pair = type(values) is tuple and values and type(values[0]) is ContextVar
    if type(values) is ContextVar or is_pair or not has_pairs(values):
        raise TypeError(f"{ASSIGNS}, not a {type(values).__name__}")
    changes: dict[ContextVar[Any], Any] = dict(values)
    for var in changes:
        checked_variable(var)
    assignment = object.__new__(Assignment)
    assignment._used = False
    if debug:
        assignment._origin = origin()
    update(None, changes, assignment)
    _report(_tell_of_change, "set", None, assignment._old_value, changes)
    return assignment


if TYPE_CHECKING:

    class _Mapping(Sealed, Mapping[ContextVar[Any], Any]): ...
else:
    # Registered as a Mapping below, which as a base would bring methods of its own.
    _Mapping = Sealed


@published
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

    # `_native` and `_is_registered` belong to the native host, the others to the thread host. Entering takes the second
    # element of `_entry_permit`: of two threads one finds it gone, and a list of two needs no memory to have it back.
    # The Contexts that a thread is in are linked by `_before`; a base Context, which nobody entered, knows its thread.
    __slots__ = ("__weakref__", "_before", "_home", "_entry_permit", "_is_registered", "_native", "_snapshot")

    _native: NativeContext
    _is_registered: bool
    _snapshot: Snapshot
    _before: Context | None
    _home: Callable[[], ThreadState | None] | None
    _entry_permit: list[None]

    @shown_as(lambda cls: None)
    def __new__(cls, *args: NoReturn, **kwargs: NoReturn) -> Context:
        if args or kwargs:
            raise TypeError("Context() does not accept any arguments")
        return new_context()

    @property
    def native(self) -> NativeContext:
        """The native Context that this one wraps, for an API that insists on the real type; native host only."""
        return native_of(self)

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
            return (run_in if _tell is None else _run_and_tell)(self, callable, args, kwargs)
        finally:
            # An exception's traceback keeps the frames that called. If one of those kept the callable, a task that has
            # failed, and holds its exception, would hold itself.
            del self, callable, args, kwargs

    def copy(self) -> Context:
        """Return a Context with the same values. O(1).

        >>> Context().copy() == Context()
        True
        """
        return copy_of(self)

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
        value = value_in(self, key)
        return default if value is ABSENT else value

    def keys(self) -> HamtIterator[ContextVar[Any]]:  # type: ignore[override]  # pyright: ignore
        """Return an iterator over the variables; O(n).

        >>> list(Context().keys())
        []
        """
        return iterate(shown_values(self), "keys")  # type: ignore[return-value]

    def values(self) -> HamtIterator[Any]:  # type: ignore[override]  # pyright: ignore
        """Return an iterator over the values; O(n).

        >>> list(Context().values())
        []
        """
        return iterate(shown_values(self), "values")  # type: ignore[return-value]

    def items(self) -> HamtIterator[tuple[ContextVar[Any], Any]]:  # type: ignore[override]  # pyright: ignore
        """Return an iterator over the (variable, value) pairs; O(n).

        >>> list(Context().items())
        []
        """
        return iterate(shown_values(self), "items")  # type: ignore[return-value]

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
        return shown_values(self).diff(shown_values(_checked_context(other)))

    def __getitem__(self, key: ContextVar[T], /) -> T:
        value = value_in(self, key)
        if value is ABSENT:
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def __contains__(self, key: object, /) -> bool:
        return value_in(self, key) is not ABSENT

    def __len__(self) -> int:
        return len(shown_values(self))

    def __iter__(self) -> HamtIterator[ContextVar[Any]]:
        return self.keys()

    def __eq__(self, other: object, /) -> bool:
        if type(other) is not Context:
            return NotImplemented
        # Not looked at twice, since another thread may be setting variables in it.
        return other is self or shown_values(self) == shown_values(other)

    __hash__ = None  # type: ignore[assignment]
    __reversed__ = None

    def __enter__(self) -> Context:
        _about_to_enter(self)
        (enter_context if _tell is None else _enter_and_tell)(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        (leave_context if _tell is None else _leave_and_tell)(self)

    def __repr__(self) -> str:
        return f"<contextvars_cy.Context object at {id(self):#x}>"


def checked_variable(key: object) -> ContextVar[Any]:
    if type(key) is not ContextVar:
        raise TypeError(f"a ContextVar key was expected, got {key!r}{whose(key)}")
    return key


@published
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
        return current()

    def enter(self, context: Context, /) -> None:
        """Make the Context the current one, on top of those entered before. O(1).

        RuntimeError where it is entered already, in this thread or another.
        """
        self._check_thread()
        _about_to_enter(_checked_context(context))
        (enter_context if _tell is None else _enter_and_tell)(context)

    def exit(self, context: Context, /) -> None:
        """Make the Context that was current before this one the current one again. O(1).

        RuntimeError where this one is not the current Context, so exits out of order are refused.
        """
        self._check_thread()
        (leave_context if _tell is None else _leave_and_tell)(_checked_context(context))

    def _check_thread(self) -> None:
        if self is not thread_state():
            raise RuntimeError(f"{self!r} belongs to another thread; call thread_state() in this one")


def _checked_context(context: object) -> Context:
    if type(context) is not Context:
        raise TypeError(f"an instance of Context was expected{whose(context)}")
    return context


@published
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
    prepare_thread(made)
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


@published
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
    return current()


@published
def copy_context() -> Context:
    """Return a copy of the current Context. O(1).

    >>> copy_context() == current_context()
    True
    """
    return current_copy()


def with_change(snapshot: Snapshot, var: ContextVar[Any] | None, value: Any) -> tuple[Snapshot, Any]:
    """The snapshot with the variable set, or unset if the value is ABSENT, and the variable's old value, or ABSENT.

    Without a variable the value is a dict of variables and values, and so are the old ones.
    """
    if var is None:
        old_values = {}
        for each, new_value in value.items():
            snapshot, old_values[each] = with_change(snapshot, each, new_value)
        return snapshot, old_values
    if value is ABSENT:
        return snapshot._discard(var, var._hash), find(snapshot._root, var._hash, var)
    return snapshot._exchange(var, var._hash, value)


def running_loop() -> Any:
    events = modules.get("asyncio.events")
    # While asyncio is being imported, the function is not there yet, and no loop runs.
    running_loop = getattr(events, "_get_running_loop", None)
    return None if running_loop is None else running_loop()


def _about_to_enter(context: Context) -> None:
    """Before, because an interrupt after it would leave the Context entered."""
    global _entering
    loop = running_loop()
    # An asynchronous test does without a loop what it would do in one.
    if loop is not None or "unittest.async_case" in modules:
        if _entering is None:
            from . import entering as module

            _entering = module
        _entering.about_to_enter(context, loop)


def refuse_to_leave(context: Context, error: RuntimeError) -> None:
    """Have `entering`, if it was needed, raise another error than this if it has left the Context itself."""
    if _entering is not None:
        _entering.refuse_to_leave(context, error)


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


def in_native_context(function: Callable[..., R]) -> Callable[..., R]:
    """For event loops: the function, given the native Context for one of ours that is its argument `context`."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> R:
        context = options.get("context")
        if type(context) is Context:
            options["context"] = context.native
        return function(*args, **options)

    return call


def give_tasks_native_contexts(cls: Any) -> bool:
    """For event loops: the same for this class of asyncio's tasks, if it takes native Contexts alone. False if that
    cannot be done."""
    # asyncio has imported it.
    from inspect import Parameter, signature

    init = cls.__init__
    shown = signature(cls)

    @wraps(init)
    def __init__(self: Any, /, *args: Any, **options: Any) -> None:
        context = options.get("context")
        if type(context) is Context and (TASKS_ARE_NATIVE or options.get("eager_start")):
            options["context"] = context.native
        init(self, *args, **options)
        # In asyncio's debug mode a task knows the stack that it was made on, of which this function is no part.
        if self._source_traceback:
            del self._source_traceback[-1]

    self = Parameter("self", Parameter.POSITIONAL_ONLY)
    __init__.__signature__ = shown.replace(parameters=[self, *shown.parameters.values()])  # type: ignore[attr-defined]
    return replace_init(cls, __init__)


def _run_and_tell(context: Context, callable: Callable[..., R], args: Any, kwargs: Any) -> R:
    entered: list[Context] = []
    try:
        told = (entered, current(), context, callable, args, kwargs)
        return run_in(context, _call_and_tell, told, {})  # type: ignore[no-any-return]
    finally:
        tell = _tell
        if entered:
            _report(tell, "exit", None, context, None)
        # As in `Context.run`.
        del context, callable, args, kwargs, entered


def _call_and_tell(
    entered: list[Context], left: Context, context: Context, callable: Callable[..., R], args: Any, kwargs: Any
) -> R:
    entered.append(context)
    try:
        _report(_tell, "enter", None, left, context)
        return callable(*args, **kwargs)
    finally:
        del context, callable, args, kwargs, left, entered


def _enter_and_tell(context: Context) -> None:
    left = current()
    tell = _tell
    enter_context(context)
    try:
        _report(tell, "enter", None, left, context)
    except BaseException:
        # An interrupt, or no room on the stack: nobody else would leave it.
        leave_context(context)
        raise


def _leave_and_tell(context: Context) -> None:
    leave_context(context)
    _report(_tell, "exit", None, context, None)


# The hosts are built on the types above, so they come last.
if host == "native":
    from .native_host_py import (
        copy_of,
        current,
        current_copy,
        current_snapshot,
        enter_context,
        leave_context,
        native_of,
        new_context,
        place_of_set,
        prepare_thread,
        run_in,
        shown_values,
        update,
        value_in,
    )
    from .native_host_py import (
        show_native_variables as show_native_variables,
    )
else:
    from .thread_host_py import (
        copy_of,
        current,
        current_copy,
        current_snapshot,
        enter_context,
        leave_context,
        native_of,
        new_context,
        place_of_set,
        prepare_thread,
        run_in,
        shown_values,
        update,
        value_in,
    )
    from .thread_host_py import (
        show_native_variables as show_native_variables,
    )

Mapping.register(Context)  # pyright: ignore[reportAttributeAccessIssue]
