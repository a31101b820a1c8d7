"""Values on their way to another process, a queue or another service.

A variable stops at the edge of its process. Register it, and its value travels as text, by a name that both sides know:

1. `register(var, name, codec=..., audience=...)`, in a module that both sides import;
2. where a message leaves, `inject(headers, audience=...)`; or `capture()`, whose `Capsule` pickles;
3. where it arrives, `with restore(extract(headers)):`.

Nothing leaves but what is registered for that audience, nothing comes in but what is registered, and nothing from a
header, a message or the environment is ever unpickled. On the wire it is the header `baggage` of W3C Baggage
(https://www.w3.org/TR/baggage/), which OpenTelemetry and others write and read too.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, final
from urllib.parse import quote, unquote_to_bytes

from . import MISSING, Assignment, Context, ContextVar, assign, bind, current_context
from ._context.twin import implement
from ._features.apply import check_iterable
from ._features.bind import Returned
from ._late import keep_builtins
from ._sealed import Sealed, refuse_unregistered

__all__ = [
    "Capsule",
    "TravelError",
    "TravelWarning",
    "capture",
    "environment",
    "extract",
    "inject",
    "register",
    "restore",
]

R = TypeVar("R")
Audience = Literal["process", "trusted", "public"]

HEADER = "baggage"
# W3C Baggage has no more; OpenTelemetry's limits are the same.
MOST_BYTES, MOST_MEMBERS, MOST_MEMBER_BYTES = 8192, 180, 4096

UNKNOWN = "no variable is registered by this name here; import the module that does it"
# From the narrowest to the widest.
_AUDIENCES = ("process", "trusted", "public")
# RFC 9110, 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# The octets that a value may have as they are; "%" starts an encoded one, and "+" is a space to OpenTelemetry.
_LITERAL = "!#$&'()*-./:<=>?@[]^_`{|}~"
_PLAIN = re.compile(rf"[0-9A-Za-z{re.escape(_LITERAL)}]*")
# In runs, which are matched at a third of the time of single characters.
_ENCODED = re.compile(rf"{_PLAIN.pattern}(?:(?:\+|%[0-9A-Fa-f]{{2}}){_PLAIN.pattern})*")


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]


class TravelWarning(RuntimeWarning):
    """A value was left out: it cannot be encoded or decoded, is too big, or came in a broken header.

    >>> import warnings
    >>> count = ContextVar("count")
    >>> register(count, "count", codec=int)
    >>> with warnings.catch_warnings(record=True) as caught, count.set("many"):
    ...     warnings.simplefilter("always")
    ...     dict(capture(only=[count]))
    {}
    >>> print(caught[0].message)
    a value does not travel: count: its value is a str, and it is registered with codec=int
    """


class TravelError(ValueError):
    """What TravelWarnings say, of all values at once, where `strict=True` asks for an error.

    >>> size = ContextVar("size")
    >>> register(size, "size", codec=int)
    >>> restore(Capsule({"size": "big"}), strict=True)
    Traceback (most recent call last):
    ...
    contextvars_cy.travel.TravelError: size: it is no value of its codec
    """


class _Refused(ValueError):
    """An error of ours about a text, without anything of the text."""


class Codec(Protocol):
    """Turns a variable's values into text and back."""

    def encode(self, value: Any, /) -> str: ...

    def decode(self, text: str, /) -> Any: ...


class Setter(Protocol):
    """OpenTelemetry's: puts an entry into a carrier of its own kind."""

    def set(self, carrier: Any, key: str, value: str) -> None: ...


class Getter(Protocol):
    """OpenTelemetry's: finds the entries of one key in a carrier of its own kind."""

    def get(self, carrier: Any, key: str) -> Any: ...


class _Registration(NamedTuple):
    var: ContextVar[Any]
    name: str
    codec: Any
    encode: Callable[[Any], str]
    decode: Callable[[str], Any]
    audience: Audience
    max_size: int
    module: str


class _Registrations:
    """All of them, in the ways that they are looked up."""

    __slots__ = ("by_name", "by_var", "seen_by")

    def __init__(self, registrations: Iterable[_Registration] = ()) -> None:
        self.by_name = {registration.name: registration for registration in registrations}
        self.by_var = {registration.var: registration for registration in self.by_name.values()}
        # What each audience may see, by name.
        self.seen_by = {
            audience: {
                name: registration
                for name, registration in self.by_name.items()
                if registration.audience in _AUDIENCES[rank:]
            }
            for rank, audience in enumerate(_AUDIENCES)
        }


