"""The fuzzer finds what is planted for it, in a program that fails again, and finds nothing else."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import contextvars_cy
from helpers import run_python

FUZZ = Path(__file__).resolve().parents[2] / "tools" / "fuzz.py"
FOR_EVER = "3600"  # It ends when it has found something.

Plant = Callable[[str, str], Path]


def run_fuzz(*arguments: str, path: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    python_path = os.pathsep.join(filter(None, [str(path or ""), os.environ.get("PYTHONPATH")]))
    return run_python([FUZZ, *arguments], FUZZ.parent, {"PYTHONPATH": python_path or None, **variables})


@pytest.fixture
def planted(tmp_path: Path) -> Plant:
    """Plants a bug in a copy of the package, the pure twin alone, and returns the folder to import it from."""

    def plant(old: str, new: str) -> Path:
        package = tmp_path / "contextvars_cy"
        shutil.copytree(Path(contextvars_cy.__file__).parent, package, ignore=shutil.ignore_patterns("*_cy*", "__py*"))
        module = package / "_context/context_py.py"
        source = module.read_text()
        assert source.count(old) == 1
        module.write_text(source.replace(old, new))
        return tmp_path

    return plant


def replay_command(output: str) -> list[str]:
    """The last printed command that runs a program again, without the interpreter and the script."""
    (line,) = [line for line in output.splitlines() if "--replay" in line]
    return shlex.split(line)[2:]


@pytest.mark.parametrize("host", ["native", "thread"])
def test_a_wrong_answer_is_found_and_shrunk_and_replayed(planted: Plant, host: str) -> None:
    path = planted("if token._used:", "if False:")
    found = run_fuzz("--host", host, "--only", "plain", "--seconds", FOR_EVER, "--seed", "1", path=path)
    assert found.returncode == 1, found.stderr
    assert "not cython: no compiled extension is installed for this Python" in found.stdout
    command = replay_command(found.stdout)
    # Set a variable, and undo it twice; perhaps by the end of a `with` block.
    assert command[-1].count('["') in (2, 3)
    first, second = found.stdout.split("of the log:\n")[1].splitlines()[:2]
    assert first.startswith("  pure    ") and second.startswith("  stdlib  ")
    assert "has already been used once" in second and "has already been used once" not in first

    again = run_fuzz(*command, path=path)
    assert again.returncode == 1
    assert first in again.stdout and second in again.stdout
    without = run_fuzz(*command)
    assert (without.returncode, without.stdout) == (0, "The logs are the same.\n")


def test_what_kills_the_process_is_shrunk_and_replayed(planted: Plant) -> None:
    path = planted("copied = copy_of(self)", "import os; os._exit(7)")
    found = run_fuzz("--only", "plain", "--seconds", FOR_EVER, "--seed", "1", path=path)
    assert found.returncode == 1
    assert "Its process died with exit code 7." in found.stdout
    command = replay_command(found.stdout)
    assert json.loads(command[-1]) == [["copy", 0]]
    again = run_fuzz(*command, path=path)
    assert again.returncode == 1 and "exit code 7" in again.stdout


LEAVES_A_THREAD = "import threading; return threading.Thread(target=threading.Event().wait, daemon=False).start() or "


@pytest.mark.parametrize(
    "copy, lines",
    [
        ("import threading; threading.Event().wait()", []),
        (LEAVES_A_THREAD + "copy_of(self)", []),
        (LEAVES_A_THREAD + "None.copy()", ["line 1 of the log:", "  pure    ", "  stdlib  "]),
    ],
    ids=["hangs", "leaves a thread", "differs, and leaves a thread"],
)
def test_what_never_ends_is_reported(planted: Plant, tmp_path: Path, copy: str, lines: list[str]) -> None:
    path = planted("copied = copy_of(self)", copy)
    program = f"""
