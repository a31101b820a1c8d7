"""An object with its own attributes in every Context, using only the engine's public names."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, NoReturn

from .._context.twin import ContextVar, Token
from .._hamt.twin import Hamt
from .._reprs import recursive_repr, values_in_a_line
from .._sealed import published
from .._sentinels import ABSENT, MISSING

if TYPE_CHECKING:
    from typing_extensions import Self


class _Signature:
    """The signature of a subclass's `__init__`, which `__new__` would hide from `inspect`."""

    def __get__(self, local: Local | None, kind: type[Local]) -> Any:
        # Imported here, because it takes long.
        from inspect import Signature, signature

        if kind.__new__ is not Local.__new__:
            return None
        if kind.__init__ is object.__init__:
            return Signature()
        whole = signature(kind.__init__)
        return whole.replace(parameters=list(whole.parameters.values())[1:])


@published
class Local:
    """An object with its own attributes in every Context: `threading.local` for tasks as well as threads.

    An attribute is visible in the Context where it was set, and in later copies of it: a task sees what its creator had
    set, and neither sees what the other sets afterwards. Getting, setting and deleting an attribute take O(log n) in
    the number of attributes, and affect only the current Context. AttributeError if the attribute is not set there.
    `vars(local)` is a read-only copy of all attributes set there.

    A subclass may have methods, properties, slots, and class attributes, which serve as defaults. Its `__init__` runs
    once, as usual, and sets attributes in the Context where it runs; `threading.local` runs it anew for every thread. A
    Local cannot be copied or pickled. Modelled on asgiref's Local, without its `thread_critical=True`; that is
    `threading.local`.

    >>> local = Local()
    >>> local.user = "ada"
    >>> with copy_context():
    ...     local.user = "grace"
    >>> local.user
    'ada'
    >>> del local.user
    >>> local.user
    Traceback (most recent call last):
    AttributeError: 'Local' object has no attribute 'user' in the current Context
    """

    # One variable holds a map of all attributes. A Context keeps every variable that was set in it, and its value, as
    # long as it lives: with a variable per attribute, it would keep as many for each Local that is gone, and the Local
    # would need a table of them. And `del` needs no value that stands for none.
    __slots__: tuple[str, ...] = ("__weakref__", "_variable")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # All Contexts would share the value in a slot.
        for name, attribute in list(vars(cls).items()):
            if type(attribute) is MemberDescriptorType:
                setattr(cls, name, _Slot(name))
        if "__slots__" in vars(cls):
            # attrs and dataclasses look here for what a subclass inherits.
            cls.__slots__ = tuple(name for name in ("__dict__", "__weakref__") if name in vars(cls))

    __signature__ = _Signature()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError(f"{cls.__name__}() takes no arguments; set attributes, or give a subclass an __init__")
        self = object.__new__(cls)
        _slot.__set__(self, ContextVar(f"{cls.__name__} attributes", default=_NONE))
        return self

    def __getattribute__(self, name: str) -> Any:
        values = _variable(self).get()
        # The name of a data descriptor is never in the map: `__setattr__` does not put it there.
        value, found = values.find(name)
        if found:
            return value
        if name == "__dict__":
            return MappingProxyType(dict(values))
        if name in _own_dict(self):
            raise TypeError(
                f"object.__setattr__ has set {name!r} of this {type(self).__name__!r} object, as frozen dataclasses "
                "and attrs do, and all Contexts would share it; give the class slots (slots=True), or use setattr"
            )
        # The first test is faster.
        if not hasattr(type(self), name) and _of_class(self, name) is ABSENT:
            raise _unset(self, name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__dict__":
            raise _read_only(self)
        if hasattr(type(_of_class(self, name)), "__set__"):
            object.__setattr__(self, name, value)
        else:
            _set(self, name, value)

    def __delattr__(self, name: str) -> None:
        if name == "__dict__":
            raise _read_only(self)
        if hasattr(type(_of_class(self, name)), "__set__"):
            object.__delattr__(self, name)
        else:
            _delete(self, name)

    @recursive_repr("{...}")
    def __repr__(self) -> str:
        kind = type(self)
        values = values_in_a_line(_variable(self).get().items())
        return f"<{kind.__module__}.{kind.__qualname__} {values} at {id(self):#x}>"

    def __dir__(self) -> list[str]:
        return [*dir(type(self)), *_variable(self).get()]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"cannot copy or pickle {type(self).__name__!r} object: its attributes are each Context's own")


