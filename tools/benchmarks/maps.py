"""The persistent maps. Each operation is one statement, which `STATEMENTS` spells out."""

from __future__ import annotations

import argparse
import pkgutil
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .measuring import (
    CELL_SECONDS,
    INSTALL_GROUP,
    QUICK_CELL_SECONDS,
    BenchError,
    Row,
    Table,
    format_number,
    freeze,
    markdown,
    measure_time,
    row_of,
    run_apart,
    timed,
)

try:
    import tracemalloc
except ImportError:  # PyPy has none.
    tracemalloc = None  # type: ignore[assignment]


class Implementation(NamedTuple):
    place: str
    distribution: str
    own: Mapping[str, str | None] = {}
    """The statements that differ from those of `STATEMENTS`; None if it lacks the operation."""
    mutation: tuple[str, str] = ("mutate", "finish")
    """The methods that begin and end a mutation."""
    set: str = ""
    """The place of the set beside the map, if there is one."""


# The names that they use: `m`, a map that `Map` made of the dict `content`; `keys` of it in random order; `changes`,
# items of which every other has a new key; `batch`, a dict of a tenth of the keys, half of them new, and `fresh` and
# `some`, as many new and present keys; `mutation`, which is begun before the statement and ended after it; `twin`,
# equal to `m` with other objects for one value in a hundred; `old` and `new`, which differ in one key in a hundred;
# `tiny`, a map of one new key; `big`, a set of the keys, and `few`, one of a hundredth as many, half of them new.
STATEMENTS = {
    "get": "for key in keys: m[key]",
    "set": "for key, value in changes: m.set(key, value)",
    "delete": "for key in keys: m.delete(key)",
    "build": "Map(content)",
    "update": "m.update(batch)",
    "mutate": "for key, value in batch.items(): mutation[key] = value",
    "mutate:new": "for key in fresh: mutation[key] = 1",
    "mutate:same": "for key in some: mutation[key] = 1",
    "mutate:del": "for key in some: del mutation[key]",
    "mutate:pop": "for key in some: mutation[key] = mutation.pop(key) + '1'",
    "mutate:pairs": "for key in fresh: mutation.update({key: 1})",
    "mutate:reads": "for key in fresh: mutation[key] = 1; mutation.get(key); len(mutation)",
    "hash": "hash(m.set(key, 1))",
    "tiny+big": "tiny.update(m)",
    "few&big": "few & big",
    "few<=big": "few <= big",
    "big-few": "big - few",
    "iterate": "for key, value in m.items(): pass",
    "equal": "m == twin",
    "diff": "diff(old, new)",
    "memory": "Map(content)",
}
MUTATIONS = [operation for operation in STATEMENTS if operation.startswith("mutate")]
SETS = ["few&big", "few<=big", "big-few"]
NO_MUTATION: dict[str, str | None] = dict.fromkeys(MUTATIONS)
# For mutations that have no `pop`, `update` or `get` of their own.
LIKE_A_DICT = {operation: STATEMENTS[operation] for operation in ("mutate", "mutate:new", "mutate:same", "mutate:del")}
NO_SETS: dict[str, str | None] = dict.fromkeys(SETS)
HAMT = {"diff": "old.diff(new)"}
RPDS = {
    **NO_MUTATION,
    "set": "for key, value in changes: m.insert(key, value)",
    "delete": "for key in keys: m.remove(key)",
    "hash": "hash(m.insert(key, 1))",
    # tracemalloc does not see Rust's allocations.
    "memory": None,
}
PYRSISTENT = {
    **NO_MUTATION,
    "delete": "for key in keys: m.remove(key)",
    **LIKE_A_DICT,
}
SPORK = {
    **NO_MUTATION,
    "set": "for key, value in changes: m.assoc(key, value)",
    "delete": "for key in keys: m.dissoc(key)",
    "update": "m | batch",
    "mutate": "for key, value in batch.items(): mutation.assoc_mut(key, value)",
    "mutate:new": "for key in fresh: mutation.assoc_mut(key, 1)",
    "mutate:same": "for key in some: mutation.assoc_mut(key, 1)",
    "mutate:del": "for key in some: mutation.dissoc_mut(key)",
    "hash": "hash(m.assoc(key, 1))",
    "tiny+big": "tiny | m",
    # As with rpds.
    "memory": None,
}
PCOLLECTIONS = {
    **NO_MUTATION,
    **LIKE_A_DICT,
}
DICT = {**NO_MUTATION, "set": None, "delete": None, "update": "m | batch", "hash": None, "tiny+big": "tiny | m"}
IMPLEMENTATIONS = {
    "cython": Implementation("contextvars_cy._hamt.hamt_cy:Hamt", "contextvars_cy", HAMT, set="contextvars_cy:HamtSet"),
    "pure": Implementation("contextvars_cy._hamt.hamt_py:Hamt", "contextvars_cy", HAMT),
    "immutables": Implementation("immutables._map:Map", "immutables"),
    "immutables-py": Implementation("immutables.map:Map", "immutables"),
    "rpds": Implementation("rpds:HashTrieMap", "rpds-py", RPDS),
    "pyrsistent": Implementation(
        "pyrsistent:pmap", "pyrsistent", PYRSISTENT, ("evolver", "persistent"), "pyrsistent:pset"
    ),
    "spork": Implementation("spork_pds:Map", "spork-pds", SPORK, ("transient", "persistent")),
    "pcollections": Implementation("pcollections:pdict", "pcollections", PCOLLECTIONS, ("transient", "persistent")),
    "dict": Implementation("builtins:dict", "Python", DICT, set="builtins:frozenset"),
}
DEFAULT_IMPLEMENTATIONS = ["cython", "immutables", "rpds", "pyrsistent", "spork", "pcollections", "dict"]

