"""Context variables after PEP 567, with CPython 3.14's semantics: the reference twin.

A `Context` is a thin wrapper around a *snapshot*, one immutable `Hamt` from `ContextVar` to value. Setting a variable
makes a new snapshot and stores it in the current Context; copying a Context shares its snapshot, in O(1).

The *host* decides where the current Context is found. The functions imported at the end are all that differs between
the hosts:

- On the **native** host the snapshot rides inside Python's own context, as the value of one native variable, the
  *anchor*. Code that copies, enters or leaves a native Context (asyncio does so in C) carries our variables along.
  Each of our Contexts wraps one native Context.
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
from .._hamt.trie_py import find, fold, unfold
from .._reprs import context_repr, in_a_line
from .._sealed import Sealed, noted, published, refuse_unregistered
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
        """Knows the type of its elements, and has a length, as a native Context's iterators do. The views that type
        checkers expect of a Mapping do not fit."""

        def __next__(self) -> E: ...

        def __len__(self) -> int: ...
else:
    from .._hamt.hamt_py import HamtIterator

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R")

Snapshot = Hamt["ContextVar[Any]", Any]

_serial = count()
# Capabilities, which build on this module, fill these in: the functions behind methods of ContextVar, and the function
# to call after each change while there is a watcher.
_implementations: dict[str, Callable[..., Any]] = {"__reduce__": refuse_unregistered, "explain": noted}
_tell: Callable[[str, Any, Any, Any], None] | None = None
# As `_tell`, but only for changes of values, which debug mode notes too.
_tell_of_change = _tell
_note: Callable[[str, Any, Any, Any], None] | None = None
# The module `entering`, imported when a Context is first entered under a loop.
_entering: Any = None
# Holds a weak reference to each thread's ThreadState, and the object that notices the thread's end.
_threads: Any = local()
_states: dict[int, ThreadState] = {}


@published
@final
class ContextVar(Sealed, Generic[T]):
    """A variable that has its own value in every Context (PEP 567).

    `name` is for people to read; `get` returns `default` if the current Context has no value. `default_factory` is an
    alternative: the first `get` in a Context calls it without arguments and sets the value there, so that no Context
    made earlier shares it. Create variables at the top level of a module: a Context keeps alive every variable that was
    set in it.

    >>> user = ContextVar("user", default="nobody")
    >>> with user.set("ada"):
    ...     user.get()
    'ada'
    >>> user.get()
    'nobody'
    """

    __slots__ = ("_default", "_default_factory", "_folded", "_hash", "_name")

    _name: str
    _default: Any
    _default_factory: Callable[[], Any] | None
    _folded: int
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
        # Only for its error: the standard library refuses an unhashable name.
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
        # Consecutive numbers put the first 32 variables in one node of the trie, without a collision.
        self._hash = unfold(next(_serial))
        self._folded = fold(self._hash)
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

        Without a value there, return the argument, else the variable's default, or set and return what its
        `default_factory` makes, else raise LookupError.

        >>> ContextVar("colour", default="blue").get()
        'blue'
        >>> ContextVar("colour", default="blue").get("red")
        'red'
        >>> seen = ContextVar("seen", default_factory=list)
        >>> seen.get().append("red")
        >>> seen.get(), Context().run(seen.get)
        (['red'], [])
        """
        value = find(current_snapshot()._root, self._folded, self, self._hash)
        if value is not ABSENT:
            return value
        if default is ABSENT:
            default = self._default
            if default is ABSENT and self._default_factory is not None:
                return _make_default(self)
        if _tell is not None:
            _report(_tell, "read", self, ABSENT, default)
        if default is ABSENT:
            raise _implementations["explain"](LookupError(self), UNSET)
        return default

    def is_set(self) -> bool:
        """Whether the current Context has a value for the variable; a default does not count. O(log n).

        >>> colour = ContextVar("colour", default="blue")
        >>> with colour.set("red"):
        ...     colour.is_set()
        True
        >>> colour.is_set()
        False
        """
        return find(current_snapshot()._root, self._folded, self, self._hash) is not ABSENT

    def set(self, value: T, /) -> Token[T]:
        """Set the variable in the current Context and return a Token that undoes it. O(log n).

        Pass the Token to `reset`, or use it in a `with` block, whose end undoes the set.

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
        # Read once, because another thread may cancel; and without a call, where an interrupt would lose the token.
        tell = _tell_of_change
        if tell is not None:
            tell("unset" if value is ABSENT else "set", self, token._old_value, value)
        return token

    def unset(self) -> Token[T]:
        """Remove the variable's value from the current Context and return a Token that undoes it. O(log n).

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
        """Restore the value that the variable had before the `set` that made the token. O(log n).

        TypeError if it is not a Token, RuntimeError if it was used already, ValueError if another variable made it or
        it was made in another Context. An error changes nothing. In debug mode, under `python -X dev` or with
        `CONTEXTVARS_CY_DEBUG=1`, the error says where the token was made.

        >>> colour = ContextVar("colour")
        >>> token = colour.set("blue")
        >>> colour.reset(token)
        >>> colour.get("none")
        'none'
        """
        if type(token) is not Token:
            raise TypeError(f"expected an instance of Token, got {token!r}{whose(token)}")
        # This comes first, because it may run a finaliser that uses the token.
        here = place_of_set(token)
        if token._used:
            raise RuntimeError(f"{token!r} has already been used once{_made_where(token)}")
        if token._var is not self:
            raise ValueError(f"{token!r} was created by a different ContextVar{_made_where(token)}")
        if token._context is not here:
            _tell_of_refusal(self, token)
            raise noted(ValueError(f"{token!r} was created in a different Context{_made_where(token)}"), ELSEWHERE)
        _undo(token, self)

    def try_reset(self, token: Token[T], /) -> bool:
        """As `reset`, but return False, not an error, if the token was made in another Context; else True. O(log n).

        For cleanup that may run in another Context: the finaliser of an async generator, a callback, the end of a
        cancelled task. See CPython issue 118944.

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
            _tell_of_refusal(self, token)
            return False
        self.reset(token)
        return True

    def watch(self, callback: Callable[[WatchEvent], object], /) -> Watcher:
        """Call `callback(event)` after each change of this variable's value, with a `WatchEvent`. O(1).

        Returns a `Watcher`; its `cancel()` or the end of its `with` block stops it. It also fires if entering, leaving
        or switching Contexts changes the value. `contextvars_cy.watch` watches all variables.

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
        """Return an object that stands for whatever value the variable has at the moment.

        The `Proxy` forwards attributes, items, calls and operators to the value; without one they raise a LookupError
        that says so. Modelled on werkzeug's LocalProxy.

        >>> user = ContextVar("user", default="nobody")
        >>> current_user = user.proxy()
        >>> with user.set("ada"):
        ...     current_user.upper(), current_user + "!", f"{current_user:>5}"
        ('ADA', 'ada!', '  ada')
        >>> current_user == "nobody"
        True
        """
        # The Proxy does whatever a T does.
        return _implementations["proxy"](self)  # type: ignore[no-any-return]

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        default = "" if self._default is ABSENT else f" default={self._default!r}"
        if self._default_factory is not None:
            default = f" default_factory={self._default_factory!r}"
        return f"<ContextVar name={self._name!r}{default} at {id(self):#x}>"

    def __copy__(self) -> ContextVar[T]:
        return self

    def __deepcopy__(self, memo: object, /) -> ContextVar[T]:
        return self

    def __reduce__(self) -> Any:
        return _implementations["__reduce__"](self)

    __class_getitem__ = classmethod(GenericAlias)  # type: ignore[var-annotated]


