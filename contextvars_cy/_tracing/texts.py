"""What is kept of a program's values: texts, so that nothing of the program stays alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .secrets import is_secret

# Characters of a value's repr that are kept.
WIDTH = 200
SECRET = "<secret>"


def shown(value: object) -> str:
    """A value's repr, cut; what it raises instead if it raises."""
    # Of a long text, the repr of its beginning is the beginning of its repr.
    beginning = value[: WIDTH + 1] if type(value) in (str, bytes) else value  # type: ignore[index]
    return cut(tried_repr(beginning, repr))


def tried_repr(value: object, represent: Callable[[object], str]) -> str:
    try:
        return represent(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # Also a SystemExit, which is not meant for who looks.
        return f"<{_name_of(value)}, whose repr raises {_name_of(error)}>"


def _name_of(thing: object) -> str:
    # Without a metaclass, which may raise.
    name: str = vars(type)["__name__"].__get__(type(thing))
    return name


def cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def shown_of(var: Any, value: object) -> str:
    return SECRET if is_secret(var) else shown(value)


def printable(text: str) -> str:
    """In one line, without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