# Replaced, never changed, so that a reader sees a whole one.
_registered = _Registrations()
_lock = threading.Lock()


def register(
    var: ContextVar[Any],
    name: str,
    *,
    codec: Any = str,
    audience: Audience = "process",
    max_size: int = 4096,
) -> None:
    """Let a variable's values travel under this name. O(n) for n registered variables.

    Do it in a module that both sides import. The same registration again does nothing.

    - `codec`: the type of the values, `str`, `int`, `float`, `bool` or `bytes`; the module `json` for what JSON can
      say; or an object with `encode(value) -> str` and `decode(text) -> value`. Other values do not travel.
    - `audience`: who may see it, each including those before: `"process"`, the processes that this program starts;
      `"trusted"`, your own services and queues; `"public"`, any server that a request goes to.
    - `max_size`: how many bytes of UTF-8 a value's text may take, in both directions.

    ValueError if the name is no token of RFC 9110 or belongs to another variable, if the variable has another
    registration, or if the audience is unknown.

    >>> tenant = ContextVar("tenant")
    >>> register(tenant, "tenant", audience="trusted")
    """
    global _registered
    if type(var) is not ContextVar:
        raise TypeError(f"register() takes a ContextVar of contextvars_cy first, not {var!r}")
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a value on its way: use letters, digits, '-', '_' and '.'")
    check_audience(audience)
    if not isinstance(max_size, int) or max_size < 1:
        raise ValueError(f"max_size is a number of bytes from 1 up, not {max_size!r}")
    encode, decode = _functions_of(codec)
    # Code that `exec` runs may be of no module.
    module = sys._getframe(1).f_globals.get("__name__", "__main__")
    new = _Registration(var, name, codec, encode, decode, audience, max_size, module)
    with _lock:
        same_name, same_var = _registered.by_name.get(name), _registered.by_var.get(var)
        if same_name is not None and same_name.var is not var:
            raise ValueError(f"{name!r} is registered for another variable, {same_name.var!r}, by {same_name.module}")
        if same_var is None:
            _registered = _Registrations([*_registered.by_name.values(), new])
        elif same_var._replace(module=module) != new:
            raise ValueError(
                f"{var!r} is registered already: {same_var.name!r} with codec={same_var.codec!r}, "
                f"audience={same_var.audience!r}, max_size={same_var.max_size}"
            )


@final
class Capsule(Sealed, Mapping[str, str]):
    """Names and encoded values on their way: an immutable mapping that has a hash and pickles.

    `capture` and `extract` make it, and `restore` sets the values. Its repr names the variables alone, because values
    may be secret.

    >>> tenant = ContextVar("tenant")
    >>> register(tenant, "acting-tenant")
    >>> with tenant.set("acme"):
    ...     capsule = capture(only=[tenant])
    >>> capsule, dict(capsule)
    (<Capsule of acting-tenant>, {'acting-tenant': 'acme'})
    >>> Capsule.from_bytes(capsule.to_bytes()) == capsule
    True
    """

    __slots__ = ("_entries",)

    _entries: dict[str, str]

    def __init__(self, entries: Mapping[str, str] = {}, /) -> None:
        own = {}
        for name, text in dict(entries).items():
            if not isinstance(name, str) or not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is no name for a value on its way")
            if not isinstance(text, str):
                raise TypeError(f"a Capsule holds text, not the {type(text).__name__} of {name!r}")
            # A lone half of a pair cannot be written.
            text.encode()
            own[_exactly_str(name)] = _exactly_str(text)
        self._entries = own

    def __getitem__(self, name: str, /) -> str:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.items()))

    def __repr__(self) -> str:
        return f"<Capsule of {', '.join(self._entries) or 'nothing'}>"

    def __reduce__(self) -> Any:
        return capsule_elsewhere, (self._entries, _modules_of(self._entries))

    def to_bytes(self) -> bytes:
        """Return it as the ASCII text of a `baggage` header, of whatever length. O(n)."""
        return ",".join(_members(self._entries)).encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes, /, *, strict: bool = False) -> Capsule:
        """Return the capsule that `to_bytes` wrote. O(n).

        A broken entry is left out with a TravelWarning, or raises TravelError if `strict`.
        """
        if not isinstance(data, (bytes, bytearray)):
            raise TypeError(f"from_bytes() takes bytes, not {type(data).__name__}")
        problems: list[str] = []
        entries = _parsed(data.decode("latin-1").split(",") if data else [], None, problems)
        report(problems, strict)
        return cls(entries)


