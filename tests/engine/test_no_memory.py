"""Where memory runs out, an operation on variables and Contexts raises MemoryError and has done nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, assign, backend, copy_context, current_context, host, thread_state
from no_memory import LACK, NO_MEMORY_MARKS, attempts

pytestmark = NO_MEMORY_MARKS

SET: ContextVar[object] = ContextVar("SET", default="default")
UNSET: ContextVar[object] = ContextVar("UNSET", default="default")
MADE: ContextVar[dict[str, int]] = ContextVar("MADE", default_factory=dict)
# As many as give a Context's tree more than one node.
MANY: list[ContextVar[object]] = [ContextVar(f"variable {number}") for number in range(40)]


class Scene:
    """A Context in which an operation is done, Contexts that it is done to, and tokens."""

    def __init__(self) -> None:
        self.home = Context()
        self.context = Context()
        self.equal = Context()
        for context in (self.home, self.context, self.equal):
            context.run(self.fill)
        self.set_token = self.home.run(SET.set, "new")
        self.unset_token = self.home.run(UNSET.set, "new")
        self.assignment = self.home.run(assign, {SET: "newest", MANY[39]: "newest"})
        self.used_token = self.home.run(SET.set, "newer")
        self.home.run(SET.reset, self.used_token)

    def fill(self) -> None:
        for number, var in enumerate(MANY):
            var.set(number)
        SET.set("old")

    def state(self) -> tuple[list[dict[str, object]], list[bool]]:
        """What the Contexts hold, that each can be entered, and which tokens are used."""
        contents = []
        for context in (self.home, self.context, self.equal):
            # One that was left entered would be refused.
            assert context.run(current_context) is context
            contents.append({var.name: value for var, value in context.items()})
            assert len(contents[-1]) == len(context)
        return contents, [
            " used " in repr(token) or " undone " in repr(token)
            for token in (self.set_token, self.unset_token, self.used_token, self.assignment)
        ]


def with_a_context(scene: Scene) -> object:
    with scene.context:
        return SET.get()


def enter_and_exit(scene: Scene) -> None:
    state = thread_state()
    state.enter(scene.context)
    state.exit(scene.context)


def name_and_value(item: tuple[ContextVar[Any], object]) -> tuple[str, object]:
    return item[0].name, item[1]


# No list comprehension of new objects: without memory for the list, a debug build of CPython (3.14, 3.15) ends itself.
def names(variables: Iterable[ContextVar[Any]]) -> tuple[str, ...]:
    return tuple(map(attrgetter("name"), variables))


def names_and_values(items: Iterable[tuple[ContextVar[Any], object]]) -> tuple[tuple[str, object], ...]:
    return tuple(map(name_and_value, items))


OPERATIONS: dict[str, Callable[[Scene], object]] = {
    "ContextVar": lambda scene: ContextVar("name", default=1).name,
    "repr of a variable": lambda scene: repr(SET) == repr(SET),
    "get": lambda scene: SET.get(),
    "get with a default": lambda scene: UNSET.get(1),
    "set": lambda scene: SET.set("newer").old_value,
    "set of a variable without a value": lambda scene: Context().run(UNSET.set, 1).old_value,
    "reset": lambda scene: SET.reset(scene.set_token),
    "unset": lambda scene: SET.unset().old_value,
    "is_set": lambda scene: SET.is_set(),
    "get that makes the value": lambda scene: MADE.get(),
    "try_reset": lambda scene: SET.try_reset(scene.set_token),
    "try_reset in another Context": lambda scene: scene.context.run(SET.try_reset, scene.set_token),
    "assign": lambda scene: assign({SET: "newer", UNSET: "newer", MANY[39]: "newer"}) is None,
    "undo": lambda scene: scene.assignment.undo(),
    "reset to no value": lambda scene: UNSET.reset(scene.unset_token),
    "entering a token": lambda scene: scene.set_token.__enter__() is scene.set_token,
    "leaving a token": lambda scene: scene.set_token.__exit__(None, None, None),
    "repr of a token": lambda scene: repr(scene.used_token) == repr(scene.used_token),
    "Context": lambda scene: len(Context()),
    "copy": lambda scene: scene.context.copy() == scene.context,
    "run": lambda scene: scene.context.run(SET.get),
    "run with arguments": lambda scene: scene.context.run(dict, [("a", 1)], b=2),
    "run that sets": lambda scene: scene.context.run(SET.set, "newer").old_value,
    "with a Context": with_a_context,
    "in": lambda scene: SET in scene.context,
    "[]": lambda scene: scene.context[SET],
    "get of a Context": lambda scene: scene.context.get(UNSET, 1),
    "len": lambda scene: len(scene.context),
    "iterating": lambda scene: names(scene.context),
    "keys": lambda scene: names(scene.context.keys()),
    "values": lambda scene: list(scene.context.values()),
    "items": lambda scene: names_and_values(scene.context.items()),
    "items that are kept": lambda scene: names_and_values(list(scene.context.items())),
    "== of an equal Context": lambda scene: scene.context == scene.equal,
    "== of another Context": lambda scene: scene.context == scene.home,
    "copy_context": lambda scene: copy_context() == scene.home,
    "current_context": lambda scene: current_context() is scene.home,
    "thread_state": lambda scene: thread_state().context is scene.home,
    "enter and exit": enter_and_exit,
}
# Before CPython 3.14 the native set itself crashes where memory lacks for its token and for the set.
LASTING = [False, True] if backend == "cython" and (host == "thread" or sys.version_info >= (3, 14)) else [False]


def undisturbed(name: str) -> tuple[object, object]:
    scene = Scene()
    return scene.home.run(OPERATIONS[name], scene), scene.state()


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("lasting", LASTING)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_lack_of_memory_leaves_all_as_it_was(name: str, lasting: bool) -> None:
    scenes = [Scene()]
    before = scenes[-1].state()
    expected = undisturbed(name)
    for outcome in attempts(lambda: scenes[-1].home.run(OPERATIONS[name], scenes[-1]), lasting):
        if outcome is LACK:
            assert scenes[-1].state() == before
        else:
            assert (outcome, scenes[-1].state()) == expected
            scenes.append(Scene())


def test_the_first_operation_of_a_thread_that_lacks_memory() -> None:
    outcomes: list[object] = []

    def operate() -> None:
        outcomes.extend(attempts(thread_state, lasting=backend == "cython"))
        outcomes.append(thread_state())

    thread = threading.Thread(target=operate)
    thread.start()
    thread.join()
    assert outcomes[0] is LACK
    assert len(set(outcomes) - {LACK}) == 1
