"""Making programs at random, and making one that fails smaller.

Hypothesis could do both, but would take three quarters of the time itself, and cannot shrink what kills the process.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from .machine import BaseMachine, Program, operations

DEPTH = 4  # bodies in bodies
MOST_OPERATIONS = 8  # of one body
NUMBERS = 100


class Programs:
    """Random programs of all of a machine's operations; the same seed makes the same ones."""

    def __init__(self, machine: type[BaseMachine], seed: object) -> None:
        self.random = random.Random(str(seed))
        self.operations = operations(machine)

    def program(self) -> Program:
        # Each of a few operations chosen anew, so that those that belong together meet more often.
        chosen = self.random.sample(list(self.operations), self.random.randint(1, len(self.operations)))
        return self.body(chosen, self.random.randint(1, DEPTH))

    def body(self, chosen: list[str], depth: int) -> Program:
        names = chosen if depth > 1 else [name for name in chosen if "body" not in self.operations[name]]
        count = self.random.randint(0, MOST_OPERATIONS) if names else 0
        return [self.call(self.random.choice(names), chosen, depth) for _ in range(count)]

    def call(self, name: str, chosen: list[str], depth: int) -> list[object]:
        arguments = self.operations[name]
        return [name, *(self.body(chosen, depth - 1) if kind == "body" else self.number() for kind in arguments)]

    def number(self) -> int:
        # Small ones as often as all others, so that operations meet on the same variable or Context.
        return self.random.randrange(self.random.choice((4, NUMBERS)))


def shrink(program: Program, fails: Callable[[Program], bool], seconds: float) -> Program:
    """The smallest still failing program found in that time."""
    deadline = time.monotonic() + seconds
    shrunk = True
    while shrunk:
        shrunk = False
        for candidate in smaller(program):
            if time.monotonic() > deadline:
                break
            if fails(candidate):
                program, shrunk = candidate, True
                break
    return program


def smaller(program: Program) -> Iterator[Program]:
    """Programs with something less, the largest steps first."""
    size = len(program)
    while size:
        for start in range(0, len(program), size):
            yield program[:start] + program[start + size :]
        size //= 2
    for number, call in enumerate(program):
        before, after = program[:number], program[number + 1 :]
        for argument in call:
            if isinstance(argument, list):
                yield before + argument + after
        for position, argument in enumerate(call):
            less: Iterator[object] = iter(())
            if isinstance(argument, list):
                less = smaller(argument)
            elif isinstance(argument, int) and argument:
                less = iter(sorted({0, argument // 2, argument - 1}))
            for candidate in less:
                yield [*before, [*call[:position], candidate, *call[position + 1 :]], *after]