def capture(
    context: Context | None = None,
    *,
    only: Iterable[ContextVar[Any]] | None = None,
    audience: Audience = "process",
    strict: bool = False,
) -> Capsule:
    """Return a Capsule of the values that this audience may see. O(n) for n registered variables.

    It has the values that are set in the Context, the current one unless another is given; defaults do not travel.
    `only` names the variables to take; ValueError if one of them is not registered for the audience.

    A value that cannot be encoded, or is too big, is left out with a TravelWarning, or raises TravelError if `strict`.

    >>> attempt = ContextVar("attempt", default=1)
    >>> register(attempt, "attempt", codec=int)
    >>> with attempt.set(2):
    ...     dict(capture(only=[attempt]))
    {'attempt': '2'}
    >>> dict(capture(only=[attempt]))
    {}
    """
    problems: list[str] = []
    entries = _captured(context, _chosen(only, audience, "capture"), problems, "capture")
    report(problems, strict)
    return _capsule_of(entries)


def restore(capsule: Capsule, /, *, only: Iterable[ContextVar[Any]] | None = None, strict: bool = False) -> Assignment:
    """Set the variables that a Capsule has values for, all at once. O(m log n).

    Returns an `Assignment`, which undoes that, by `undo` or at the end of a `with` block. `only` names the variables to
    set. A value that cannot be decoded, is too big, or whose name is not registered here, is left out with a
    TravelWarning, or raises TravelError if `strict`, and then nothing is set.

    >>> job = ContextVar("job", default="-")
    >>> register(job, "job")
    >>> with restore(Capsule({"job": "42"})):
    ...     job.get()
    '42'
    >>> job.get()
    '-'
    """
    if type(capsule) is not Capsule:
        raise TypeError(f"restore() takes a Capsule, not {type(capsule).__name__}")
    problems: list[str] = []
    entries = capsule._entries
    if only is not None:
        wanted = [registration.name for registration in _chosen(only, "process", "restore")]
        entries = {name: entries[name] for name in wanted if name in entries}
    values = values_of(entries, problems)
    report(problems, strict)
    return assign(values)


def inject(
    carrier: Any,
    /,
    *,
    audience: Audience,
    setter: Setter | None = None,
    context: Context | None = None,
    only: Iterable[ContextVar[Any]] | None = None,
    strict: bool = False,
) -> None:
    """Write the values that this audience may see into the carrier's `baggage` header. O(n).

    The carrier is a mutable mapping, such as a dict of headers, or whatever the `setter` puts entries into. Of a header
    that a mapping has, in any case, the members of other programs stay, and those of registered names go; of other
    carriers a setter can take nothing away, so inject into a new one. `context`, `only` and `strict` are those of
    `capture`; what exceeds the limits of W3C Baggage (8,192 bytes, 180 members, 4,096 bytes each) is left out likewise.

    >>> tenant = ContextVar("tenant")
    >>> register(tenant, "billed-tenant", audience="trusted")
    >>> headers = {"baggage": "theirs=1"}
    >>> with tenant.set("acme & co"):
    ...     inject(headers, audience="trusted", only=[tenant])
    >>> headers
    {'baggage': 'theirs=1,billed-tenant=acme%20&%20co'}
    """
    problems: list[str] = []
    entries = _captured(context, _chosen(only, audience, "inject"), problems, "inject")
    keys: list[Any] = []
    old = ""
    if type(carrier) is dict or isinstance(carrier, MutableMapping):
        keys, old = _found(carrier, problems)
    elif setter is None:
        raise TypeError(f"inject() takes a mutable mapping, or a setter for a {type(carrier).__name__}")
    header = _header_of(entries, old, problems)
    if problems:
        report(problems, strict)
    own = keys.pop(0) if keys and header and setter is None else HEADER
    # Before it is written, because to some mappings all spellings are one key.
    for key in keys:
        carrier.pop(key, None)
    if header and setter is not None:
        setter.set(carrier, own, header)
    elif header:
        carrier[own] = header