def _make_default(var: ContextVar[T]) -> T:
    value = var._default_factory()  # type: ignore[misc]
    token = var.set(value)
    if token._old_value is ABSENT:
        return value  # type: ignore[no-any-return]
    # The factory set the variable itself, or a finaliser did meanwhile: the first value stays.
    var.reset(token)
    return token._old_value  # type: ignore[no-any-return]


def _tell_of_refusal(var: ContextVar[Any], token: Token[Any]) -> None:
    if _tell is not None:
        _report(_tell, "refuse", var, ABSENT, context_of_token(token))


@published
@final
class Token(Sealed, Generic[T]):
    """What `ContextVar.set` returns: the variable, its old value, and the Context in which it was set (PEP 567).

    A Token works once, in `ContextVar.reset` or as a context manager.

    >>> colour = ContextVar("colour")
    >>> with colour.set("blue") as token:
    ...     token.var is colour, token.old_value
    (True, <Token.MISSING>)
    """

    __slots__ = ("_context", "_old_value", "_origin", "_used", "_var")

    MISSING: Final = MISSING
    """The `old_value` if the variable had none."""

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
    """Lets a `with` block end although the stack is full, as a function in C could."""
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
        # Out of memory, or interrupted: the token stays usable.
        made._used = False
        raise
    if tell is not None:
        tell("reset", var, before, made._old_value)


