"""Measure contextvars_cy beside its alternatives, and name the goals that it meets and misses.

`map` compares the persistent maps. Each operation is one statement, which `STATEMENTS` spells out.

    python tools/bench.py map --quick
    python tools/bench.py map --output docs/benchmarks/map.json
    python tools/bench.py map --impl pure immutables-py --size 10 1000

A shared machine changes its speed from one moment to the next. So all implementations take turns in one process, once
in each of many short rounds, and what slows one of them slows its neighbours. A time is the median over the rounds; a
ratio is the median of the rounds' own ratios. The freeing of results is part of a time, and so is the work of the
garbage collector. The JSON is a suite of pyperf's: `python -m pyperf show` and `compare_to` read it, tools/plot.py
draws it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import pkgutil
import random
import shlex
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

try:
    import tracemalloc
except ImportError:  # PyPy has none.
    tracemalloc = None  # type: ignore[assignment]

try:
    import pyperf
except ImportError:
    sys.exit("pyperf is missing, run: pip install contextvars_cy[bench]")

SAMPLE_SECONDS, WARMED_SECONDS = 0.005, 0.1
FEWEST_ROUNDS, MOST_ROUNDS = 5, 50
CELL_SECONDS, QUICK_CELL_SECONDS = 4.0, 0.4
# The rest of what pyperf collects says whose machine it was.
MACHINE = "cpu_count cpu_model_name date load_avg_1min perf_version platform python_implementation python_version timer"


class BenchError(Exception):
    """Something that is to be measured cannot be."""


class Samples(NamedTuple):
    """What one statement took, round by round: seconds or bytes a loop."""

    loops: int
    values: list[float]


class Cell(NamedTuple):
    """What the implementations are compared at."""

    operation: str
    keys: str
    size: int


Values = Sequence[float]
"""The seconds of one item, or the bytes of one entry, round by round."""
Results = dict[Cell, dict[str, Values]]
"""The values of each implementation that has the operation."""


def calibrate(timer: timeit.Timer) -> int:
    """Return how many loops make a sample long enough for the clock."""
    loops = 1
    while timer.timeit(loops) < SAMPLE_SECONDS:
        loops *= 2
    return loops


def measure_time(
    statements: Mapping[str, str], namespaces: Mapping[str, dict[str, Any]], seconds: float
) -> dict[str, Samples]:
    """Let the statements take turns, in rounds that go on for so many seconds."""
    # timeit switches the collector off, but its work is part of what an allocation costs.
    setup = "import gc; gc.enable()"
    timers = {name: timeit.Timer(text, setup, globals=namespaces[name]) for name, text in statements.items()}
    samples = {name: Samples(calibrate(timer), []) for name, timer in timers.items()}
    end = time.perf_counter() + seconds
    for number in range(MOST_ROUNDS):
        if number >= FEWEST_ROUNDS and time.perf_counter() > end:
            break
        for name, (loops, values) in samples.items():
            # The caches hold what the neighbour used. A longer loop does not care, and has no time to be run twice.
            if values and values[-1] < WARMED_SECONDS:
                timers[name].timeit(1)
            values.append(timers[name].timeit(loops) / loops)
    return samples


def measure_memory(
    expressions: Mapping[str, str], namespaces: Mapping[str, dict[str, Any]], copies: int
) -> dict[str, Samples]:
    """Count what the values of the expressions allocate; nothing is returned where Python cannot count it."""
    samples: dict[str, Samples] = {}
    if tracemalloc is None:
        return samples
    for name, text in expressions.items():
        code = compile(text, name, "eval")
        # The first half empties the free lists, because tracemalloc does not count what comes out of them.
        made = [eval(code, namespaces[name]) for _ in range(copies)] + [None] * copies
        tracemalloc.start()
        for index in range(copies, 2 * copies):
            made[index] = eval(code, namespaces[name])
        samples[name] = Samples(copies, [tracemalloc.get_traced_memory()[0] / copies])
        tracemalloc.stop()
    return samples


def circumstances() -> dict[str, Any]:
    """Return the command, and what pyperf finds out about the machine and its Python."""
    metadata = pyperf.Run([1.0]).get_metadata()
    command = shlex.join(["python", "tools/bench.py", *sys.argv[1:]])
    return {"command": command, **{name: metadata[name] for name in MACHINE.split() if name in metadata}}


def run_apart(function: Callable[..., list[pyperf.Run]], *arguments: Any) -> list[pyperf.Run]:
    """Call the function in a process of its own, so that no heap outlives its measurement."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise BenchError("the process that measures died, most often because memory ran out") from error