def extract(
    carrier: Any, /, *, audience: Audience = "trusted", getter: Getter | None = None, strict: bool = False
) -> Capsule:
    """Return a Capsule of what the carrier's `baggage` header says of registered variables. O(n).

    The carrier is a mapping, in which the header is found in any case, or whatever the `getter` finds entries in. Say
    who has written it: from a `"public"` one only variables that are registered as public come in, from a `"trusted"`
    one also those for trusted services, from a `"process"` all. Members of other programs are passed over.

    A broken entry is left out with a TravelWarning, or raises TravelError if `strict`: an encoding that is none, a name
    that came before, more than W3C Baggage allows.

    >>> tenant = ContextVar("tenant")
    >>> register(tenant, "served-tenant", audience="trusted")
    >>> dict(extract({"Baggage": "served-tenant=acme%20&%20co, theirs=1"}))
    {'served-tenant': 'acme & co'}
    >>> dict(extract({"Baggage": "served-tenant=acme"}, audience="public"))
    {}
    """
    check_audience(audience)
    problems: list[str] = []
    if getter is not None:
        header = text_of(getter.get(carrier, HEADER), problems)
    elif type(carrier) is dict or isinstance(carrier, Mapping):
        _, header = _found(carrier, problems)
    else:
        raise TypeError(f"extract() takes a mapping, or a getter for a {type(carrier).__name__}")
    entries = entries_of(header, audience, problems)
    report(problems, strict)
    return _capsule_of(entries)


def environment(
    *,
    audience: Audience = "process",
    context: Context | None = None,
    only: Iterable[ContextVar[Any]] | None = None,
    strict: bool = False,
) -> dict[str, str]:
    """Return the environment for a subprocess: this process's own, with the values in `BAGGAGE`. O(n).

    The child takes them by `restore(extract(os.environ, audience="process"))`. The arguments are those of `inject`.

    >>> import subprocess, sys
    >>> request = ContextVar("request")
    >>> register(request, "request")
    >>> program = "import os; print(os.environ['BAGGAGE'])"
    >>> with request.set("r1"):
    ...     env = environment(only=[request])
    >>> subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True).stdout
    'request=r1\\n'
    """
    variables = {HEADER.upper(): "", **os.environ}
    inject(variables, audience=audience, context=context, only=only, strict=strict)
    return variables


# ---- pickles ----


def _variable_to_name(var: ContextVar[Any]) -> Any:
    registration = _registered.by_var.get(var)
    if registration is None:
        refuse_unregistered(var)
    return variable_named, (registration.name, registration.module)


implement("__reduce__", _variable_to_name)


def variable_named(name: str, module: str) -> ContextVar[Any]:
    """For pickles: the variable that is registered by this name, at the latest by the import of that module."""
    problems: list[str] = []
    if name not in _registered.by_name:
        _import([module], problems)
    registration = _registered.by_name.get(name)
    if registration is None:
        raise TravelError("; ".join([f"{name}: {UNKNOWN}; over there it was {module!r}", *problems]))
    return registration.var


def capsule_elsewhere(entries: dict[str, str], modules: Iterable[str]) -> Capsule:
    """For pickles. As they import the modules of functions, this imports those that have registered variables."""
    problems: list[str] = []
    _import(modules, problems)
    report(problems, strict=False)
    return Capsule(entries)


def _modules_of(entries: Iterable[str]) -> tuple[str, ...]:
    """The modules that have registered these names."""
    registered = _registered.by_name
    return tuple({registered[name].module: None for name in entries if name in registered})


def _import(modules: Iterable[str], problems: list[str]) -> None:
    for module in modules:
        # Also if it is there: another thread may be importing it, which this waits for.
        try:
            import_module(module)
        except Exception as error:
            # If it is missing, the code that asks for its variables says so.
            if not isinstance(error, ModuleNotFoundError) or error.name != module:
                problems.append(f"{module} registers variables, and its import fails here: {_said(error)}")


