"""The benchmarks measure what their rows say, each implementation is the one that it is named after, and the goals are
those ratios. How long anything takes decides nothing here."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks import contexts, maps, travels
from benchmarks.context_operations import DIFFERENCES, OPERATIONS, ROWS
from benchmarks.measuring import Table, Values, row_of
from helpers import run_python

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench.py"
OURS = [f"{backend}-{host}" for backend in ("cython", "pure") for host in ("thread", "native")]
NUMBER, CELL = r"-?[\d,]+(\.\d+)?", r"-?[\d,]+(\.\d+)?( \(-?[\d.]+\))?"


def run_bench(*arguments: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    python_path = os.pathsep.join(filter(None, [str(path or ""), os.environ.get("PYTHONPATH")]))
    return run_python([BENCH, *arguments], BENCH.parent, {"PYTHONPATH": python_path or None})


def run_with_implementations(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that has `IMPLEMENTATIONS`, in a process in which they can be loaded."""
    begin = f"import sys; sys.path.insert(0, {str(BENCH.parent)!r})\n"
    begin += "from benchmarks.context_implementations import IMPLEMENTATIONS\n"
    return run_python(["-c", begin + program], BENCH.parent)


def cells(line: str) -> list[str]:
    """The columns of a row of the table, of which the first may have spaces."""
    return re.split(r"\s{2,}", line.strip())


def contexts_table(python: str, values: Mapping[tuple[str, str], Values]) -> Table:
    """The table of what each round took: {(operation, implementation): seconds}."""
    results: contexts.Results = {}
    for (operation, name), seconds in values.items():
        results.setdefault(operation, {})[name] = seconds
    return Table({"python": python}, contexts.rows_of(results))


def test_the_table_of_the_contexts_and_its_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "contexts.json"
    names = ["stdlib", *OURS, "threading.local"]
    done = run_bench("contexts", "--quick", "--group", "set", "switch", "--impl", *names, "--output", file)
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.split("manager.\n")[1].splitlines()
    assert cells(header) == ["operation", *names]
    table = {row: columns for row, *columns in map(cells, lines[: lines.index("")])}
    # In the order of the tool, not of the command line.
    assert list(table) == [*ROWS["switch"], *ROWS["set"]]
    for row, columns in table.items():
        assert re.fullmatch(NUMBER, columns[0]) and all(re.fullmatch(CELL, column) for column in columns[1:-1])
        assert (columns[-1] == "-") == (row not in ("set", "set, reset", "with set"))

    saved = Table.load(file)
    assert [row.operation for row in saved.rows] == list(table)
    for measured in saved.rows:
        assert list(measured.medians) == [name for name, cell in zip(names, table[measured.operation]) if cell != "-"]
    assert saved.about["command"].startswith("python tools/bench.py contexts --quick --group set")

    goals = lines[lines.index("") + 1 :]
    assert goals == contexts.format_goals(saved)
    assert [line.split(": ")[0] for line in goals] == [
        "cython-thread get after a switch at least 1.3 times as good as stdlib",
        "cython-thread set at least 2 times as good as stdlib",
        "cython-native get after a switch at least 1.1 times as good as stdlib",
        "cython-native set at least 0.7 times as good as stdlib",
        "pure-thread set at least 0.1 times as good as cython-thread",
        "pure-native set at least 0.1 times as good as cython-native",
    ]


def test_the_programs_run_where_asyncio_follows() -> None:
    done = run_bench("contexts", "--quick", "--group", "programs", "--impl", "stdlib", "cython-thread", "pure-native")
    assert done.returncode == 0, done.stderr
    table = {row: columns for row, *columns in map(cells, done.stdout.splitlines())}
    assert list(OPERATIONS)[-3:] == ["service", "tasks", "recursion"]
    for row, followed in (("service", False), ("tasks", False), ("recursion", True)):
        stdlib, thread, native = table[row]
        assert re.fullmatch(NUMBER, stdlib) and re.fullmatch(CELL, native)
        assert (thread != "-") == followed
    assert "service and tasks are for what rides in Python's own contexts" in done.stdout