_Values = Hamt[str, Any]
_NONE: _Values = Hamt()

# Not in the class, where the name could clash with a user's.
_slot: Any = vars(Local)["_variable"]
_variable: Callable[[Local], ContextVar[_Values]] = _slot.__get__
del Local._variable  # type: ignore[attr-defined]
Local.__slots__ = ("__weakref__",)


class _Slot:
    """Replaces a slot of a subclass; `object.__setattr__`, which attrs and dataclasses call, finds it."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, local: Local | None, kind: Any = None) -> Any:
        if local is None:
            # A dataclass would take anything else for the field's default.
            raise AttributeError(f"type object {kind.__name__!r} has no attribute {self._name!r}")
        value = _variable(local).get().get(self._name, ABSENT)
        if value is ABSENT:
            raise _unset(local, self._name)
        return value

    def __set__(self, local: Local, value: Any) -> None:
        _set(local, self._name, value)

    def __delete__(self, local: Local) -> None:
        _delete(local, self._name)


def _of_class(local: Local, name: str) -> Any:
    """The class's attribute of that name. Not by getattr, which also asks the metaclass and descriptors."""
    for kind in type(local).__mro__:
        attribute = vars(kind).get(name, ABSENT)
        if attribute is not ABSENT:
            return attribute
    return ABSENT


def _own_dict(local: Local) -> Any:
    """The `__dict__` that all Contexts share; instances have one if the subclass has no `__slots__`."""
    try:
        return object.__getattribute__(local, "__dict__")
    except AttributeError:
        return ()


def _delete(local: Local, name: str) -> None:
    if name not in _variable(local).get():
        raise _unset(local, name)
    _set(local, name, ABSENT)


def _set(local: Local, name: str, value: Any) -> None:
    """Set an attribute, or delete it if the value is ABSENT.

    A finaliser or a signal handler may change attributes in the middle, be interrupted by another, or raise.
    """
    variable = _variable(local)
    expected = variable.get()
    stored = _with(expected, name, value)
    seen, token = False, None
    try:
        while True:
            # `map` makes the call within an assignment: after a plain call the interpreter checks for signals, and an
            # exception there would lose what was replaced.
            (token,) = map(variable.set, (stored,))
            found = _replaced(token)
            if found is expected:
                return
            # The first interruption came before this change, so this change goes on top of it. The later ones saw this
            # change, so theirs go on top.
            redone = _with_changes(stored, expected, found) if seen else _with(found, name, value)
            seen, expected, stored, token = True, stored, redone, None
    except BaseException:
        if token is not None:
            seen, expected, stored = True, stored, _with_changes(stored, expected, _replaced(token))
        while seen:
            found = _replaced(variable.set(stored))
            seen, expected, stored = found is not expected, stored, _with_changes(stored, expected, found)
        raise


def _replaced(token: Token[_Values]) -> _Values:
    found = token.old_value
    return _NONE if found is MISSING else found


def _with(values: _Values, name: str, value: Any) -> _Values:
    return values.discard(name) if value is ABSENT else values.set(name, value)


def _with_changes(values: _Values, before: _Values, after: _Values) -> _Values:
    # Not `Hamt.merge`, which treats equal values as the same.
    for name in {*before, *after}:
        value = after.get(name, ABSENT)
        if value is not before.get(name, ABSENT):
            values = _with(values, name, value)
    return values


def _unset(local: Local, name: str) -> AttributeError:
    return AttributeError(f"{type(local).__name__!r} object has no attribute {name!r} in the current Context")


def _read_only(local: Local) -> AttributeError:
    return AttributeError(f"{type(local).__name__!r} object attribute '__dict__' is read-only")