def departing() -> tuple[dict[str, str], tuple[str, ...]] | None:
    """What `call_elsewhere` needs of the current Context: what a Capsule holds, which takes less time to pickle."""
    registered = _registered
    if not registered.by_name:
        return None
    problems: list[str] = []
    entries = _captured(None, registered.by_name.values(), problems, "departing")
    report(problems, strict=False)
    return (entries, _modules_of(entries)) if entries else None


def call_elsewhere(
    arriving: tuple[dict[str, str], tuple[str, ...]] | None, fn: Callable[..., R], /, *args: Any, **kwargs: Any
) -> R:
    """Call the function in a Context of these values alone."""
    context = Context()
    if arriving is not None:
        entries, modules = arriving
        problems: list[str] = []
        _import(modules, problems)
        context.run(assign, values_of(entries, problems))
        report(problems, strict=False)
    return context.run(fn, *args, **kwargs)


def bound_elsewhere(fn: Callable[..., Any], capsule: Capsule, returns: tuple[ContextVar[Any], ...] | None) -> Any:
    """For pickles of what `bind` returns: the function, in a Context of the capsule's values alone."""
    bound: Any = bind
    return _context_of(capsule).run(bound, fn, returns=returns)


def returned_elsewhere(value: Any, capsule: Capsule) -> Returned[Any]:
    """For pickles of what a function that `bind` was given `returns` for has returned."""
    return Returned((value, _context_of(capsule)))


def _context_of(capsule: Capsule) -> Context:
    context = Context()
    context.run(restore, capsule)
    return context


# ---- codecs ----


def _only(kind: type, encode: Callable[[Any], str]) -> Callable[[Any], str]:
    def encode_checked(value: Any) -> str:
        # Not isinstance: a subclass, such as an enumeration's member, would arrive as something else.
        if type(value) is not kind:
            raise TypeError(f"its value is a {type(value).__name__}, and it is registered with codec={kind.__name__}")
        return encode(value)

    return encode_checked


def _text(value: Any) -> str:
    # What `_only` would make, without a call of a call: most values are text.
    return value if type(value) is str else _only(str, str)(value)


def _matching(pattern: str, decode: Callable[[str], Any]) -> Callable[[str], Any]:
    def decode_checked(text: str) -> Any:
        # The types' own constructors take more: spaces, underscores, other scripts' digits.
        if not re.fullmatch(pattern, text, re.ASCII):
            raise _Refused("it is no value of its codec")
        return decode(text)

    return decode_checked


def _to_json(value: Any) -> str:
    _check_json(value)
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _check_json(value: Any) -> None:
    """Refuse what `json` writes as something else: a tuple, a key that is no text, a subclass."""
    kind = type(value)
    if kind is dict:
        for key, each in value.items():
            if type(key) is not str:
                raise TypeError(f"it has a key that is a {type(key).__name__}, which JSON would make text")
            _check_json(each)
    elif kind is list:
        for each in value:
            _check_json(each)
    elif kind not in (str, int, float, bool, type(None)):
        raise TypeError(f"it has a {kind.__name__}, which JSON does not give back as it was")


def _from_json(text: str) -> Any:
    value = json.loads(text)
    # `json` reads more than it should write: NaN, numbers that are infinite, halves of characters.
    _to_json(value).encode()
    return value


_CODECS: dict[Any, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    str: (_text, str),
    int: (_only(int, str), _matching(r"-?\d+", int)),
    float: (_only(float, repr), _matching(r"-?(\d+(\.\d+)?(e[+-]?\d+)?|inf)|nan", float)),
    bool: (_only(bool, lambda value: "true" if value else "false"), _matching("true|false", "true".__eq__)),
    bytes: (
        _only(bytes, lambda value: base64.b64encode(value).decode("ascii")),
        _matching(r"[A-Za-z0-9+/]*={0,2}", lambda text: base64.b64decode(text, validate=True)),
    ),
    json: (_to_json, _from_json),
}


def _functions_of(codec: Any) -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    for known, functions in _CODECS.items():
        if codec is known:
            return functions
    has_both = callable(getattr(codec, "encode", None)) and callable(getattr(codec, "decode", None))
    # A class has them too, which want an instance first.
    if isinstance(codec, type) or not has_both:
        raise TypeError(
            "a codec is str, int, float, bool, bytes, the module json, or an object with encode and decode, "
            f"not {codec!r}"
        )
    return codec.encode, codec.decode


