"""How everything is measured, with all implementations taking turns in one process, round by round, and recorded."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import json
import shlex
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from operator import truediv
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyperf

SAMPLE_SECONDS, WARMED_SECONDS = 0.005, 0.1
FEWEST_ROUNDS, MOST_ROUNDS = 5, 50
CELL_SECONDS, QUICK_CELL_SECONDS = 4.0, 0.4
# A compiler at run time begins when code has run for a while.
WARM_UP_SECONDS = 0.3 if sys.implementation.name == "pypy" else 0.0
INSTALL_GROUP = "pip install --group bench"

Name = TypeVar("Name")
Values = Sequence[float]
"""The seconds of one item, or the bytes of one entry, round by round."""
Timed = Callable[[int], float]
"""Does something so many times, and returns the seconds that it took."""


class BenchError(Exception):
    """Something cannot be measured."""


class Row(NamedTuple):
    """What an operation takes with each implementation, and how those compare."""

    operation: str
    medians: dict[str, float]
    """The seconds of one item, or the bytes of one entry."""
    ratios: dict[str, float] = {}
    """One's time over the other's, under the name "one/other": the median of the rounds' own ratios."""
    keys: str = ""
    size: int = 0

    @property
    def place(self) -> str:
        return f"{self.keys} {self.size}" if self.keys else self.operation


class Table(NamedTuple):
    about: dict[str, Any]
    """What was measured, where and when."""
    rows: list[Row]

    def save(self, path: Path) -> None:
        """Write a line for each row."""
        rows = ",\n".join(
            json.dumps({name: value for name, value in row._asdict().items() if value}) for row in self.rows
        )
        path.write_text(f'{{"about": {json.dumps(self.about)},\n"rows": [\n{rows}\n]}}\n', encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Table:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return cls(saved["about"], [Row(**row) for row in saved["rows"]])

    def names(self, order: Iterable[str]) -> list[str]:
        return [name for name in order if any(name in row.medians for row in self.rows)]

    def goal(self, theirs: str, ours: str, what: str, goal: float, operations: Iterable[str]) -> list[str]:
        """Return a line on whether ours is so many times as fast as theirs in each row, if there is one."""
        pair = f"{theirs}/{ours}"
        found = {row.place: row.ratios[pair] for row in self.rows if row.operation in operations and pair in row.ratios}
        missed = [f"{place} ({number:.3f})" for place, number in found.items() if number < goal]
        aim = f"{what} at least {goal:g} times as good as {theirs}"
        if missed:
            return [f"{aim}: missed in {len(missed)} of {len(found)} rows, {', '.join(missed)}"]
        return [f"{aim}: met in all {len(found)} rows, the lowest is {min(found.values()):.3f}"] if found else []


def timed(statement: str, namespace: dict[str, Any]) -> Timed:
    # timeit switches the collector off, but its work is part of an allocation's cost.
    return timeit.Timer(statement, "import gc; gc.enable()", globals=namespace).timeit


def calibrate(run: Timed, sample_seconds: float) -> int:
    """Return how many loops make a sample long enough for the clock."""
    loops = 1
    end = time.perf_counter() + WARM_UP_SECONDS
    while True:
        if run(loops) < sample_seconds:
            loops *= 2
        elif time.perf_counter() >= end:
            return loops


def measure_time(
    statements: Mapping[Name, Timed],
    seconds: float,
    sample_seconds: float = SAMPLE_SECONDS,
    most_rounds: int = MOST_ROUNDS,
) -> dict[Name, list[float]]:
    """Let the statements take turns, in rounds that go on for so many seconds; the seconds of a loop in each round."""
    loops = {name: calibrate(run, sample_seconds) for name, run in statements.items()}
    samples: dict[Name, list[float]] = {name: [] for name in statements}
    end = time.perf_counter() + seconds
    for number in range(most_rounds):
        if number >= FEWEST_ROUNDS and time.perf_counter() > end:
            break
        for name, values in samples.items():
            # The caches hold the neighbour's data. That hardly slows a longer loop, which has no time to run twice.
            if values and values[-1] < WARMED_SECONDS:
                statements[name](1)
            values.append(statements[name](loops[name]) / loops[name])
    return samples


def freeze() -> None:
    """Hide prepared objects from the collector, so that they slow down no operations."""
    gc.collect()
    if hasattr(gc, "freeze"):
        gc.freeze()


def circumstances(kind: str, distributions: Mapping[str, str]) -> dict[str, Any]:
    """Return the command, the version of each implementation, and what pyperf finds out about the machine."""
    found = pyperf.Run([1.0]).get_metadata()
    versions = {}
    for name, distribution in distributions.items():
        versions[name] = ""
        # Neither Python itself nor a source tree on the path is a distribution.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(distribution)
    return {
        "kind": kind,
        "command": shlex.join(["python", "tools/bench.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "python": f"{found['python_implementation']} {found['python_version']}",
        "machine": f"{found.get('cpu_model_name', 'unknown processor')}, {found['platform']}",
        "versions": versions,
    }


def rounded(number: float) -> float:
    """More digits than the noise allows would only fill the file."""
    return float(f"{number:.6g}")


def row_of(operation: str, values: Mapping[str, Values], pairs: Iterable[tuple[str, str]], **place: Any) -> Row:
    """Return the row for what each implementation took in each round, with the ratios of the pairs."""
    medians = {name: rounded(statistics.median(values[name])) for name in values}
    ratios = {
        f"{one}/{other}": rounded(statistics.median(map(truediv, values[one], values[other])))
        for one, other in pairs
        if {one, other} <= set(values)
    }
    return Row(operation, medians, ratios, **place)


def run_apart(function: Callable[..., list[Row]], *arguments: Any) -> list[Row]:
    """Call the function in its own process, so that no heap outlives its measurement."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise BenchError("the process that measures died, most often because memory ran out") from error


def format_number(number: float) -> str:
    decimals = sum(abs(number) < limit for limit in (10, 100))
    return f"{number:,.{decimals}f}"


def format_row(operation: str, columns: Sequence[str]) -> str:
    return f"{operation:<26}" + "".join(f"  {column:>16}" for column in columns)


def markdown(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return a section that has a table."""
    lines = ["", f"## {title}", "", f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
    return [*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)]