def test_every_statement_of_every_implementation_runs() -> None:
    """Each does what it says once, also those of the groups that no other test measures."""
    program = """
from benchmarks.context_operations import OPERATIONS
from benchmarks.measuring import BenchError
for name, implementation in IMPLEMENTATIONS.items():
    try:
        subject = implementation.load()
    except BenchError as error:
        assert name in ("backport", "extracontext"), error
        continue
    for operation in OPERATIONS:
        statement = subject.own.get(operation, OPERATIONS[operation].statement)
        if statement:
            code = compile(statement.format(items=20), operation, "exec")
            subject.inside(OPERATIONS[operation].size)(exec, code, subject.namespace)
            print(name, operation, sep=": ")
"""
    done = run_with_implementations(program)
    assert done.returncode == 0, done.stderr
    for name in OURS[1::2] + ["stdlib"]:
        assert done.stdout.count(f"{name}: ") == len(OPERATIONS)
    for name in OURS[::2]:
        assert done.stdout.count(f"{name}: ") == len(OPERATIONS) - 2


def test_each_implementation_is_the_one_it_is_named_after() -> None:
    program = f"""
import contextvars
types = {{}}
for name in {OURS}:
    names = IMPLEMENTATIONS[name].load().namespace
    types[name] = names["ContextVar"]
    kind = "pure" if hasattr(types[name].get, "__code__") else "cython"
    print(name, kind, "native" if hasattr(names["context"], "native") else "thread")
assert IMPLEMENTATIONS["stdlib"].load().namespace["ContextVar"] is contextvars.ContextVar
assert len({{*types.values(), contextvars.ContextVar}}) == 5
assert "contextvars_cy" not in sys.modules and sys.modules["contextvars"] is contextvars
"""
    done = run_with_implementations(program)
    assert done.stdout.splitlines() == [f"{name} {name.replace('-', ' ')}" for name in OURS], done.stderr


def test_the_programs_notice_what_is_mixed_up() -> None:
    """On the thread host asyncio's tasks share a Context."""
    program = """
for name in ("pure-native", "pure-thread"):
    names = IMPLEMENTATIONS[name].load().namespace
    for statement in ("tasks(3)", "serve(3)"):
        try:
            names["Context"]().run(eval, statement, names)
            print(name, statement)
        except RuntimeError as error:
            print(error)
"""
    lines = run_with_implementations(program).stdout.splitlines()
    assert lines[:2] == ["pure-native tasks(3)", "pure-native serve(3)"]
    assert lines[2] == "a task has read another task's variable"
    assert re.match(r"request \d saw \[", lines[3])