# ---- what the others share ----


def check_audience(audience: object) -> None:
    if audience not in _AUDIENCES:
        raise ValueError(f"audience={audience!r}: choose one of {', '.join(_AUDIENCES)}")


def registered_for(audience: str) -> dict[str, _Registration]:
    """What this audience may see, by name."""
    names = _registered.seen_by.get(audience)
    if names is None:
        check_audience(audience)
    return names or {}


def registered_variables() -> Iterable[ContextVar[Any]]:
    return _registered.by_var


def _chosen(only: Iterable[ContextVar[Any]] | None, audience: str, caller: str) -> Iterable[_Registration]:
    allowed = registered_for(audience)
    if only is None:
        return allowed.values()
    check_iterable(only, "only", caller)
    by_var = _registered.by_var
    chosen = []
    for var in only:
        registration = by_var.get(var) if type(var) is ContextVar else None
        if registration is None or registration.name not in allowed:
            raise ValueError(f"{var!r} is not registered for the audience {audience!r}")
        chosen.append(registration)
    return chosen


def _exactly_str(text: str) -> str:
    """A subclass, such as an enumeration's, formats itself in its own way."""
    return text if type(text) is str else str.__str__(text)


def _checked_text(text: object, max_size: int) -> str:
    if not isinstance(text, str):
        raise TypeError(f"its codec made a {type(text).__name__}, not a str")
    if len(text.encode()) > max_size:
        raise _Refused(f"it takes more than the {max_size} bytes that were registered")
    return _exactly_str(text)


def _captured(
    context: Context | None, registrations: Iterable[_Registration], problems: list[str], caller: str
) -> dict[str, str]:
    if context is None:
        context = current_context()
    elif type(context) is not Context:
        raise TypeError(f"{caller}() takes a Context of contextvars_cy, not {context!r}")
    get = context.get
    entries = {}
    for var, name, _, encode, _, _, max_size, _ in registrations:
        value = get(var, MISSING)
        if value is MISSING:
            continue
        # Whatever a codec of the user's raises, the message is sent without this value.
        try:
            text = encode(value)
            # Most texts need no closer look.
            if type(text) is not str or not text.isascii() or len(text) > max_size:
                text = _checked_text(text, max_size)
            entries[name] = text
        except Exception as error:
            problems.append(f"{name}: {_said(error)}")
    return entries


def _capsule_of(entries: dict[str, str]) -> Capsule:
    """A Capsule of entries that need no check."""
    capsule = object.__new__(Capsule)
    capsule._entries = entries
    return capsule


def _members(entries: Mapping[str, str]) -> list[str]:
    # One look at all of them takes a fifth of the time.
    if _PLAIN.fullmatch("".join(entries.values())):
        return [f"{name}={text}" for name, text in entries.items()]
    return [
        f"{name}={text if _PLAIN.fullmatch(text) else quote(text, safe=_LITERAL)}" for name, text in entries.items()
    ]


def _header_of(entries: dict[str, str], old: str, problems: list[str]) -> str:
    """The header with these entries, and with the members of other programs that it had."""
    registered = _registered.by_name
    # Old values of ours would be those of another moment.
    members = (
        [
            member
            for member in map(str.strip, old.split(","))
            if member and member.partition("=")[0].strip() not in registered
        ]
        if old
        else []
    )
    new = _members(entries)
    header = ",".join([*members, *new])
    if len(header) <= MOST_MEMBER_BYTES and len(members) + len(new) <= MOST_MEMBERS:
        return header
    left = MOST_BYTES + 1 - sum(len(member) + 1 for member in members)
    for name, member in zip(entries, new):
        if len(member) > MOST_MEMBER_BYTES:
            problems.append(f"{name}: a member of {len(member)} bytes, where {HEADER} has at most {MOST_MEMBER_BYTES}")
        elif len(member) + 1 > left or len(members) == MOST_MEMBERS:
            problems.append(
                f"{name}: no room, since {HEADER} has at most {MOST_BYTES} bytes and {MOST_MEMBERS} members"
            )
        else:
            members.append(member)
            left -= len(member) + 1
    return ",".join(members)


