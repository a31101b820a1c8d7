"""The context variables: the standard library's, both twins on both hosts, and others.

All of them take turns in one process; context_implementations.py loads them, and context_operations.py says what is
measured. Each statement runs in its own Context, with as many variables set as its operation says.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

from .context_implementations import IMPLEMENTATIONS, Subject
from .context_operations import DIFFERENCES, GOALS, GROUPS, NOT_FOLLOWED, OPERATIONS, PURE_GOALS, ROWS
from .measuring import (
    CELL_SECONDS,
    QUICK_CELL_SECONDS,
    BenchError,
    Row,
    Table,
    Timed,
    Values,
    format_number,
    format_row,
    freeze,
    markdown,
    measure_time,
    row_of,
    run_apart,
    timed,
)

Results = dict[str, dict[str, Values]]
"""For each operation, the values of each implementation that has it."""

STDLIB, HOSTS = "stdlib", ("thread", "native")
PAIRS = [(STDLIB, name) for name in IMPLEMENTATIONS if name != STDLIB]
PAIRS += [(f"cython-{host}", f"pure-{host}") for host in HOSTS]
PLOT = "each operation beside the standard library's"
LEGEND = (
    "Nanoseconds an operation, a request, a task or a level; in brackets the standard library's time over this one.\n"
    "`with set` and `recursion` are made of try and finally where a token is no context manager."
)
UNFOLLOWED = f"{' and '.join(NOT_FOLLOWED)} are for what rides in Python's own contexts: asyncio follows nothing else."
# Short, so that other processes disturb few of them; except for threads, which must take turns many times.
SAMPLE_SECONDS, THREADS_SAMPLE_SECONDS = 0.001, 0.05
MOST_ROUNDS, PROGRAMS_FACTOR = 100, 5
THREADS_START_SECONDS = 60


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--group", nargs="+", choices=GROUPS, default=list(GROUPS), help="groups of operations")


def choose(wanted: Sequence[str] | None) -> list[str]:
    """Return the implementations to compare, in one order, and each once.

    One that this Python cannot have is left out, or a BenchError if it was asked for.
    """
    names = []
    for name in (name for name in IMPLEMENTATIONS if name in (wanted or IMPLEMENTATIONS)):
        try:
            IMPLEMENTATIONS[name].load()
        except BenchError as error:
            if wanted:
                raise
            print(f"Left out: {error}")
        else:
            names.append(name)
    return names


def measure(names: Sequence[str], arguments: argparse.Namespace) -> Iterator[list[Row]]:
    print(LEGEND)
    if "programs" in arguments.group:
        print(UNFOLLOWED)
    print(format_row("operation", names), flush=True)
    for group in (group for group in GROUPS if group in arguments.group):
        yield run_apart(measure_group, group, names, arguments.quick)


def measure_group(group: str, names: Sequence[str], quick: bool) -> list[Row]:
    """Measure the operations of a group, and print a line for each."""
    subjects = {name: IMPLEMENTATIONS[name].load() for name in names}
    freeze()
    rows = []
    for operations in rounds_of(group):
        results: Results = {operation: {} for operation in operations}
        for (operation, name), values in measure_operations(operations, group, subjects, quick).items():
            items = OPERATIONS[operation].count(quick) * OPERATIONS[operation].copies * (2 if group == "threads" else 1)
            results[operation][name] = [value / items for value in values]
        for row in rows_of(results):
            print(format_row(row.operation, format_cells(row, names)), flush=True)
            rows.append(row)
    return [row for row in rows if row.medians]


def rounds_of(group: str) -> list[list[str]]:
    """Return the operations that take turns with each other, because their difference is wanted."""
    subtracted = {operation for pair in DIFFERENCES.values() for operation in pair}
    return [list(GROUPS[group])] if subtracted & set(GROUPS[group]) else [[operation] for operation in GROUPS[group]]


def measure_operations(
    operations: Sequence[str], group: str, subjects: Mapping[str, Subject], quick: bool
) -> dict[tuple[str, str], list[float]]:
    statements = {}
    for operation in operations:
        for name, subject in subjects.items():
            text = subject.own.get(operation, OPERATIONS[operation].statement)
            if text:
                text = "\n".join([text.format(items=OPERATIONS[operation].count(quick))] * OPERATIONS[operation].copies)
                run = timed(text, subject.namespace)
                insides = [subject.inside(OPERATIONS[operation].size) for _ in range(2)]
                statements[operation, name] = (
                    in_two_threads(run, *insides) if group == "threads" else partial(insides[0], run)
                )
    seconds = (QUICK_CELL_SECONDS if quick else CELL_SECONDS) * len(operations)
    if group == "programs":
        seconds *= PROGRAMS_FACTOR
    sample_seconds = THREADS_SAMPLE_SECONDS if group == "threads" else SAMPLE_SECONDS
    return measure_time(statements, seconds, sample_seconds, MOST_ROUNDS)


def in_two_threads(run: Timed, first: Callable[..., Any], second: Callable[..., Any]) -> Timed:
    """Return a function that runs the statement in two threads at once, until both are done."""

    def run_both(loops: int) -> float:
        start = Barrier(2, timeout=THREADS_START_SECONDS)

        def wait_and_run() -> float:
            start.wait()
            begin = time.perf_counter()
            run(loops)
            return begin

        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(second, wait_and_run)
            begin: float = first(wait_and_run)
            other.result()
            return time.perf_counter() - begin

    return run_both


def rows_of(results: Results) -> list[Row]:
    """Return the rows, also of what one operation takes longer than another: the median of the rounds' own differences.

    Not every round's, because the difference of two close ones may be negative in one round.
    """
    differences: Results = {
        difference: {
            name: [statistics.median([value - less for value, less in zip(values, results[shorter][name])])]
            for name, values in results[longer].items()
        }
        for difference, (longer, shorter) in DIFFERENCES.items()
        if {longer, shorter} <= set(results)
    }
    results = {**results, **differences}
    return [row_of(row, results[row], PAIRS) for rows in ROWS.values() for row in rows if row in results]


def format_cells(row: Row, names: Sequence[str]) -> list[str]:
    """Return the nanoseconds, and the ratio to the standard library if that was measured too."""
    cells = []
    for name in names:
        cell = format_number(row.medians[name] * 1e9) if name in row.medians else "-"
        ratio = row.ratios.get(f"{STDLIB}/{name}")
        cells.append(cell if ratio is None else f"{cell} ({ratio:.2f})")
    return cells


def format_goals(table: Table) -> list[str]:
    """Return one line for each goal that something was measured for."""
    lines = []
    for host in HOSTS:
        for what, goal in GOALS.items():
            ours = f"cython-{host}"
            lines += table.goal(STDLIB, ours, f"{ours} {what}", getattr(goal, host), goal.operations)
    for host in HOSTS:
        pure, cython = f"pure-{host}", f"cython-{host}"
        for operation, times in PURE_GOALS.items():
            lines += table.goal(cython, pure, f"{pure} {operation}", 1 / times, [operation])
        if table.about["python"].startswith("pypy"):
            lines += table.goal(STDLIB, pure, f"{pure} everything", 1.0, [row.operation for row in table.rows])
    return lines


def format_tables(table: Table) -> list[str]:
    """Return a Markdown table for each group of operations."""
    names = table.names(IMPLEMENTATIONS)
    lines = []
    for group, operations in ROWS.items():
        rows = [(row.operation, *format_cells(row, names)) for row in table.rows if row.operation in operations]
        if rows:
            lines += markdown(group, ["operation", *names], rows)
    return lines