class Implementation(NamedTuple):
    place: str
    distribution: str
    own: Mapping[str, str | None] = {}
    """The statements that are not those of `STATEMENTS`; None where it has no such operation."""


# The names that they use: `m`, a map that `Map` made of the dict `content`; `keys` of it in random order; `changes`,
# items of which every other has a new key; `batch`, a dict of a tenth of the keys, half of them new; `twin`, equal to
# `m` with other objects for one value in a hundred; `old` and `new`, which differ in one key in a hundred.
STATEMENTS = {
    "get": "for key in keys: m[key]",
    "set": "for key, value in changes: m.set(key, value)",
    "delete": "for key in keys: m.delete(key)",
    "build": "Map(content)",
    "update": "m.update(batch)",
    "mutate": "mutation = m.mutate()\nfor key, value in batch.items(): mutation[key] = value\nmutation.finish()",
    "iterate": "for key, value in m.items(): pass",
    "equal": "m == twin",
    "diff": "diff(old, new)",
    "memory": "Map(content)",
}
HAMT = {"diff": "old.diff(new)"}
RPDS = {
    "set": "for key, value in changes: m.insert(key, value)",
    "delete": "for key in keys: m.remove(key)",
    "mutate": None,
    # Rust allocates out of tracemalloc's sight.
    "memory": None,
}
PYRSISTENT = {
    "delete": "for key in keys: m.remove(key)",
    "mutate": "evolver = m.evolver()\nfor key, value in batch.items(): evolver[key] = value\nevolver.persistent()",
}
DICT = {"set": None, "delete": None, "update": "m | batch", "mutate": None}
IMPLEMENTATIONS = {
    "cython": Implementation("contextvars_cy._hamt_cy:Hamt", "contextvars_cy", HAMT),
    "pure": Implementation("contextvars_cy._hamt_py:Hamt", "contextvars_cy", HAMT),
    "immutables": Implementation("immutables._map:Map", "immutables"),
    "immutables-py": Implementation("immutables.map:Map", "immutables"),
    "rpds": Implementation("rpds:HashTrieMap", "rpds-py", RPDS),
    "pyrsistent": Implementation("pyrsistent:pmap", "pyrsistent", PYRSISTENT),
    "dict": Implementation("builtins:dict", "Python", DICT),
}
DEFAULT_IMPLEMENTATIONS = ["cython", "immutables", "rpds", "pyrsistent", "dict"]

RIVALS = {"cython": "immutables", "pure": "immutables-py"}
LEGEND = "Nanoseconds an item; for memory, bytes an entry. A ratio is the number of immutables' twin over ours."
# How many times as fast as its rival each has to be, or as small.
FASTER = {"get": 1.0, "set": 1.3, "delete": 1.3, "build": 2.5, "update": 2.5, "iterate": 2.5, "equal": 20, "diff": 20}
GOALS = {"cython": {**FASTER, "memory": 1 / 0.9}, "pure": dict.fromkeys(FASTER, 2.0)}

KEYS: dict[str, Callable[[int], object]] = {"str": hex, "int": int, "object": lambda number: object()}
SIZES, QUICK_SIZES, LARGEST_SIZE = [10, 1000, 100_000, 1_000_000], [10, 1000], 10_000_000
# The keys that one loop asks for: enough to make the loop itself cost nothing, and to leave the processor's caches.
FEWEST_ASKED, MOST_ASKED = 1000, 10_000


def load(name: str) -> Any:
    """Return what constructs the map of an implementation."""
    place, distribution, _ = IMPLEMENTATIONS[name]
    try:
        return pkgutil.resolve_name(place)
    except ImportError as error:
        remedy = "pip install contextvars_cy[bench]"
        if name == "cython":
            remedy = "pip install --editable . where a C compiler works"
        raise BenchError(f"{name} needs the package {distribution}: {error}; run {remedy}") from error


def statements_of(name: str) -> dict[str, str]:
    """Return the statement of every operation that an implementation has."""
    return {operation: text for operation, text in {**STATEMENTS, **IMPLEMENTATIONS[name].own}.items() if text}


