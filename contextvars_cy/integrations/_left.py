"""What a request or a test leaves behind in variables, and where that was set."""

from __future__ import annotations

import reprlib
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from .. import MISSING, Context, ContextVar, Watcher, WatchEvent, current_context, watch
from .._places import Place, place_of, program_frame
from .._tracing.secrets import is_secret
from .._tracing.texts import SECRET, tried_repr

_WIDTH = 80
# By variable, the latest sets: the address of the value, and the place. Not the value, which would be kept alive.
_Sets = dict[ContextVar[Any], deque[tuple[int, Optional[Place]]]]


class Places:
    """Where variables were set in the Contexts that are followed; while there are none, this costs nothing."""

    def __init__(self) -> None:
        # By the Context's address, and None for all others.
        self._sets: dict[int | None, _Sets] = {}
        self._lock = threading.Lock()
        self._watcher: Watcher | None = None

    @contextmanager
    def following(self, context: Context | None) -> Iterator[None]:
        """Follow this Context, which the caller keeps alive, or with None all others, until the end of the block."""
        key = self._key(context)
        with self._lock:
            self._sets[key] = {}
            if self._watcher is None:
                self._watcher = watch(self._note)
        try:
            yield
        finally:
            with self._lock:
                del self._sets[key]
                if not self._sets and self._watcher is not None:
                    self._watcher.cancel()
                    self._watcher = None

    def of(self, var: ContextVar[Any], value: object, context: Context) -> Place | None:
        """Where the variable got this value, in that Context, or else in one of all others."""
        for key in (self._key(context), None):
            for address, place in reversed(self._sets.get(key, {}).get(var, ())):
                if address == id(value):
                    return place
        return None

    @staticmethod
    def _key(context: Context | None) -> int | None:
        return None if context is None else id(context)

    def _note(self, event: WatchEvent) -> None:
        if event.kind != "set" or event.variable is None:
            return
        sets = self._sets.get(id(event.context), self._sets.get(None))
        if sets is not None:
            # As many as a value that was set before may come back from, by `reset`.
            of_this_one = sets.setdefault(event.variable, deque(maxlen=16))
            frame = program_frame()
            of_this_one.append((id(event.value), None if frame is None else place_of(frame)))


def left_behind(before: Context, after: Context | None = None) -> dict[ContextVar[Any], Any]:
    """The variables that have another value than before, without those that have none."""
    if after is None:
        after = current_context()
    return {
        var: value
        for var, value in after.copy().items()
        # Under `install` a Context shows the standard library's variables too.
        if type(var) is ContextVar and before.get(var, MISSING) is not value
    }


class _Repr(reprlib.Repr):
    """What a `repr` would be of, if it ends in some lines: it looks at a part of large containers."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _WIDTH


def shown_of(var: ContextVar[Any], value: object) -> str:
    return SECRET if is_secret(var) else shown(value)


def shown(value: object) -> str:
    """The value's repr, cut, in one line, and without what a terminal would take for a command."""
    text = " ".join(tried_repr(value, _Repr().repr).split())
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
