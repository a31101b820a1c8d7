"""An object of which every Context has its own attributes, on the engine's public names."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from . import MISSING, ContextVar, Hamt
from ._sealed import PACKAGE

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


class Local:
    """An object of which every Context has its own attributes: `threading.local` for tasks as well as threads.

    An attribute is seen where it was set, and in Contexts that are copied from there afterwards: a task sees what its
    creator had set, and neither sees what the other sets from then on. Getting one, setting one and deleting one take
    O(log n) in the number of attributes, and are the current Context's alone. AttributeError where the attribute is
    not set there. `vars(local)` is a read-only copy of all that is set there.

    A subclass may have methods, properties, and class attributes, which serve where an attribute is not set. Its
    `__init__` runs once, as any does, and what that sets is set in the Context where it runs; `threading.local` runs
    it anew for every thread. A Local is neither copied nor pickled. After the Local of asgiref, without its
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
    __slots__ = ("__weakref__", "_variable")

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
        if hasattr(type(self), name):
            return object.__getattribute__(self, name)
        raise _unset(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if _is_descriptor(self, name):
            object.__setattr__(self, name, value)
        else:
            _change(_variable(self), lambda values: values.set(name, value))

    def __delattr__(self, name: str) -> None:
        if _is_descriptor(self, name):
            object.__delattr__(self, name)
        elif name in _variable(self).get():
            _change(_variable(self), lambda values: values.discard(name))
        else:
            raise _unset(self, name)

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


def _is_descriptor(local: Local, name: str) -> bool:
    return hasattr(type(getattr(type(local), name, None)), "__set__")


def _change(variable: ContextVar[_Values], change: Callable[[_Values], _Values]) -> None:
    """A finaliser or a signal handler may set another attribute in the middle, which would be lost: look again."""
    before = expected = variable.get()
    while True:
        changed = change(before)
        found = variable.set(changed).old_value
        if found is MISSING:
            found = _NONE
        if found is expected:
            return
        before, expected = found, changed


def _unset(local: Local, name: str) -> AttributeError:
    return AttributeError(f"{type(local).__name__!r} object has no attribute {name!r} in the current Context")


Local.__module__ = PACKAGE
