"""An object of which every Context has its own attributes, on the engine's public names."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, NoReturn

from .._context.twin import ContextVar, Token
from .._hamt.twin import Hamt
from .._sealed import published
from .._sentinels import ABSENT, MISSING

if TYPE_CHECKING:
    from typing_extensions import Self


class _Signature:
    """That of a subclass's `__init__`, which `inspect` would not see behind `__new__`."""

    def __get__(self, local: Local | None, kind: type[Local]) -> Any:
        # Here, because importing it takes long.
        from inspect import Signature, signature

        if kind.__new__ is not Local.__new__:
            return None
        if kind.__init__ is object.__init__:
            return Signature()
        whole = signature(kind.__init__)
        return whole.replace(parameters=list(whole.parameters.values())[1:])


@published
class Local:
    """An object of which every Context has its own attributes: `threading.local` for tasks as well as threads.

    An attribute is seen where it was set, and in Contexts that are copied from there afterwards: a task sees what its
    creator had set, and neither sees what the other sets from then on. Getting one, setting one and deleting one take
    O(log n) in the number of attributes, and are the current Context's alone. AttributeError where the attribute is
    not set there. `vars(local)` is a read-only copy of all that is set there.

    A subclass may have methods, properties, slots, and class attributes, which serve where an attribute is not set.
    Its `__init__` runs once, as any does, and what that sets is set in the Context where it runs; `threading.local`
    runs it anew for every thread. A Local is neither copied nor pickled. After the Local of asgiref, without its
    `thread_critical=True`; that is `threading.local`.

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

    # One variable, whose value is a map of all attributes. A Context keeps every variable that was set in it, and its
    # value, until it ends itself: with a variable for each attribute, it would keep as many for each Local that is
    # gone, and the Local a table of them. And `del` needs no value that stands for none.
    __slots__: tuple[str, ...] = ("__weakref__", "_variable")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # What a slot holds, all Contexts would share.
        for name, attribute in list(vars(cls).items()):
            if type(attribute) is MemberDescriptorType:
                setattr(cls, name, _Slot(name))
        if "__slots__" in vars(cls):
            # attrs and dataclasses look here for what their next class inherits.
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
        # A data descriptor of the class has its name to itself: `__setattr__` never gives it to the map.
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
        # The first is the faster one.
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

    def __dir__(self) -> list[str]:
        return [*dir(type(self)), *_variable(self).get()]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"cannot copy or pickle {type(self).__name__!r} object: its attributes are each Context's own")


_Values = Hamt[str, Any]
_NONE: _Values = Hamt()

# Out of the class, where the name would be in a user's way.
_slot: Any = vars(Local)["_variable"]
_variable: Callable[[Local], ContextVar[_Values]] = _slot.__get__
del Local._variable  # type: ignore[attr-defined]
Local.__slots__ = ("__weakref__",)


class _Slot:
    """In the place of a slot of a subclass, where `object.__setattr__`, which attrs and dataclasses call, finds it."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, local: Local | None, kind: Any = None) -> Any:
        if local is None:
            # For a dataclass, anything else would be the field's default.
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
    """What the class has by that name. Not by getattr, which asks the class of the class, and descriptors, too."""
    for kind in type(local).__mro__:
        attribute = vars(kind).get(name, ABSENT)
        if attribute is not ABSENT:
            return attribute
    return ABSENT


def _own_dict(local: Local) -> Any:
    """What all Contexts share; an instance of a subclass that has no `__slots__` has one."""
    try:
        return object.__getattribute__(local, "__dict__")
    except AttributeError:
        return ()


def _delete(local: Local, name: str) -> None:
    if name not in _variable(local).get():
        raise _unset(local, name)
    _set(local, name, ABSENT)


def _set(local: Local, name: str, value: Any) -> None:
    """Set an attribute, or delete it where the value is ABSENT.

    A finaliser or a signal handler may change attributes in the middle, another one in the middle of that, or raise.
    """
    variable = _variable(local)
    expected = variable.get()
    stored = _with(expected, name, value)
    seen, token = False, None
    try:
        while True:
            # Called by an assignment: after a call the interpreter looks for signals, and one that was raised there
            # would leave nobody who knows what was replaced.
            (token,) = map(variable.set, (stored,))
            found = _replaced(token)
            if found is expected:
                return
            # The first came before this change was there to be seen, and this one goes on top of it. The others have
            # seen it: what they have changed goes on top of all.
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
    # Not `Hamt.merge`, which takes equal values for the same.
    for name in {*before, *after}:
        value = after.get(name, ABSENT)
        if value is not before.get(name, ABSENT):
            values = _with(values, name, value)
    return values


def _unset(local: Local, name: str) -> AttributeError:
    return AttributeError(f"{type(local).__name__!r} object has no attribute {name!r} in the current Context")


def _read_only(local: Local) -> AttributeError:
    return AttributeError(f"{type(local).__name__!r} object attribute '__dict__' is read-only")