RIVALS = {"cython": "immutables", "pure": "immutables-py"}
PAIRS = [(theirs, ours) for ours, theirs in RIVALS.items()]
PLOT = "numbers over sizes"
LEGEND = "Nanoseconds an item; for memory, bytes an entry. A ratio is the number of immutables' twin over ours."
# How many times as fast as its rival each has to be, or as small.
FASTER = {"get": 1.0, "set": 1.3, "delete": 1.3, "build": 2.5, "update": 1.2, "iterate": 2.5, "equal": 20, "diff": 20}
FASTER = {**FASTER, **dict.fromkeys(MUTATIONS, 1.0), "hash": 1.0}
GOALS = {"cython": {**FASTER, "memory": 1 / 0.9}, "pure": dict.fromkeys(FASTER, 2.0)}

KEYS: dict[str, Callable[[int], object]] = {
    "str": hex,
    "int": int,
    "object": lambda number: object(),
    "range": int,
    "signed": lambda number: ~(number // 2) if number % 2 else number // 2,
    "packed": lambda number: number << 32 | number,
}
# Kinds that are consecutive numbers; of the others, keys are taken at random.
CONSECUTIVE = {"range", "signed", "packed"}
SIZES, QUICK_SIZES, LARGEST_SIZE = [10, 1000, 100_000, 1_000_000], [10, 1000], 10_000_000
# The keys that one loop looks up: enough to hide the loop's own cost, and to exceed the processor's caches.
FEWEST_ASKED, MOST_ASKED = 1000, 10_000


def load(name: str) -> Any:
    """Return the constructor of an implementation's map."""
    place, distribution, *_ = IMPLEMENTATIONS[name]
    try:
        return pkgutil.resolve_name(place)
    except ImportError as error:
        remedy = INSTALL_GROUP
        if name == "cython":
            remedy = "pip install --editable . where a C compiler works"
        raise BenchError(f"{name} needs the package {distribution}: {error}; run {remedy}") from error


def statements_of(name: str) -> dict[str, str]:
    """Return the statement of every operation that an implementation has."""
    implementation = IMPLEMENTATIONS[name]
    begin, end = implementation.mutation
    statements = {**STATEMENTS, **({} if implementation.set else NO_SETS), **implementation.own}
    for operation in MUTATIONS:
        if statements[operation]:
            statements[operation] = f"mutation = m.{begin}()\n{statements[operation]}\nmutation.{end}()"
    return {operation: text for operation, text in statements.items() if text}


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

    Maps that are compared with each other share a history, as in a program that keeps versions.
    """
    chance = random.Random(size)
    numbers = range(2 * size) if keys in CONSECUTIVE else range(1 << 30)
    made = [KEYS[keys](number) for number in chance.sample(numbers, 2 * size)]
    # Not numbers, because equal numbers are one object to PyPy.
    if keys in CONSECUTIVE:
        made[:size], made[size:] = sorted(made[:size]), sorted(made[size:])  # type: ignore[type-var]
    content = {key: str(number) for number, key in enumerate(made[:size], start=1 << 30)}
    present, fresh = made[:size], made[size:]
    chance.shuffle(present)
    chance.shuffle(fresh)
    if keys not in ("str", "object"):
        # Programs seldom look up the very int object that they stored.
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
        "fresh": fresh[:tenth],
        "some": present[:tenth],
        "key": present[0],
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
        namespace["tiny"] = namespace["Map"](dict.fromkeys(fresh[:1], "tiny"))
        if IMPLEMENTATIONS[name].set:
            kind = pkgutil.resolve_name(IMPLEMENTATIONS[name].set)
            namespace["big"] = kind(present)
            namespace["few"] = kind(present[: hundredth - hundredth // 2] + fresh[: hundredth // 2])
    items = dict.fromkeys(STATEMENTS, size)
    items.update(get=len(shared["keys"]), set=len(shared["changes"]), delete=len(shared["keys"]))
    items.update(update=tenth, **dict.fromkeys(MUTATIONS, tenth))
    items.update(dict.fromkeys(["tiny+big", *SETS], hundredth))
    return namespaces, items


def measure_memory(
    expressions: Mapping[str, str], namespaces: Mapping[str, dict[str, Any]], copies: int
) -> dict[str, list[float]]:
    """Count what the values of the expressions allocate; returns nothing if Python cannot count it."""
    samples: dict[str, list[float]] = {}
    if tracemalloc is None:
        return samples
    for name, text in expressions.items():
        code = compile(text, name, "eval")
        # The first half empties the free lists, because tracemalloc does not count what comes out of them.
        made = [eval(code, namespaces[name]) for _ in range(copies)] + [None] * copies
        tracemalloc.start()
        for index in range(copies, 2 * copies):
            made[index] = eval(code, namespaces[name])
        samples[name] = [tracemalloc.get_traced_memory()[0] / copies]
        tracemalloc.stop()
    return samples


def measure_cells(keys: str, size: int, names: Sequence[str], seconds: float) -> list[Row]:
    """Measure every operation on one kind of keys and one size, and print a line for each."""
    namespaces, items = prepare(keys, size, names)
    freeze()
    rows = []
    for operation, count in items.items():
        statements = {name: statements_of(name)[operation] for name in names if operation in statements_of(name)}
        if operation == "memory":
            samples = measure_memory(statements, namespaces, max(1, FEWEST_ASKED // size))
        else:
            samples = measure_time({name: timed(text, namespaces[name]) for name, text in statements.items()}, seconds)
        values = {name: [value / count for value in sample] for name, sample in samples.items()}
        row = row_of(operation, values, PAIRS, keys=keys, size=size)
        print(format_row((operation, keys, size), format_cells(row, names)), flush=True)
        rows.append(row)
    return [row for row in rows if row.medians]


def measure(names: Sequence[str], arguments: argparse.Namespace) -> Iterator[list[Row]]:
    sizes = sorted(set(arguments.size or (QUICK_SIZES if arguments.quick else SIZES)))
    print(LEGEND)
    print(format_row(("operation", "keys", "size"), format_header(names)), flush=True)
    for keys in (keys for keys in KEYS if keys in arguments.keys):
        for size in sizes:
            seconds = QUICK_CELL_SECONDS if arguments.quick else CELL_SECONDS
            yield run_apart(measure_cells, keys, size, names, seconds)


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--size", nargs="+", type=size_of, help=f"entries of a map, 1 to {LARGEST_SIZE}")
    command.add_argument("--keys", nargs="+", choices=KEYS, default=list(KEYS), help="kinds of keys")


def size_of(text: str) -> int:
    size = int(text)
    if not 1 <= size <= LARGEST_SIZE:
        raise argparse.ArgumentTypeError(f"must be 1 to {LARGEST_SIZE}")
    return size


def choose(wanted: Sequence[str] | None) -> list[str]:
    """Return the implementations to compare, in one order, and each once; BenchError if one is missing."""
    names = [name for name in IMPLEMENTATIONS if name in (wanted or DEFAULT_IMPLEMENTATIONS)]
    for name in names:
        load(name)
    return names


def unit_of(operation: str) -> tuple[str, float]:
    """Return the unit of the numbers, and the factor to multiply a value by."""
    return ("bytes an entry", 1) if operation == "memory" else ("ns an item", 1e9)


def format_header(names: Sequence[str]) -> list[str]:
    """Return the names, and for each that meets its rival the name of the ratio."""
    return [*names, *(f"{ours} ratio" for ours, theirs in RIVALS.items() if {ours, theirs} <= set(names))]


def format_cells(row: Row, names: Sequence[str]) -> list[str]:
    """Return what goes below the header: the nanoseconds of an item or the bytes of an entry, and the ratios."""
    _, factor = unit_of(row.operation)
    columns = [format_number(row.medians[name] * factor) if name in row.medians else "-" for name in names]
    for ours, theirs in RIVALS.items():
        if {ours, theirs} <= set(names):
            ratio = row.ratios.get(f"{theirs}/{ours}")
            columns.append("-" if ratio is None else f"{ratio:.2f}")
    return columns


def format_row(cell: Sequence[object], columns: Sequence[str]) -> str:
    operation, keys, size = cell
    return f"{operation:<13}  {keys:<6}  {size:>8}" + "".join(f"  {column:>13}" for column in columns)


def format_goals(table: Table) -> list[str]:
    """Return one line for each goal that something was measured for."""
    lines = []
    for ours, theirs in RIVALS.items():
        for operation, goal in GOALS[ours].items():
            lines += table.goal(theirs, ours, f"{ours} {operation}", goal, [operation])
    return lines


def format_tables(table: Table) -> list[str]:
    """Return a Markdown table for each kind of keys."""
    names = table.names(IMPLEMENTATIONS)
    lines = []
    for keys in KEYS:
        rows = [row for row in table.rows if row.keys == keys]
        rows.sort(key=lambda row: (list(STATEMENTS).index(row.operation), row.size))
        if rows:
            cells = [(row.operation, row.size, *format_cells(row, names)) for row in rows]
            lines += markdown(f"{keys} keys", ["operation", "size", *format_header(names)], cells)
    return lines
