"""Sets that are interrupted by code that sets, once, twice, at any depth: none is lost."""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, assign, current_context
from interpreters import CPYTHON, NATIVE_REFERENCE, counts_on_the_gil

VAR: ContextVar[object] = ContextVar("VAR", default="default")
OTHER = ContextVar("OTHER", default="default")
MARKS: list[ContextVar[object]] = [ContextVar(f"mark {number}") for number in range(50)]
DEPTH = 40


class Scene:
    """What an operation begins with. Each operation says what the variables have in the end."""

    def __init__(self) -> None:
        self.token = VAR.set("old")
        self.assignment = assign({OTHER: "old"})

    def set(self) -> tuple[str, str]:
        VAR.set("new")
        return "new", "old"

    def reset(self) -> tuple[str, str]:
        VAR.reset(self.token)
        return "default", "old"

    def unset(self) -> tuple[str, str]:
        VAR.unset()
        return "default", "old"

    def with_token(self) -> tuple[str, str]:
        with VAR.set("new"):
            pass
        return "old", "old"

    def assign(self) -> tuple[str, str]:
        assign({VAR: "new", OTHER: "new"})
        return "new", "new"

    def undo(self) -> tuple[str, str]:
        self.assignment.undo()
        return "old", "default"

    def look(self) -> tuple[str, str]:
        current_context()
        return "old", "old"


OPERATIONS = [name for name in vars(Scene) if not name.startswith("_")]


class Cycle:
    """Garbage whose finaliser sets a mark, and leaves more garbage."""

    def __init__(self, left: int, done: list[ContextVar[object]]) -> None:
        self.cycle = self
        self.left = left
        self.done = done

    def __del__(self) -> None:
        MARKS[self.left].set("set")
        self.done.append(MARKS[self.left])
        if self.left:
            Cycle(self.left - 1, self.done)


@pytest.mark.skipif(not CPYTHON, reason="the collector cannot be had at every allocation here")
@counts_on_the_gil
@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_finalisers_that_set(operation: str) -> None:
    def work() -> None:
        done: list[ContextVar[object]] = []
        scenes = []
        before = gc.get_threshold()
        gc.set_threshold(1)
        Cycle(DEPTH, done)
        try:
            while len(done) <= DEPTH:
                # The collector runs when more has been made than let go of.
                scenes.append(Scene())
                expected = getattr(scenes[-1], operation)()
                assert (VAR.get(), OTHER.get()) == expected
                VAR.unset()
                OTHER.unset()
        finally:
            gc.set_threshold(*before)
        assert [mark.name for mark in done if not mark.is_set()] == []

    Context().run(work)


class Interrupted:
    """Has `interrupt(number)` called before certain lines of our modules, while a function runs."""

    def __init__(
        self, function: Callable[[], Any], moments: tuple[int, ...], interrupt: Callable[[int], object]
    ) -> None:
        self.lines = 0
        self.moments = moments
        self.interrupt = interrupt
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            self.result = function()
        finally:
            sys.settrace(before)

    def trace(self, frame: FrameType, event: str, argument: object) -> Callable[[FrameType, str, object], Any] | None:
        if not frame.f_globals["__name__"].startswith("contextvars_cy."):
            return None
        if event == "line":
            if self.lines in self.moments:
                self.interrupt(self.moments.index(self.lines))
            self.lines += 1
        return self.trace


def set_and_unset(number: int) -> None:
    MARKS[2].set("never seen")
    MARKS[2].unset()
    MARKS[number].set(number)
    assert MARKS[number].get() == number


if NATIVE_REFERENCE:
    # The compiled twin has no lines. On the thread host a set has two that nothing but a trace function comes between.
    sets_in_one_line = pytest.mark.skipif(
        not CPYTHON,
        reason="here Python code sets a native variable, in two lines that a trace function can come between",
    )

    @sets_in_one_line
    @pytest.mark.parametrize("operation", ["set", "undo"])
    def test_every_pair_of_lines(operation: str) -> None:
        def work(moments: tuple[int, ...]) -> int:
            scene = Scene()
            interrupted = Interrupted(getattr(scene, operation), moments, set_and_unset)
            assert (VAR.get(), OTHER.get()) == interrupted.result
            for number, moment in enumerate(moments):
                assert not moment < interrupted.lines or MARKS[number].get(None) == number, moments
            assert not MARKS[2].is_set()
            return interrupted.lines

        lines = Context().run(work, ())
        assert lines > 5
        for moments in itertools.combinations(range(lines + 20), 2):
            Context().run(work, moments)

    @sets_in_one_line
    def test_each_set_is_on_top_of_another() -> None:
        def work(moments: tuple[int, ...]) -> int:
            VAR.set("old")
            replaced: dict[object, object] = {}

            def set_too(number: int) -> None:
                token = VAR.set(number)
                replaced[token.old_value] = number

            interrupted = Interrupted(lambda: VAR.set("new"), moments, set_too)
            replaced[interrupted.result.old_value] = "new"
            values: list[object] = ["old"]
            while values[-1] in replaced:
                values.append(replaced[values[-1]])
            assert values[-1] == VAR.get()
            assert len(values) == 2 + sum(moment < interrupted.lines for moment in moments)
            return interrupted.lines

        lines = Context().run(work, ())
        for moments in itertools.combinations(range(lines + 20), 2):
            Context().run(work, moments)
