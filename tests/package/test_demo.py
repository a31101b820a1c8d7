"""The demo finds what the standard library loses, and nothing with ours; its checker notices what it is there for."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers import run_python

DEMO = Path(__file__).resolve().parents[2] / "tools" / "demo.py"
REQUESTS = 60


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python([DEMO, *arguments], cwd=DEMO.parent)


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sent(demo: ModuleType) -> dict[str, Any]:
    return {"r-1": demo.Identity("blue", "ada"), "r-2": demo.Identity("red", "bob")}


@pytest.fixture
def records(demo: ModuleType, sent: dict[str, Any]) -> list[dict[str, Any]]:
    """A faultless log, which each test then spoils in its own way."""
    return [
        {
            "request_id": request_id,
            "tenant": tenant,
            "user": user,
            "span": "-",
            "step": step,
            "expected": request_id,
        }
        for request_id, (tenant, user) in sent.items()
        for step in demo.STEPS
    ]


def table(completed: subprocess.CompletedProcess[str]) -> dict[str, dict[str, int]]:
    """How many are wrong, for each row and way."""
    head, *lines = completed.stdout.split("\n\n")[1].splitlines()
    ways = head.split()[4:]
    rows = {line[:52].strip(): [int(number) for number in line[52:].split()] for line in lines}
    return {row: dict(zip(ways, numbers)) for row, numbers in rows.items()}


def test_the_demo_finds_nothing_wrong_with_ours(demo: ModuleType) -> None:
    completed = run_demo("--only", "pure,cython", "--requests", str(REQUESTS), "--concurrency", "20")
    assert completed.returncode == 0, completed.stdout + completed.stderr
    rows = table(completed)
    assert list(rows) == [*demo.STEPS.values(), demo.RESPONSES, demo.ERRORS]
    assert all(row == {"pure": 0, "cython": 0} for row in rows.values())


def test_a_recording_loses_nothing_either() -> None:
    completed = run_demo("--only", "pure,cython", "--recorded", "--requests", str(REQUESTS), "--concurrency", "20")
    assert completed.returncode == 0, completed.stdout + completed.stderr
    ways = ("pure", "cython", "pure-recorded", "cython-recorded")
    assert all(row == dict.fromkeys(ways, 0) for row in table(completed).values())
    speeds = completed.stdout.split("\n\n")[2]
    assert speeds.startswith("requests a second ") and len(speeds.split()) == 3 + len(ways)


def test_the_demo_shows_what_the_standard_library_loses(demo: ModuleType) -> None:
    completed = run_demo("--only", "stdlib", "--requests", str(REQUESTS), "--concurrency", "20")
    assert completed.returncode == 0, completed.stdout + completed.stderr
    rows = {row: numbers["stdlib"] for row, numbers in table(completed).items()}
    lost = [demo.STEPS[step] for step in ("generator", "dependency", "cleanup")]
    assert all(rows[row] == REQUESTS for row in lost) and rows[demo.ERRORS] >= REQUESTS
    # Threads of a pool inherit the values of the request for which they were started, if Python is told so.
    assert rows[demo.STEPS["pool"]] > 0
    assert all(rows[text] == 0 for step, text in demo.STEPS.items() if text not in lost and step != "pool")


def test_unknown_way_is_refused() -> None:
    completed = run_demo("--only", "nonsense")
    assert completed.returncode == 2
    assert completed.stdout == ""
    (line,) = completed.stderr.splitlines()
    assert "'nonsense'" in line
    assert "stdlib, pure, cython" in line


def test_faultless_log_has_no_problems(demo: ModuleType, records: list[dict[str, Any]], sent: dict[str, Any]) -> None:
    assert demo.check_records(records, sent) == []


@pytest.mark.parametrize(
    ("name", "value"),
    # The values belong to the other request, as they would if a context had leaked.
    [("request_id", "r-2"), ("tenant", "red"), ("request_id", "-"), ("request_id", None)],
)
def test_mixed_up_record_is_counted(
    demo: ModuleType, records: list[dict[str, Any]], sent: dict[str, Any], name: str, value: Any
) -> None:
    records[0][name] = value
    (problem,) = demo.check_records(records, sent)
    assert problem.row == records[0]["step"] and problem.text.startswith("not this request's values")


@pytest.mark.parametrize(("step", "name"), [("generator", "span"), ("dependency", "user")])
def test_what_a_step_is_about_is_checked(
    demo: ModuleType, records: list[dict[str, Any]], sent: dict[str, Any], step: str, name: str
) -> None:
    record = next(record for record in records if record["step"] == step)
    record[name] = "another"
    (problem,) = demo.check_records(records, sent)
    assert problem.row == step


def test_an_error_in_the_log_is_counted(demo: ModuleType, records: list[dict[str, Any]], sent: dict[str, Any]) -> None:
    records.append({"step": None, "message": "it failed"})
    assert demo.check_records(records, sent) == [(demo.ERRORS, "error: it failed")]


def test_missing_record_is_counted(demo: ModuleType, records: list[dict[str, Any]], sent: dict[str, Any]) -> None:
    removed = records.pop(0)
    (problem,) = demo.check_records(records, sent)
    assert problem == (removed["step"], f"no record of step {removed['step']} of request {removed['expected']}")


def test_repeated_and_foreign_records_are_counted(
    demo: ModuleType, records: list[dict[str, Any]], sent: dict[str, Any]
) -> None:
    records.append(dict(records[0]))
    records.append({**records[0], "expected": "r-3"})
    records.append({**records[0], "step": "unknown"})
    assert len(demo.check_records(records, sent)) == 3


def test_every_problem_is_counted(demo: ModuleType, records: list[dict[str, Any]], sent: dict[str, Any]) -> None:
    records[0]["request_id"] = "r-2"
    records[1]["tenant"] = "red"
    del records[2]
    assert len(demo.check_records(records, sent)) == 3


def test_wrong_response_is_counted(demo: ModuleType, sent: dict[str, Any]) -> None:
    seen = dict.fromkeys(demo.STEPS, "r-1")
    body = {"request_id": "r-1", "tenant": "blue", "seen": seen}
    assert demo.check_response("200", body, "r-1", sent["r-1"]) == []
    assert len(demo.check_response("500", body, "r-1", sent["r-1"])) == 1
    assert len(demo.check_response("200", {**body, "tenant": "red"}, "r-1", sent["r-1"])) == 1
    assert len(demo.check_response("200", {**body, "seen": {**seen, "pool": "r-2"}}, "r-1", sent["r-1"])) == 1