def diff(old: Any, new: Any) -> tuple[dict[Any, Any], dict[Any, Any], dict[Any, Any]]:
    """What a user writes for maps that have no diff: the added, the removed and the changed."""
    added, removed, changed = {}, {}, {}
    missing = object()
    for key, value in new.items():
        old_value = old.get(key, missing)
        if old_value is missing:
            added[key] = value
        elif old_value is not value and old_value != value:
            changed[key] = old_value, value
    if len(old) + len(added) != len(new):
        removed = {key: value for key, value in old.items() if key not in new}
    return added, removed, changed


def prepare(keys: str, size: int, names: Sequence[str]) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Return the names that each implementation's statements use, and the number of items in each statement's loop.

    Maps that are compared with each other have a history in common, as in a program that keeps versions.
    """
    chance = random.Random(size)
    made = [KEYS[keys](number) for number in chance.sample(range(1 << 30), 2 * size)]
    # Not numbers, because equal numbers are one object to PyPy.
    content = {key: str(number) for number, key in enumerate(made[:size], start=1 << 30)}
    present, fresh = made[:size], made[size:]
    chance.shuffle(present)
    chance.shuffle(fresh)
    if keys == "int":
        # Programs seldom ask with the very int that they stored.
        present = [int(str(key)) for key in present]

    repeats = max(1, FEWEST_ASKED // size)
    pairs = zip(present[: MOST_ASKED // 2], fresh)
    tenth, hundredth = max(1, size // 10), max(1, size // 100)
    third = hundredth // 3
    shared: dict[str, Any] = {
        "content": content,
        "keys": present[:MOST_ASKED] * repeats,
        "changes": [(key, "changed") for pair in pairs for key in pair] * repeats,
        "batch": dict.fromkeys(present[: tenth - tenth // 2] + fresh[: tenth // 2], "changed"),
        "diff": diff,
    }
    versions = {
        "twin": {key: str(int(content[key])) for key in present[:hundredth]},
        "old": dict.fromkeys(fresh[:third], "removed"),
        "new": dict.fromkeys(present[: hundredth - 2 * third] + fresh[third : 2 * third], "changed"),
    }
    namespaces = {}
    for name in names:
        namespaces[name] = namespace = {**shared, "Map": load(name)}
        namespace["m"] = m = namespace["Map"](content)
        for version, batch in versions.items():
            namespace[version] = eval(statements_of(name)["update"], {"m": m, "batch": batch})
    items = dict.fromkeys(STATEMENTS, size)
    items.update(get=len(shared["keys"]), set=len(shared["changes"]), delete=len(shared["keys"]))
    items.update(update=tenth, mutate=tenth)
    return namespaces, items


def measure_maps(keys: str, size: int, names: Sequence[str], seconds: float) -> list[pyperf.Run]:
    """Measure every operation on one kind of keys and one size, and print a line of each."""
    namespaces, items = prepare(keys, size, names)
    common = {**circumstances(), "keys": keys, "size": size}
    gc.collect()
    if hasattr(gc, "freeze"):
        # Out of the collector's sight, so that one implementation's maps do not slow down another's operations.
        gc.freeze()
    runs = []
    for operation, count in items.items():
        begin = time.perf_counter()
        statements = {name: statements_of(name)[operation] for name in names if operation in statements_of(name)}
        if operation == "memory":
            unit, samples = "byte", measure_memory(statements, namespaces, max(1, FEWEST_ASKED // size))
        else:
            unit, samples = "second", measure_time(statements, namespaces, seconds)
        # Told, because pyperf would take bytes for seconds.
        common["duration"] = (time.perf_counter() - begin) / max(1, len(samples))
        results: dict[str, Values] = {}
        for name, (loops, values) in samples.items():
            # More digits than the noise leaves would only fill the file.
            results[name] = [float(f"{value / count:.5g}") for value in values]
            metadata = {**common, "name": f"{operation} {keys} {size} {name}", "unit": unit}
            metadata |= {"operation": operation, "implementation": name, "loops": loops, "inner_loops": count}
            # Neither dict nor a source tree on the path is a distribution.
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                metadata["version"] = importlib.metadata.version(IMPLEMENTATIONS[name].distribution)
            runs.append(pyperf.Run(results[name], metadata=metadata, collect_metadata=False))
        print(format_row((operation, keys, size), format_cell(operation, results, names)), flush=True)
    return runs


def ratio(theirs: Values, ours: Values) -> float:
    """Return how many times as fast, or as small, ours is."""
    return statistics.median([their_value / our_value for their_value, our_value in zip(theirs, ours)])


def unit_of(operation: str) -> tuple[str, float]:
    """Return what numbers are shown in, and what to multiply a value by."""
    return ("bytes an entry", 1) if operation == "memory" else ("ns an item", 1e9)


def format_number(number: float) -> str:
    decimals = sum(number < limit for limit in (10, 100))
    return f"{number:,.{decimals}f}"


def format_header(names: Sequence[str]) -> list[str]:
    """Return the names, and for each that meets its rival the name of the ratio."""
    return [*names, *(f"{ours} ratio" for ours, theirs in RIVALS.items() if {ours, theirs} <= set(names))]


def format_cell(operation: str, values: Mapping[str, Values], names: Sequence[str]) -> list[str]:
    """Return what goes below the header: the nanoseconds of an item or the bytes of an entry, and the ratios."""
    _, factor = unit_of(operation)
    columns = [format_number(statistics.median(values[name]) * factor) if name in values else "-" for name in names]
    for ours, theirs in RIVALS.items():
        if {ours, theirs} <= set(names):
            columns.append(f"{ratio(values[theirs], values[ours]):.2f}" if {ours, theirs} <= set(values) else "-")
    return columns


def format_row(cell: Sequence[object], columns: Sequence[str]) -> str:
    operation, keys, size = cell
    return f"{operation:<9}  {keys:<6}  {size:>8}" + "".join(f"  {column:>13}" for column in columns)


def read_results(suite: pyperf.BenchmarkSuite) -> Results:
    results: Results = {}
    for benchmark in suite:
        metadata = benchmark.get_metadata()
        cell = Cell(metadata["operation"], metadata["keys"], metadata["size"])
        results.setdefault(cell, {})[metadata["implementation"]] = benchmark.get_values()
    return results


def format_goals(results: Results) -> list[str]:
    """Return one line for each goal that something was measured for."""
    lines = []
    for ours, theirs in RIVALS.items():
        for operation, goal in GOALS[ours].items():
            found = {
                f"{cell.keys} {cell.size}": ratio(values[theirs], values[ours])
                for cell, values in results.items()
                if cell.operation == operation and {ours, theirs} <= set(values)
            }
            missed = [f"{place} ({number:.3f})" for place, number in found.items() if number < goal]
            if missed:
                lines.append(
                    f"{ours} {operation} {goal:.3f}: missed at {len(missed)} of {len(found)}, {', '.join(missed)}"
                )
            elif found:
                lines.append(f"{ours} {operation} {goal:.3f}: met, at least {min(found.values()):.3f}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure contextvars_cy beside its alternatives.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("map", help="the persistent maps", description="Compare the persistent maps.")
    command.add_argument(
        "--impl", nargs="+", choices=IMPLEMENTATIONS, default=DEFAULT_IMPLEMENTATIONS, help="implementations"
    )
    command.add_argument("--size", nargs="+", type=int, help=f"entries of a map, 1 to {LARGEST_SIZE}")
    command.add_argument("--keys", nargs="+", choices=KEYS, default=list(KEYS), help="kinds of keys")
    command.add_argument("--quick", action="store_true", help="fewer rounds, and the small sizes where none is given")
    command.add_argument("--output", type=Path, metavar="FILE.json", help="write a suite for pyperf and tools/plot.py")
    arguments = parser.parse_args()
    # In one order, and each once, however they were given.
    names = [name for name in IMPLEMENTATIONS if name in arguments.impl]
    sizes = sorted(set(arguments.size or (QUICK_SIZES if arguments.quick else SIZES)))
    if sizes[0] < 1 or sizes[-1] > LARGEST_SIZE:
        parser.exit(2, f"{command.prog}: error: --size must be 1 to {LARGEST_SIZE}\n")

    benchmarks: list[pyperf.Benchmark] = []
    try:
        for name in names:
            load(name)
        if arguments.output:
            # Rather now than when everything is measured.
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.open("a").close()
        print(LEGEND)
        print(format_row(("operation", "keys", "size"), format_header(names)), flush=True)
        for keys in (keys for keys in KEYS if keys in arguments.keys):
            for size in sizes:
                seconds = QUICK_CELL_SECONDS if arguments.quick else CELL_SECONDS
                runs = run_apart(measure_maps, keys, size, names, seconds)
                benchmarks += [pyperf.Benchmark([run]) for run in runs]
                suite = pyperf.BenchmarkSuite(benchmarks)
                if arguments.output:
                    suite.dump(str(arguments.output), replace=True)
    except (BenchError, OSError) as error:
        parser.exit(1, f"{command.prog}: error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{command.prog}: interrupted\n")
    print("", *format_goals(read_results(suite)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
