"""What types of C are by themselves, for the reference twin's: nobody's base, and pickled only where they say how."""

from __future__ import annotations

from typing import Any

from ._messages import refuse_to_pickle

# Where users find the public names: a copy of the package may have a name of its own.
PACKAGE = __name__.rpartition(".")[0]


class Sealed:
    """The base of every public class."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for base in cls.__bases__:
            if issubclass(base, Sealed) and base is not Sealed:
                raise TypeError(f"type 'contextvars_cy.{base.__name__}' is not an acceptable base type")

    def __reduce__(self) -> Any:
        refuse_to_pickle(type(self).__name__)