@published
@final
class Assignment(Sealed):
    """What `assign` returns; it undoes the assignment once, by `undo` or at the end of a `with` block.

    >>> colour = ContextVar("colour", default="blue")
    >>> with assign({colour: "red"}):
    ...     colour.get()
    'red'
    >>> colour.get()
    'blue'
    """

    __slots__ = ("_context", "_old_value", "_origin", "_used")

    # As a Token's, but the old value is a dict of the variables' values, with ABSENT for those that had none.
    _context: object
    _old_value: dict[ContextVar[Any], Any]
    _origin: str
    _used: bool

    def __new__(cls, *args: NoReturn, **kwargs: NoReturn) -> Assignment:
        raise RuntimeError("Assignments can only be created by assign()")

    def undo(self) -> None:
        """Restore the value that every variable had before: all of them, or none on an error. O(m log n).

        RuntimeError if it was undone already, ValueError in another Context than that of the `assign`.

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
        names = in_a_line(sorted(var.name for var in self._old_value), len(self._old_value))
        return f"<Assignment{' undone' if self._used else ''} of {{{names}}} at {id(self):#x}>"

    __hash__ = None  # type: ignore[assignment]


# With one union, mypy infers no key type for a dict of different variables.
@overload
def assign(values: Mapping[ContextVar[Any], Any], /) -> Assignment: ...


@overload
def assign(values: Iterable[tuple[ContextVar[Any], Any]], /) -> Assignment: ...


@published
@shown_as(lambda values, /: None)
def assign(values: Any = ABSENT, /, *more: Any) -> Assignment:
    """Set many variables in the current Context at once: all, or none on an error. O(m log n) for m of n.

    `values` is a mapping from ContextVar to value, or what `dict` takes. TypeError for a key that is not a ContextVar.
    Returns an `Assignment`, which undoes all at once, by `undo` or at the end of a `with` block. From three variables
    on, faster than calls of `ContextVar.set`.

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
    # As in `ContextVar.set`.
    tell = _tell_of_change
    if tell is not None:
        tell("set", None, assignment._old_value, changes)
    return assignment


if TYPE_CHECKING:

    class _Mapping(Sealed, Mapping[ContextVar[Any], Any]): ...
else:
    # Mapping would add methods if it were a base, so Context is registered below.
    _Mapping = Sealed


