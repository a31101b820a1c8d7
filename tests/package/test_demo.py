"""The demo has to pass with every implementation, and its checker has to notice what it is there to notice."""

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
        {"request_id": request_id, "tenant": tenant, "user": user, "step": step, "expected": request_id}
        for request_id, (tenant, user) in sent.items()
        for step in demo.STEPS
    ]


@pytest.mark.parametrize("ways", ["stdlib", "pure,cython"])
def test_demo_finds_nothing_mixed_up(demo: ModuleType, ways: str) -> None:
    completed = run_demo("--only", ways, "--requests", str(REQUESTS), "--concurrency", "20")
    assert completed.returncode == 0, completed.stdout + completed.stderr
    names = ways.split(",")
    for name, line in zip(names, completed.stdout.splitlines()[-len(names) :]):
        backend, requests, records, mixed_up, _ = line.split()
        assert (backend, int(requests), int(mixed_up)) == (name, REQUESTS, 0)
        assert int(records) == REQUESTS * len(demo.STEPS) > 0


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
    [("request_id", "r-2"), ("tenant", "red"), ("user", "bob"), ("request_id", "-"), ("request_id", None)],
)
def test_mixed_up_record_is_counted(
    demo: ModuleType, records: list[dict[str, Any]], sent: dict[str, Any], name: str, value: Any
) -> None:
    records[0][name] = value
    (problem,) = demo.check_records(records, sent)
    assert problem.startswith("mixed-up record")


def test_missing_record_is_counted(demo: ModuleType, records: list[dict[str, Any]], sent: dict[str, Any]) -> None:
    removed = records.pop(0)
    (problem,) = demo.check_records(records, sent)
    assert problem == f"missing record: step {removed['step']} of request {removed['expected']}"


def test_repeated_and_foreign_records_are_counted(
    demo: ModuleType, records: list[dict[str, Any]], sent: dict[str, Any]
) -> None:
    records.append(dict(records[0]))
    records.append({**records[0], "expected": "r-3"})
    records.append({**records[0], "step": None})
    assert len(demo.check_records(records, sent)) == 3


def test_every_problem_is_counted(demo: ModuleType, records: list[dict[str, Any]], sent: dict[str, Any]) -> None:
    records[0]["request_id"] = "r-2"
    records[1]["tenant"] = "red"
    del records[2]
    assert len(demo.check_records(records, sent)) == 3


def test_wrong_response_is_counted(demo: ModuleType, sent: dict[str, Any]) -> None:
    seen = dict.fromkeys(demo.STEPS, "r-1")
    body = {"request_id": "r-1", "tenant": "blue", "user": "ada", "seen": seen}
    assert demo.check_response("200", body, "r-1", sent["r-1"]) == []
    assert len(demo.check_response("500", body, "r-1", sent["r-1"])) == 1
    assert len(demo.check_response("200", {**body, "tenant": "red"}, "r-1", sent["r-1"])) == 1
    assert len(demo.check_response("200", {**body, "seen": {**seen, "executor": "r-2"}}, "r-1", sent["r-1"])) == 1