import json, sys
sys.path.insert(0, {str(FUZZ.parent)!r})
from fuzzing import supervision
supervision.HANGS_AFTER_SECONDS = 5
outcome = supervision.run_again("plain", [["copy", 0]])
print(json.dumps([outcome.program, outcome.wrong]))
"""
    done = run_python(["-c", program], tmp_path, {"PYTHONPATH": str(path)})
    assert done.returncode == 0, done.stderr
    program, wrong = json.loads(done.stdout)
    assert program == [["copy", 0]]
    *found, end = wrong
    assert end == "It does not end. The stacks of its threads are above."
    assert len(found) == len(lines) and all(line.startswith(start) for line, start in zip(found, lines))
    assert " in wait\n" in done.stderr


@pytest.mark.parametrize("host, kinds", [("native", 9), ("thread", 2)])
def test_nothing_is_found_where_nothing_is_planted(host: str, kinds: int) -> None:
    done = run_fuzz("--host", host, "--seconds", str(kinds))
    assert done.returncode == 0, done.stdout + done.stderr
    first, _, *rows, total = done.stdout.splitlines()
    assert first.startswith("pure and cython beside stdlib of Python ") and f"on the {host} host; seed " in first
    assert len(rows) == kinds
    ran = [row.split() for row in rows if "left out" not in row]
    assert all(int(programs) > 0 and differences == "0" for _, programs, differences, _ in ran)
    assert total.split() == ["total", str(sum(int(programs) for _, programs, *_ in ran)), "0"]


def test_a_library_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['uvloop'] = sys.modules['trio'] = None\n")
    done = run_fuzz("--only", "plain,uvloop,anyio-trio", "--seconds", "1", path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "uvloop          left out: uvloop not installed" in done.stdout
    assert "trio not installed" in done.stdout
    assert "\nplain " in done.stdout


def test_a_kind_that_cannot_run_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "greenlet.py").write_text("raise ImportError('broken')\n")
    done = run_fuzz("--only", "greenlet,plain", "--seconds", "2", path=tmp_path)
    assert done.returncode == 1
    assert "No program of the kind greenlet could run:\nIts process died with exit code 1." in done.stdout
    assert "ImportError: broken" in done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    assert rows["greenlet"][:2] == ["0", "1"] and rows["plain"][1] == "0"
    assert rows["total"] == [rows["plain"][0], "1"]


def test_the_same_seed_makes_the_same_programs() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(FUZZ.parent)!r})
from fuzzing.kinds import KINDS
from fuzzing.programs import Programs
for kind in ("plain", "asyncio"):
    programs = Programs(KINDS[kind].load(), sys.argv[1])
    print([programs.program() for _ in range(100)])
"""
    outputs = [
        run_python(["-c", program, seed], FUZZ.parent, {"PYTHONHASHSEED": hash_seed}).stdout
        for seed, hash_seed in (("1", "1"), ("1", "2"), ("2", "1"))
    ]
    assert outputs[0] == outputs[1] != outputs[2]
    assert len(outputs[0]) > 10_000


@pytest.mark.parametrize("answers, differs", [("'always'", True), ("next(numbers)", False)])
def test_only_an_oracle_that_agrees_with_itself_is_differed_from(answers: str, differs: bool) -> None:
    program = f"""
import itertools, sys
sys.path.insert(0, {str(FUZZ.parent)!r})
from fuzzing import search
numbers = itertools.count()
runner = search.Runner("plain")
oracle = runner.implementations[-1]
runner.log = lambda implementation, program: ([str({answers}) if implementation is oracle else "ours"], None)
print(bool(runner.difference([])))
"""
    assert run_python(["-c", program], FUZZ.parent, {}).stdout.split() == [str(differs)]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--only", "nonsense"], "'nonsense' is not one of plain, threads, asyncio,"),
        (["--only", "plain,"], "'' is not one of plain, threads, asyncio,"),
        (["--seconds", "0"], "'0' is not a length of time"),
        (["--seconds", "nan"], "'nan' is not a length of time"),
        (["--seconds", "soon"], "'soon' is not a length of time"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["--host", "thread", "--only", "asyncio"], "the thread host does not follow asyncio; use --host native"),
        (["--replay", "[]"], "argument --replay: say with --only of which one kind the program is"),
        (["--only", "plain", "--replay", "nonsense"], "not a program as printed after a difference: Expecting value"),
        (["--only", "plain", "--replay", '"run"'], "a program is a list of operations, as printed after a difference"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], words: str) -> None:
    done = run_fuzz(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize(
    "program, words",
    [
        ([["nonsense", 1]], "no operation 'nonsense'"),
        ([["note", 1]], "no operation 'note'"),
        ([["get", 1, 2]], "get takes 1 arguments: variable"),
    ],
)
def test_a_program_of_no_operations_is_refused(program: list[list[object]], words: str) -> None:
    done = run_fuzz("--only", "plain", "--replay", json.dumps(program))
    assert done.returncode == 1
    assert words in done.stderr
