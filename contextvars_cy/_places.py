"""Lines of the program, apart from those of this package."""

from __future__ import annotations

from sys import _getframe
from types import FrameType
from typing import NamedTuple

from ._sealed import PACKAGE


class Place(NamedTuple):
    """A line of the program."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def place_of(frame: FrameType) -> Place:
    return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def program_frame() -> FrameType | None:
    """The program's frame that called this package."""
    frame: FrameType | None = _getframe(1)
    while frame is not None and f"{frame.f_globals.get('__name__')}.".startswith(f"{PACKAGE}."):
        frame = frame.f_back
    return frame
