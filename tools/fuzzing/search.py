"""One process's share of the work: it runs programs of one kind on every implementation, and shrinks what differs.

It tells the process that started it of every program before it runs, so that one which crashes or hangs is known.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import sys
import threading
import time
import warnings
from typing import Any

from .implementations import Implementation, implementations
from .kinds import KINDS
from .machine import Defect, Program
from .programs import Programs, shrink

SHRINKS_FOR_SECONDS = 60
# How often the oracle has to agree with itself before a difference from it counts.
ORACLE_RUNS = 20


def compared() -> str:
    """What is compared, in words."""
    running, why_not = implementations()
    *ours, oracle = (implementation.name for implementation in running)
    without = f" (not cython: {why_not})" if why_not else ""
    return f"{' and '.join(ours)}{without} beside {oracle} of Python {platform.python_version()}"


def flat(log: list[Any], indent: str = "") -> list[str]:
    """The lines of a log; those of a flow beside are indented."""
    lines: list[str] = []
    for entry in log:
        lines.extend(flat(entry, indent + "  ") if isinstance(entry, list) else [indent + entry])
    return lines


class Runner:
    """Runs programs of one kind and compares their logs."""

    def __init__(self, kind: str) -> None:
        faulthandler.enable()
        self.machine = KINDS[kind].load()
        self.implementations, _ = implementations()
        self.noise: list[str] = []
        # What cannot be raised is part of the log too.
        sys.unraisablehook = self.unraisable
        threading.excepthook = lambda arguments: self.unraisable(arguments)
        warnings.simplefilter("error")
        # trio's, which comes whenever the generator is collected.
        warnings.filterwarnings("ignore", "Async generator", ResourceWarning)

    def unraisable(self, arguments: Any) -> None:
        self.noise.append(f"unraisable: {arguments.exc_type.__name__}: {arguments.exc_value}")

    def log(self, implementation: Implementation, program: Program) -> tuple[list[str], Defect | None]:
        self.noise.clear()
        defect = None
        machine = self.machine(implementation)
        try:
            machine.main(program)
        except Defect as error:
            defect = error
            machine.note("defect:", error)
        return [*flat(machine.log), *map(machine.blotted, self.noise)], defect

    def difference(self, program: Program) -> list[str]:
        """Where the logs differ from the oracle's, in words, or nothing."""
        logs = [(implementation.name, *self.log(implementation, program)) for implementation in self.implementations]
        oracle, expected, defect = logs[-1]
        words = []
        for name, log, _ in logs[:-1]:
            if log != expected:
                end = min(len(log), len(expected))
                at = next((number for number in range(end) if log[number] != expected[number]), end)
                words.append(f"line {at + 1} of the log:")
                for who, lines in ((name, log), (oracle, expected)):
                    words.append(f"  {who:7} {lines[at] if at < len(lines) else '(the log ends)'}")
        if defect and not words:
            raise defect
        # Outcomes that vary say nothing: the threads of gevent's pool end in any order.
        if words and any(self.log(self.implementations[-1], program)[0] != expected for _ in range(ORACLE_RUNS)):
            return []
        return words


def search(connection: Any, kind: str, seed: int, seconds: float) -> None:
    """Runs random programs until the time is over or something is wrong with one."""
    runner = Runner(kind)
    programs = Programs(runner.machine, f"{seed} {kind}")
    deadline = time.monotonic() + seconds
    count = 0
    program: Program = []
    wrong: list[str] = []
    while time.monotonic() < deadline and not wrong:
        program = programs.program()
        count += 1
        connection.send((count, program, None))
        wrong = runner.difference(program)
    if wrong:

        def differs(candidate: Program) -> bool:
            connection.send((count, candidate, None))
            return bool(runner.difference(candidate))

        program = shrink(program, differs, SHRINKS_FOR_SECONDS)
        wrong = runner.difference(program) or [*wrong, "(but not every time)"]
    connection.send((count, program, wrong))


def replay(connection: Any, kind: str, program: Program, silent: bool = False) -> None:
    """Runs one program."""
    if silent:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    runner = Runner(kind)
    connection.send((1, program, None))
    connection.send((1, program, runner.difference(program)))
