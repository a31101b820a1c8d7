"""Lines of the program, apart from those of this package."""

from __future__ import annotations

from sys import _getframe
from types import FrameType
from typing import NamedTuple

from ._sealed import PACKAGE


class Place(NamedTuple):
    """A line of the program. Its `str` is `file:line in function`.

    >>> str(Place("app.py", 12, "handle"))
    'app.py:12 in handle'
    """

    file: str
    """The path of the source, as its code object has it."""

    line: int
    """0 if the instruction stands for no line."""

    function: str
    """The name of the function, `<module>` outside of any."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def place_of(frame: FrameType) -> Place:
    # None at an instruction that stands for no line.
    return Place(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name)


def program_frame() -> FrameType | None:
    """The program's frame that called this package."""
    frame: FrameType | None = _getframe(1)
    while frame is not None and f"{frame.f_globals.get('__name__')}.".startswith(f"{PACKAGE}."):
        frame = frame.f_back
    return frame