def entries_of(header: str, audience: Audience, problems: list[str]) -> dict[str, str]:
    """What a header of this audience's says of registered variables. A problem's text has nothing of the header's: a
    stranger may have written it, and Python keeps the text of every warning."""
    if len(header) > MOST_BYTES:
        problems.append(f"{HEADER} has more than {MOST_BYTES} bytes, and is not read")
        header = ""
    members = header.split(",") if header else []
    if len(members) > MOST_MEMBERS:
        problems.append(f"{HEADER} has more than {MOST_MEMBERS} members, and the first {MOST_MEMBERS} are read")
        del members[MOST_MEMBERS:]
    return _parsed(members, registered_for(audience), problems)


def values_of(entries: Mapping[str, str], problems: list[str]) -> dict[ContextVar[Any], Any]:
    """The variables' values, for `assign`. What a problem's text has of a decoder's error is its type alone."""
    registered = _registered.by_name
    values = {}
    for name, text in entries.items():
        registration = registered.get(name)
        if registration is None:
            problems.append(f"{name}: {UNKNOWN}")
            continue
        try:
            # Most texts need no closer look.
            if not text.isascii() or len(text) > registration.max_size:
                _checked_text(text, registration.max_size)
            values[registration.var] = registration.decode(text)
        except _Refused as refusal:
            problems.append(f"{name}: {refusal}")
        except Exception as error:
            problems.append(f"{name}: its codec cannot read it ({type(error).__name__})")
    return values


def _parsed(members: Iterable[str], names: Container[str] | None, problems: list[str]) -> dict[str, str]:
    """The names and texts of a header's members: of those names, or of all."""
    entries: dict[str, str] = {}
    for member in members:
        name, equals, encoded = member.partition("=")
        # What most members are.
        if names is not None and name in names and _PLAIN.fullmatch(encoded) and len(member) <= MOST_MEMBER_BYTES:
            if equals and name not in entries:
                entries[name] = encoded
                continue
        name = name.strip(" \t")
        if names is not None and name not in names:
            continue
        # What follows a semicolon are properties, which have no place to go.
        encoded = encoded.partition(";")[0].strip(" \t")
        if not equals or not _TOKEN.fullmatch(name):
            problem = "this is no name=value"
        elif name in entries:
            problem = "it came before, and the first one counts"
        elif names is not None and len(member) > MOST_MEMBER_BYTES:
            problem = f"a member of more than {MOST_MEMBER_BYTES} bytes is not read"
        else:
            problem = "its encoding is broken"
            if _ENCODED.fullmatch(encoded):
                with contextlib.suppress(UnicodeDecodeError):
                    entries[name] = unquote_to_bytes(encoded.replace("+", " ")).decode()
                    continue
        problems.append(f"{name[:40]}: {problem}")
    return entries


def _found(carrier: Mapping[Any, Any], problems: list[str]) -> tuple[list[Any], str]:
    """The keys and the text of the carrier's header. Its name may be in any case, and be there more than once."""
    keys, texts = [], []
    for key, value in list(carrier.items()):
        if value is not None and isinstance(key, str) and len(key) == len(HEADER) and key.lower() == HEADER:
            keys.append(key)
            texts.append(text_of(value, problems))
    return keys, ",".join(texts)


def text_of(value: Any, problems: list[str]) -> str:
    """A header's text: some carriers have one value for a key, others a list of them."""
    if isinstance(value, str):
        return value
    values = [value] if isinstance(value, bytes) or not isinstance(value, Iterable) else list(value)
    texts = []
    for each in values:
        if isinstance(each, (str, bytes)):
            texts.append(each if isinstance(each, str) else each.decode("latin-1"))
        elif each is not None:
            problems.append(f"{HEADER} is no text, but a {type(each).__name__}")
    return ",".join(texts)


def _said(error: Exception) -> str:
    # The error may be of the user's own class.
    with contextlib.suppress(Exception):
        text = str(error)
        if text:
            return text
    return type(error).__name__


def report(problems: list[str], strict: bool) -> None:
    if not problems:
        return
    if strict:
        raise TravelError("; ".join(problems))
    for problem in problems:
        # At the caller of the public function.
        warnings.warn(f"a value does not travel: {problem}", TravelWarning, stacklevel=3)


keep_builtins()
