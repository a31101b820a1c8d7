"""Debug mode, native host: warns of values that were lost because another library brought values back.

asgiref and pytest-asyncio bring the values of a copied Context back variable by variable. They see all of ours as one
native variable. So the copy's inherited values come back with those that it set, and replace what was set here
meanwhile, without a call of our code. Debug mode remembers what is set in each Context, and checks at the next `get` or
`set` of a variable whether it has an earlier value again. (If an interrupt or the end of the stack prevented a note,
that may look the same.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from sys import is_finalizing
from typing import Any
from weakref import ref

from .._context.debug import warn
from .._context.twin import ContextVar, current_context, note_changes_by
from .._sentinels import ABSENT
from .watch import Failure

_LOST = (
    "{} set in this Context and lost since: a library has brought back the variables of another Context one by one, "
    "and sees those of contextvars_cy as one. Run the program by `python -m contextvars_cy run`, or call "
    "contextvars_cy.install() in its first line"
)
_DEAD = object()
# By the address of the native Context.
_known: dict[int, _Known] = {}
# The latest changes in all of them: the address, the variable and its value.
_latest: deque[tuple[int, ContextVar[Any], Callable[[], Any]]] = deque(maxlen=1000)


class _Known:
    """What was set in one Context: for each variable the values it has had there, the current one last."""

    def __init__(self, native: Any) -> None:
        address = self.address = id(native)
        self.native = ref(native, lambda _: _known.pop(address, None))
        self.values: dict[ContextVar[Any], deque[Callable[[], Any]]] = {}

    def take_lost(self, present: Callable[[ContextVar[Any]], Any]) -> list[ContextVar[Any]]:
        lost = []
        for var, values in list(self.values.items()):
            value = present(var)
            if value is not values[-1]():
                del self.values[var]
                # A new value was set in the Context that was brought back; so was an old one, if it was set there last.
                if any(value is before() for before in values) and not self._is_set_elsewhere(var, value):
                    lost.append(var)
        return lost

    def _is_set_elsewhere(self, var: ContextVar[Any], value: Any) -> bool:
        for address, changed, latest in reversed(tuple(_latest)):
            if changed is var:
                return address != self.address and latest() is value
        return False


def _holding(value: Any) -> Callable[[], Any]:
    """A reference, weak if the value allows that."""
    try:
        reference = ref(value)
    except TypeError:
        return lambda: value

    def held() -> Any:
        value = reference()
        return _DEAD if value is None else value

    return held


def _note(kind: str, var: ContextVar[Any] | None, old: Any, new: Any) -> None:
    """Runs after a change, which no error here may undo: neither a warning turned error, nor a full stack."""
    # By then other modules have lost their names.
    if is_finalizing():
        return
    try:
        _note_all(old if var is None else {var: old}, new if var is None else {var: new})
    except Exception as error:
        Failure().error = error


def _note_all(before: dict[ContextVar[Any], Any], after: dict[ContextVar[Any], Any]) -> None:
    context = current_context()
    known = _known_of(context.native)
    try:
        noted = [(known.values.get(var), value) for var, value in before.items()]
        if any(values and values[-1]() is not value for values, value in noted):
            _warn(known.take_lost(lambda var: before[var] if var in before else context.get(var, ABSENT)))
    finally:
        for var, value in after.items():
            # Removed during the change, so that an interrupt leaves nothing to compare with.
            values = known.values.pop(var, None) or deque([_holding(before[var])], maxlen=16)
            values.append(_holding(value))
            known.values[var] = values
            _latest.append((known.address, var, values[-1]))


def _known_of(native: Any) -> _Known:
    known = _known.get(id(native))
    if known is None:
        known = _known[id(native)] = _Known(native)
    return known


def _look(var: ContextVar[Any]) -> None:
    if not _known or is_finalizing():
        return
    context = current_context()
    known = _known.get(id(context.native))
    values = known and known.values.get(var)
    if known and values and context.get(var, ABSENT) is not values[-1]():
        _warn(known.take_lost(lambda each: context.get(each, ABSENT)))


def _warn(lost: list[ContextVar[Any]]) -> None:
    if lost:
        names = ", ".join(sorted(var.name for var in lost))
        warn(_LOST.format(f"{names} {'was' if len(lost) == 1 else 'were'}"))


note_changes_by(_note, _look)
