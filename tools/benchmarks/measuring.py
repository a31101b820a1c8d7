"""How everything is measured: all implementations take turns in one process, round by round."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import shlex
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, NamedTuple, TypeVar

import pyperf

SAMPLE_SECONDS, WARMED_SECONDS = 0.005, 0.1
FEWEST_ROUNDS, MOST_ROUNDS = 5, 50
CELL_SECONDS, QUICK_CELL_SECONDS = 4.0, 0.4
# A compiler at run time begins when code has run for a while.
WARM_UP_SECONDS = 0.3 if sys.implementation.name == "pypy" else 0.0
EXTRA = "pip install contextvars_cy[bench]"
# The rest of what pyperf collects says whose machine it was.
MACHINE = "cpu_count cpu_model_name date load_avg_1min perf_version platform python_implementation python_version timer"

Name = TypeVar("Name")
Values = Sequence[float]
"""The seconds of one item, or the bytes of one entry, round by round."""
Timed = Callable[[int], float]
"""Does something so many times, and returns the seconds that it took."""


class BenchError(Exception):
    """Something that is to be measured cannot be."""


class Samples(NamedTuple):
    """What one statement took, round by round: seconds or bytes a loop."""

    loops: int
    values: list[float]


def timed(statement: str, namespace: dict[str, Any]) -> Timed:
    # timeit switches the collector off, but its work is part of what an allocation costs.
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
) -> dict[Name, Samples]:
    """Let the statements take turns, in rounds that go on for so many seconds."""
    samples = {name: Samples(calibrate(run, sample_seconds), []) for name, run in statements.items()}
    end = time.perf_counter() + seconds
    for number in range(most_rounds):
        if number >= FEWEST_ROUNDS and time.perf_counter() > end:
            break
        for name, (loops, values) in samples.items():
            # The caches hold what the neighbour used. A longer loop does not care, and has no time to be run twice.
            if values and values[-1] < WARMED_SECONDS:
                statements[name](1)
            values.append(statements[name](loops) / loops)
    return samples


def freeze() -> None:
    """Put what was prepared out of the collector's sight, so that it slows down nobody's operations."""
    gc.collect()
    if hasattr(gc, "freeze"):
        gc.freeze()


def circumstances() -> dict[str, Any]:
    """Return the command, and what pyperf finds out about the machine and its Python."""
    metadata = pyperf.Run([1.0]).get_metadata()
    command = shlex.join(["python", "tools/bench.py", *sys.argv[1:]])
    return {"command": command, **{name: metadata[name] for name in MACHINE.split() if name in metadata}}


def make_run(samples: Samples, items: int, distribution: str, metadata: Mapping[str, Any]) -> pyperf.Run:
    """Return the seconds of one item, or the bytes of one entry, with the version that they are of."""
    # More digits than the noise leaves would only fill the file.
    values = [float(f"{value / items:.5g}") for value in samples.values]
    metadata = {**metadata, "loops": samples.loops, "inner_loops": items}
    # Neither Python itself nor a source tree on the path is a distribution.
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        metadata["version"] = importlib.metadata.version(distribution)
    return pyperf.Run(values, metadata=metadata, collect_metadata=False)


def run_apart(function: Callable[..., list[pyperf.Run]], *arguments: Any) -> list[pyperf.Run]:
    """Call the function in a process of its own, so that no heap outlives its measurement."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise BenchError("the process that measures died, most often because memory ran out") from error


def ratio(theirs: Values, ours: Values) -> float:
    """Return how many times as fast, or as small, ours is."""
    return statistics.median([their_value / our_value for their_value, our_value in zip(theirs, ours)])


def format_number(number: float) -> str:
    decimals = sum(abs(number) < limit for limit in (10, 100))
    return f"{number:,.{decimals}f}"


def format_goal(what: str, goal: float, found: Mapping[str, float]) -> str:
    """Return whether the goal was met at each place where a ratio was found."""
    missed = [f"{place} ({number:.3f})" for place, number in found.items() if number < goal]
    if missed:
        return f"{what} {goal:.3f}: missed at {len(missed)} of {len(found)}, {', '.join(missed)}"
    return f"{what} {goal:.3f}: met, at least {min(found.values()):.3f}"
