"""CPython's C API through ctypes, under `install`: functions that take a Context get the one that ours wraps."""

from __future__ import annotations

from typing import Any

from .._context.twin import Context

FUNCTIONS = ("PyContext_Enter", "PyContext_Exit", "PyContext_Copy")


def adapt_ctypes(ctypes: Any) -> None:
    kind: Any = ctypes.pythonapi._FuncPtr

    class TakesOurContexts(kind):  # type: ignore[misc]
        # Every class of functions has to define these.
        _flags_, _restype_ = kind._flags_, kind._restype_

        def __call__(self, *args: Any) -> Any:
            return super().__call__(*map(native, args))

    def native(argument: Any) -> Any:
        if type(argument) is ctypes.py_object:
            return ctypes.py_object(native(argument.value))
        return argument.native if type(argument) is Context else argument

    for name in FUNCTIONS:
        before = getattr(ctypes.pythonapi, name)
        function = TakesOurContexts((name, ctypes.pythonapi))
        function.argtypes, function.restype = before.argtypes, before.restype
        setattr(ctypes.pythonapi, name, function)