@published
@final
class Context(_Mapping):
    """A mapping from each ContextVar that was set in it to its value (PEP 567).

    `Context()` is empty; `copy_context()` copies the current one. Code runs in a Context by `run`, or in the body of
    `with context:`; what it sets stays there. A Context can be entered only once at a time. Do not await or yield in
    the body of the `with`: the code that runs meanwhile would run in this Context.

    >>> colour = ContextVar("colour", default="blue")
    >>> context = Context()
    >>> with context:
    ...     token = colour.set("red")
    >>> colour.get(), context[colour]
    ('blue', 'red')
    """

    # `_native` and `_is_registered` belong to the native host, the others to the thread host. Entering takes the second
    # element of `_entry_permit`: only one of two threads gets it, and giving it back to a list of two needs no memory.
    # `_before` links the Contexts that a thread is in; a base Context, which no code entered, knows its thread.
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
        """The native Context that this one wraps, for an API that demands the real type; native host only."""
        return native_of(self)

    def run(self, callable: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `callable(*args, **kwargs)` in this Context and return its result; O(1) beside the call.

        RuntimeError if the Context is entered already, in this thread or another.

        >>> colour = ContextVar("colour")
        >>> context = copy_context()
        >>> token = context.run(colour.set, "red")
        >>> context[colour]
        'red'
        """
        try:
            return (run_in if _tell is None else _run_and_tell)(self, callable, args, kwargs)
        finally:
            # An exception's traceback keeps the frames it passed. If this one kept the callable, a failed task, which
            # holds its exception, would hold itself.
            del self, callable, args, kwargs

    def copy(self) -> Context:
        """Return a Context with the same values. O(1).

        >>> Context().copy() == Context()
        True
        """
        copied = copy_of(self)
        if _tell is not None:
            _report(_tell, "copy", None, self, copied)
        return copied

    __copy__ = copy

    def __deepcopy__(self, memo: object, /) -> Context:
        # The values are shared: many, such as a connection or a lock, cannot be copied.
        return self.copy()

    @overload
    def get(self, key: ContextVar[T], /) -> T | None: ...

    @overload
    def get(self, key: ContextVar[T], default: T, /) -> T: ...

    @overload
    def get(self, key: ContextVar[T], default: D, /) -> T | D: ...

    def get(self, key: ContextVar[Any], default: Any = None, /) -> Any:
        """Return the value of the variable in this Context, or the default. O(log n). The variable's own default is
        ignored.

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

    def diff(self, other: Context, /) -> HamtDiff[ContextVar[Any], Any]:
        """Return the changes from this Context's values to the other's, a `HamtDiff` of added, removed and changed.

        Values are compared by identity first, then by `==`. Comparing a Context with its copy takes time in the size of
        their difference, else O(n). TypeError if `other` is not a Context.

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
        # A Context equals itself even while another thread sets variables in it.
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
        return context_repr(self)


def checked_variable(key: object) -> ContextVar[Any]:
    if type(key) is not ContextVar:
        raise TypeError(f"a ContextVar key was expected, got {key!r}{whose(key)}")
    return key


@published
@final
class ThreadState(Sealed):
    """Where one thread's current Context is found; `thread_state()` returns the calling thread's.

    For your own scheduler or interpreter, which enters and leaves Contexts outside of a `with` block:

    >>> state, context = thread_state(), Context()
    >>> state.enter(context)
    >>> state.context is context
    True
    >>> state.exit(context)
    """

    # Both belong to the thread host; the base Context is the one that no code entered.
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

        RuntimeError if it is entered already, in this thread or another.
        """
        self._check_thread()
        _about_to_enter(_checked_context(context))
        (enter_context if _tell is None else _enter_and_tell)(context)

    def exit(self, context: Context, /) -> None:
        """Make the Context that was current before this one the current one again. O(1).

        RuntimeError if this is not the current Context, so exits out of order are refused.
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
    """Return the calling thread's ThreadState, made at the first call and gone with the thread. O(1).

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
        # One step: an interrupt leaves a whole state or none, and if a finaliser made one meanwhile, that stays.
        state = end.__dict__.setdefault("state", ref(made))()
        if state is not None:
            break
        _remove_dead_weakref(end.__dict__, "state")
    # Replaces the state of an ended thread that had the same number.
    _states[thread] = state
    _threads.state = end.state
    return state  # type: ignore[no-any-return]


class _ThreadEnd:
    """Is freed when its thread ends, and removes the ThreadState.

    Finalisers that run later may make another ThreadState. The interpreter clears `_threads` only once per thread, so
    that entry stays. It is a weak reference: the state itself goes when another thread gets the number.
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
    """Return the current Context itself, not a copy: it shows what is set later. O(1).

    On the thread host a Context is always the same object. On the native host calls in one Context return the same
    object as long as a reference to it remains; later another object may stand for the same Context. The two compare
    equal, and tokens, which remember the native Context, work with both.

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
    copied = current_copy()
    if _tell is not None:
        _report(_tell, "copy", None, None, copied)
    return copied


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
        return snapshot._discard(var, var._folded, var._hash)
    return snapshot._exchange(var, var._folded, value, var._hash)


def running_loop() -> Any:
    events = modules.get("asyncio.events")
    # While asyncio is being imported, the function does not exist yet, and no loop runs.
    running_loop = getattr(events, "_get_running_loop", None)
    return None if running_loop is None else running_loop()


def _about_to_enter(context: Context) -> None:
    """Called before entering, because an interrupt afterwards would leave the Context entered."""
    global _entering
    loop = running_loop()
    # An asynchronous test that would misuse a Context under a loop is refused without one too.
    if loop is not None or "unittest.async_case" in modules:
        if _entering is None:
            from . import entering as module

            _entering = module
        _entering.about_to_enter(context, loop)


def refuse_to_leave(context: Context, error: RuntimeError) -> None:
    """Let `entering`, if it is imported, raise another error if it has left the Context itself."""
    if _entering is not None:
        _entering.refuse_to_leave(context, error)


def implement(method: str, function: Callable[..., Any]) -> None:
    """For capabilities: set what `ContextVar.watch`, `proxy` or `__reduce__` calls, and what explains a LookupError. An
    import there would fail when the interpreter ends."""
    _implementations[method] = function


def tell_changes_to(tell: Callable[[str, ContextVar[Any] | None, Any, Any], None] | None) -> None:
    """For `watch`: call `tell(kind, variable, old, new)` after each change, each copy of a Context and each read of an
    unset variable from now on; None ends that."""
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
    """For debug mode: call `note(kind, variable, old, new)` after each change of values, and `look(variable)` before
    each `get`."""
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
    """For event loops: the function, which gets the native Context if its argument `context` is one of ours."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> R:
        context = options.get("context")
        if type(context) is Context:
            options["context"] = context.native
        return function(*args, **options)

    return call


def give_tasks_native_contexts(cls: Any) -> bool:
    """For event loops: the same for this class of asyncio tasks, if it takes only native Contexts. False if that is
    impossible."""
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
        # In asyncio's debug mode a task records the stack that made it; this function does not belong there.
        if self._source_traceback:
            del self._source_traceback[-1]

    self = Parameter("self", Parameter.POSITIONAL_ONLY)
    __init__.__signature__ = shown.replace(parameters=[self, *shown.parameters.values()])  # type: ignore[attr-defined]
    return replace_init(cls, __init__)


def _report(tell: Callable[[str, Any, Any, Any], None] | None, kind: str, var: Any, old: Any, new: Any) -> None:
    """Call `tell` if there is one; the caller reads it once, because another thread may cancel it."""
    if tell is not None:
        tell(kind, var, old, new)


def _run_and_tell(context: Context, callable: Callable[..., R], args: Any, kwargs: Any) -> R:
    entered: list[Context] = []
    try:
        told = (entered, current(), context, callable, args, kwargs)
        return run_in(context, _call_and_tell, told, {})  # type: ignore[no-any-return]
    finally:
        if entered:
            _report(_tell, "exit", None, context, None)
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
        # An interrupt, or no room on the stack: no other code would leave it.
        leave_context(context)
        raise


def _leave_and_tell(context: Context) -> None:
    leave_context(context)
    _report(_tell, "exit", None, context, None)


# The hosts are built on the types above, so they come last.
if host == "native":
    from .native_host_py import (
        context_of_token,
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
        contexts_of_threads as contexts_of_threads,
    )
    from .native_host_py import (
        show_native_variables as show_native_variables,
    )
else:
    from .thread_host_py import (
        context_of_token,
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
        contexts_of_threads as contexts_of_threads,
    )
    from .thread_host_py import (
        show_native_variables as show_native_variables,
    )

Mapping.register(Context)  # pyright: ignore[reportAttributeAccessIssue]
