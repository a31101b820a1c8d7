"""`python -m contextvars_cy trace`: from when to when it records, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers import run_python

BEGIN = """
import atexit, os, sys, threading, time
from contextvars import ContextVar

var = ContextVar("var")
var.set("main")
"""


def trace(folder: Path, program: str, *options: str) -> Any:
    (folder / "app.py").write_text(BEGIN + program, encoding="utf-8")
    return run_python(["-m", "contextvars_cy", "trace", "--format", "json", *options, "app.py"], folder)


def values_set(folder: Path) -> list[str]:
    data = json.loads((folder / "trace.json").read_text(encoding="utf-8"))
    return [event[6] for event in data["events"] if event[1] == "set"]


def test_it_records_to_the_end_of_the_last_thread_and_what_is_done_at_the_end(tmp_path: Path) -> None:
    program = """
def work():
    time.sleep(0.3)
    var.set("thread")

threading.Thread(target=work).start()
atexit.register(var.set, "end")
"""
    done = trace(tmp_path, program)
    assert done.returncode == 0 and "events, written to " in done.stderr
    assert values_set(tmp_path) == ["'main'", "'thread'", "'end'"]


@pytest.mark.parametrize("end, status", [("sys.exit(3)", 3), ("raise KeyError('lost')", 1)])
def test_a_program_that_fails_is_recorded_too(end: str, status: int, tmp_path: Path) -> None:
    assert trace(tmp_path, end).returncode == status
    assert values_set(tmp_path) == ["'main'"]


def test_a_program_that_ends_at_once_leaves_no_recording_of_an_earlier_one(tmp_path: Path) -> None:
    trace(tmp_path, "")
    assert trace(tmp_path, "os._exit(0)").returncode == 0
    assert (tmp_path / "trace.json").read_text(encoding="utf-8") == ""


@pytest.mark.parametrize("program", [["-m", "there.is.none"], ["none.py"], ["-m", "json.broken"]])
def test_without_a_program_nothing_is_written(program: list[str], tmp_path: Path) -> None:
    (tmp_path / "trace.html").write_text("an earlier recording", encoding="utf-8")
    done = run_python(["-m", "contextvars_cy", "trace", *program], tmp_path)
    assert done.returncode != 0 and "written" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["trace.html"]
    assert (tmp_path / "trace.html").read_text(encoding="utf-8") == "an earlier recording"


def test_where_nothing_can_be_written_the_program_does_not_run(tmp_path: Path) -> None:
    done = trace(tmp_path, "print('it runs')", "-o", "no/folder/trace.json")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("python -m contextvars_cy: the recording cannot be written: ")


def test_a_child_that_is_forked_writes_nothing(tmp_path: Path) -> None:
    program = """
if hasattr(os, "fork") and os.fork() == 0:
    var.set("child")
    sys.exit(0)
if hasattr(os, "wait"):
    os.wait()
"""
    assert trace(tmp_path, program).stderr.count("written to") == 1
    assert values_set(tmp_path) == ["'main'"]