def test_what_is_missing_is_left_out_or_an_error(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['immutables'] = sys.modules['extracontext'] = None\n"
    )
    done = run_bench("contexts", "--quick", "--group", "threads", path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Left out: backport needs the package contextvars: " in done.stdout
    assert "Left out: extracontext needs the package python-extracontext: " in done.stdout
    (header,) = [line for line in done.stdout.splitlines() if line.startswith("operation ")]
    assert cells(header) == ["operation", "stdlib", *OURS, "threading.local"]
    done = run_bench("contexts", "--quick", "--impl", "extracontext", path=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "run pip install --group bench" in done.stderr


def test_the_goals_of_the_contexts_are_the_ratios() -> None:
    values = {
        ("set", "stdlib"): [2.0, 4.0, 6.0],
        ("set", "cython-thread"): [1.0, 1.0, 3.0],
        ("set", "cython-native"): [4.0, 4.0, 12.0],
        ("set", "pure-native"): [8.0, 40.0, 6.0],
        ("set, reset", "cython-native"): [1.0, 1.0, 1.0],
    }
    assert contexts.format_goals(contexts_table("cpython", values)) == [
        "cython-thread set at least 2 times as good as stdlib: met in all 1 rows, the lowest is 2.000",
        "cython-native set at least 0.7 times as good as stdlib: missed in 1 of 1 rows, set (0.500)",
        "pure-native set at least 0.1 times as good as cython-native: met in all 1 rows, the lowest is 0.500",
    ]
    on_pypy = {pair: seconds for pair, seconds in values.items() if "cython" not in pair[1]}
    (goal,) = contexts.format_goals(contexts_table("pypy", on_pypy))
    assert goal == "pure-native everything at least 1 times as good as stdlib: missed in 1 of 1 rows, set (0.250)"


def test_a_get_after_a_switch_is_what_it_adds_to_the_switch() -> None:
    values = {
        ("switch", "stdlib"): [5.0, 50.0, 500.0],
        ("switch, get", "stdlib"): [7.0, 52.0, 400.0],
        ("switch", "cython-native"): [3.0, 30.0, 300.0],
        ("switch, get", "cython-native"): [4.0, 31.0, 400.0],
    }
    table = contexts_table("cpython", values)
    assert table.rows[-1].operation == "get after a switch"
    assert table.rows[-1].medians == {"stdlib": 2.0, "cython-native": 1.0}
    assert list(DIFFERENCES)[0] == "get after a switch"
    assert contexts.format_goals(table) == [
        "cython-native get after a switch at least 1.1 times as good as stdlib: met in all 1 rows, the lowest is 2.000"
    ]
    assert contexts.format_tables(table)[-1].startswith("| get after a switch | 2,000,000,000 | 1,000,000,000 (2.00) |")


def test_the_table_of_the_maps_and_its_file(tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    options = ["--quick", "--size", "10", "--keys", "int", "--impl", "dict", "pure", "cython", "--output", file]
    done = run_bench("map", *options)
    assert done.returncode == 0, done.stderr
    _, header, *lines = done.stdout.splitlines()
    assert header.split() == ["operation", "keys", "size", "cython", "pure", "dict"]
    assert [line.split()[:3] for line in lines if line] == [[operation, "int", "10"] for operation in maps.STATEMENTS]
    saved = Table.load(file)
    assert saved.about["versions"].keys() == {"cython", "pure", "dict"}
    page = maps.format_tables(saved)
    assert page[1:3] == ["## int keys", ""] and len(page) == 5 + len(maps.STATEMENTS)


def test_the_goals_of_the_maps_are_the_ratios() -> None:
    values = {
        "get": {"cython": [1.0, 1.0, 2.0], "immutables": [1.5, 1.0, 4.0]},
        "set": {"cython": [2.0], "immutables": [2.0]},
    }
    rows = [row_of(operation, seconds, maps.PAIRS, keys="str", size=10) for operation, seconds in values.items()]
    assert maps.format_goals(Table({}, rows)) == [
        "cython get at least 1 times as good as immutables: met in all 1 rows, the lowest is 1.500",
        "cython set at least 1.3 times as good as immutables: missed in 1 of 1 rows, str 10 (1.000)",
    ]


PAGES = sorted((BENCH.parents[1] / "docs" / "benchmarks").glob("*.json"))


@pytest.mark.parametrize("file", PAGES, ids=[file.stem for file in PAGES])
def test_the_pages_show_what_their_files_hold(file: Path) -> None:
    table = Table.load(file)
    kind = {"map": maps, "contexts": contexts}[table.about["kind"]]
    page = file.with_suffix(".md").read_text(encoding="utf-8")
    assert "\n".join(kind.format_tables(table)) in page
    for goal in kind.format_goals(table):
        assert f"- {goal}\n" in page


def test_nothing_to_measure_is_an_error() -> None:
    done = run_bench("contexts", "--quick", "--group", "context", "--impl", "threading.local")
    assert done.returncode == 1
    assert done.stderr == "bench.py contexts: error: none of these implementations has one of these operations\n"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["map", "--size", "0"], "argument --size: must be 1 to 10000000"),
        (["map", "--impl", "nonsense"], "argument --impl: invalid choice: 'nonsense'"),
        (["contexts", "--group", "nonsense"], "argument --group: invalid choice: 'nonsense'"),
        ([], "arguments are required: command"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], words: str) -> None:
    done = run_bench(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_the_table_of_what_travels(tmp_path: Path) -> None:
    file = tmp_path / "travel.json"
    done = run_bench("travel", "--quick", "--group", "headers", "requests", "--output", file)
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.partition("operation")[2].splitlines()
    assert header.split() == ["without", "contextvars_cy", "times"]
    rows = [cells(line) for line in lines[: lines.index("")]]
    assert [row for row, *_ in rows] == ["inject", "extract", "asgi request", "wsgi request"]
    assert all(re.fullmatch(NUMBER, column) for _, *columns in rows for column in columns)
    goals = lines[lines.index("") + 1 :]
    assert goals == travels.format_goals(Table.load(file))
    assert [line.split(": ")[0] for line in goals] == [
        "headers at least 2 times as good as without",
        "asgi request at most 20 microseconds longer",
        "wsgi request at most 20 microseconds longer",
    ]


def test_goals_of_what_travels() -> None:
    rows = [
        row_of("inject", {travels.THEIRS: [4e-6], travels.OURS: [1e-6]}, [(travels.THEIRS, travels.OURS)]),
        row_of("pool, 5 values", {travels.THEIRS: [1e-4], travels.OURS: [2e-4]}, [(travels.THEIRS, travels.OURS)]),
        row_of("asgi request", {travels.THEIRS: [1e-6], travels.OURS: [22e-6]}, [(travels.THEIRS, travels.OURS)]),
    ]
    met, pool, request = travels.format_goals(Table({}, rows))
    assert "met in all 1 rows, the lowest is 4.000" in met
    assert "missed in 1 of 1 rows, pool, 5 values (0.500)" in pool
    assert request == "asgi request at most 20 microseconds longer: missed, 21.0"
