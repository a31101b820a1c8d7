"""Random programs for the end of a thread or of the process: finalisers that use native variables, decimal and ours.

Decimal is used at the end alone, and once: CPython's own variables crash when they are read in a thread's first Context
and again after it is gone. So decimal is left out on the thread host, where values go before that Context, or with the
next thread.

`main(SEED)` fills the main thread, for a process that ends then.
"""

from __future__ import annotations

import _thread
import builtins
import contextvars
import functools
import random
import sys
import threading
import traceback
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from contextvars_cy import (
    Context,
    ContextVar,
    Hamt,
    assign,
    copy_context,
    current_context,
    host,
    thread_state,
)

# What follows runs when the interpreter has emptied `builtins`.
globals().update({name: value for name, value in vars(builtins).items() if not name.startswith("_")})

VARIABLES: list[ContextVar[Any]] = [ContextVar(f"variable {number}", default=None) for number in range(40)]
NATIVE: contextvars.ContextVar[object] = contextvars.ContextVar("native")


def set_and_reset(variable: ContextVar[Any], value: object) -> None:
    variable.reset(variable.set(value))


def set_natively(variable: ContextVar[Any], value: object) -> None:
    NATIVE.set(None)


def compute(variable: ContextVar[Any], value: object) -> None:
    Decimal(1) / 3


def run(variable: ContextVar[Any], value: object) -> None:
    context = Context()
    context.run(variable.set, value)
    context.run(variable.get)
    context.copy()


def enter(variable: ContextVar[Any], value: object) -> None:
    with copy_context() as context:
        variable.set(value)
        assert current_context() == context


def assign_and_undo(variable: ContextVar[Any], value: object) -> None:
    with assign({variable: value, VARIABLES[0]: value}):
        VARIABLES[0].get()


def look_around(variable: ContextVar[Any], value: object) -> None:
    context = current_context()
    assert current_context() is context
    for _ in range(3):
        variable.get()
    variable.is_set()
    dict(context.items())


def step_by_hand(variable: ContextVar[Any], value: object) -> None:
    state, context = thread_state(), Context()
    assert state is thread_state()
    state.enter(context)
    variable.set(value)
    state.exit(context)


def change_a_map(variable: ContextVar[Any], value: object) -> None:
    assert Hamt({1: value}).set(2, value).delete(1)[2] is value


STEPS: list[Callable[[ContextVar[Any], Any], object]] = [
    ContextVar.set,
    lambda variable, value: variable.get(),
    lambda variable, value: variable.unset(),
    lambda variable, value: variable.try_reset(variable.set(value)),
    set_and_reset,
    set_natively,
    run,
    enter,
    assign_and_undo,
    look_around,
    step_by_hand,
    change_a_map,
]
if host == "native":
    STEPS.append(compute)


class Value:
    """Its finaliser takes some steps, with values whose finalisers take fewer."""

    cycle: Value

    def __init__(
        self,
        choose: random.Random,
        against_decimal: list[str],
        ended: Callable[[], object],
        failed: Callable[[object, BaseException], object],
        depth: int = 2,
    ) -> None:
        # While this holds a reason, `compute` is left out.
        self.against_decimal = against_decimal
        self.ended = ended
        self.failed = failed
        self.steps = [(step, choose.choice(VARIABLES)) for step in choose.choices(STEPS, k=3)]
        self.values = [Value(choose, against_decimal, ended, failed, depth - 1) if depth else None for _ in self.steps]

    def __del__(self) -> None:
        step = None
        try:
            while self.steps:
                step, variable = self.steps.pop()
                value = self.values.pop()
                if step is compute and self.against_decimal:
                    continue
                step(variable, value)
                if step is compute:
                    self.against_decimal.append("a second use of decimal")
        except BaseException as error:
            self.failed(step, error)
        self.ended()


def fill(choose: random.Random, value: Callable[[], Value]) -> None:
    """Put values into the thread's first Context, and look at some."""
    if choose.random() < 0.2:
        NATIVE.set(value())
        VARIABLES[0].set(None)
    else:
        for _ in range(choose.randrange(1, 6)):
            choose.choice(VARIABLES[:4]).set(value())
    for _ in range(choose.randrange(4)):
        choose.choice([look_around, enter, assign_and_undo])(choose.choice(VARIABLES), None)


def in_threads(seed: int, threads: int) -> tuple[list[None], list[None], list[object]]:
    """Fill threads of both kinds and see them end: how many values have ended, and what failed in their finalisers."""
    choose = random.Random(seed)
    made: list[None] = []
    ended: list[None] = []
    failures: list[object] = []

    def value() -> Value:
        made.append(None)
        return Value(
            choose, against_decimal, functools.partial(ended.append, None), lambda *failure: failures.append(failure)
        )

    def work() -> None:
        try:
            fill(choose, value)
        except BaseException:
            failures.append(traceback.format_exc())
        finally:
            against_decimal.clear()
            filled.set()

    for _ in range(threads):
        against_decimal, filled = ["the thread"], threading.Event()
        if choose.random() < 0.5:
            _thread.start_new_thread(work, ())
            filled.wait()
        else:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    return made, ended, failures


def main(seed: int) -> None:
    choose = random.Random(seed)
    write = sys.stderr.write
    against_decimal = ["the process"]
    value = functools.partial(Value, choose, against_decimal, int, lambda *failure: write(f"{failure}\n"))
    if choose.random() < 0.5:
        fill(choose, value)
    else:
        VARIABLES[0].set(None)
        cycle = value()
        cycle.cycle = cycle
        choose.choice(HOLDERS).value = value()
    against_decimal.clear()


HOLDERS: list[Any] = [threading.local(), sys, Value]
