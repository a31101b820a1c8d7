"""An object that stands for a variable's current value, using only the variable's public `get` and `set`."""

from __future__ import annotations

import copy
import math
import operator
import os
from collections.abc import Callable, Generator
from typing import Any, final

from .._context.twin import implement
from .._sealed import Sealed, published


@published
@final
class Proxy(Sealed):
    """An object that stands for whatever value a variable has at the moment. From `ContextVar.proxy`.

    Attributes, items, calls, operators, conversions, iteration, `with`, `await` and the like go to the current
    Context's value, and `isinstance` asks the value. An in-place operator, as in `proxy += 1`, sets the variable if the
    result is another object; the name keeps the proxy. `proxy.__wrapped__` is the value itself. Copying, deep copying
    and pickling give the value, or a copy of it, not a proxy.

    If the variable has no value, all of this raises a LookupError that says so. But `repr` works, `dir` is empty,
    `proxy.__class__` is Proxy, and every other attribute that begins with an underscore is an AttributeError: so
    `inspect`, `doctest`, `unittest.mock` and pytest can look at a module that has a proxy.

    `Proxy(var)` also takes variables of the standard library.

    >>> var = ContextVar("basket")
    >>> basket = var.proxy()
    >>> with var.set(["apple"]):
    ...     basket.append("pear")
    ...     basket += ["plum"]
    ...     len(basket), basket[-1], isinstance(basket, list), basket.__wrapped__
    (3, 'plum', True, ['apple', 'pear', 'plum'])
    """

    __slots__ = ("__weakref__", "_var")

    def __new__(cls, var: Any, /) -> Proxy:
        if not (hasattr(type(var), "get") and hasattr(type(var), "set")):
            raise TypeError(f"Proxy() takes a ContextVar, not {var!r}")
        self = object.__new__(cls)
        object.__setattr__(self, "_var", var)
        return self

    def __getattribute__(self, name: str) -> Any:
        if name == "__reduce_ex__":
            return object.__getattribute__(self, name)
        try:
            value = _value(self)
        except LookupError as error:
            if name == "__class__":
                return Proxy
            # Tools that inspect all objects ask for such names, and take this for a no.
            if name.startswith("_"):
                raise AttributeError(*error.args) from None
            raise
        return value if name == "__wrapped__" else getattr(value, name)

    def __repr__(self) -> str:
        try:
            value = _value(self)
        except LookupError:
            return f"<Proxy of {_var(self)!r}, which has no value>"
        return repr(value)

    def __dir__(self) -> list[str]:
        try:
            value = _value(self)
        except LookupError:
            return []
        return dir(value)

    def __await__(self) -> Generator[Any, Any, Any]:
        return _wait(_value(self)).__await__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The only item of a tuple: unpickling needs nothing of this package.
        return operator.getitem, ((_value(self),), 0)


_var: Callable[[Proxy], Any] = vars(Proxy)["_var"].__get__


def _value(proxy: Proxy) -> Any:
    var = _var(proxy)
    try:
        return var.get()
    except LookupError as error:
        # A default_factory may raise a LookupError of its own.
        if not error.args or error.args[0] is not var:
            raise
        raise LookupError(
            f"{var!r} has no value in the current Context, so its proxy stands for nothing: set the variable first, or "
            "give it a default"
        ) from None


async def _wait(value: Any) -> Any:
    return await value


def _forwarded(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Proxy, *args: Any, **kwargs: Any) -> Any:
        return function(_value(self), *args, **kwargs)

    return method


def _reflected(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def method(self: Proxy, other: Any) -> Any:
        return function(other, _value(self))

    return method


def _in_place(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def method(self: Proxy, other: Any) -> Proxy:
        value = _value(self)
        result = function(value, other)
        if result is not value:
            _var(self).set(result)
        return self

    return method


class _Special:
    """A method that no function calls. `with` looks up `__exit__` before its body, so it leaves what it entered."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, proxy: Proxy | None, kind: Any = None) -> Any:
        if proxy is None:
            return self
        value = _value(proxy)
        try:
            return getattr(value, self.name)
        except AttributeError:
            raise TypeError(f"{type(value).__name__!r} object has no {self.name}") from None

    def __call__(self, proxy: Proxy, *args: Any) -> Any:
        return self.__get__(proxy)(*args)


_BINARY = "add sub mul matmul truediv floordiv mod pow lshift rshift and xor or".split()
_OTHERS = "lt le eq ne gt ge neg pos invert index getitem setitem delitem contains".split()
_FUNCTIONS: tuple[Any, ...] = (
    *(setattr, delattr, str, bytes, format, hash, len, iter, reversed, next, os.fspath, copy.copy),
    *(abs, divmod, int, float, complex, round, math.trunc, math.floor, math.ceil, operator.length_hint),
)
_METHODS: dict[str, Callable[..., Any]] = {
    # These do what the interpreter does for a value: ask both sides, and name the value's type in an error.
    **{f"__{name}__": getattr(operator, f"__{name}__") for name in (*_BINARY, *_OTHERS)},
    **{f"__{function.__name__}__": function for function in _FUNCTIONS},
    # Takes three arguments too.
    "__pow__": pow,
    "__bool__": operator.truth,
    "__call__": lambda value, /, *args, **kwargs: value(*args, **kwargs),
    "__instancecheck__": lambda value, instance: isinstance(instance, value),
    "__subclasscheck__": lambda value, kind: issubclass(kind, value),
}
for _name, _function in _METHODS.items():
    setattr(Proxy, _name, _forwarded(_function))
for _name in _BINARY:
    setattr(Proxy, f"__r{_name}__", _reflected(_METHODS[f"__{_name}__"]))
    setattr(Proxy, f"__i{_name}__", _in_place(getattr(operator, f"__i{_name}__")))
setattr(Proxy, "__rdivmod__", _reflected(divmod))  # noqa: B010
for _name in "__enter__ __exit__ __aenter__ __aexit__ __aiter__ __anext__".split():
    setattr(Proxy, _name, _Special(_name))
implement("proxy", Proxy)
