"""One test suite on the standard library's context variables and on ours, compared test by test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

OUTCOMES = Path(__file__).with_name("outcomes")
SWAPPED = ["-m", "contextvars_cy", "run", "--host", "native", "--backend"]
WAYS = {"stock": [], "pure": [*SWAPPED, "pure"], "cython": [*SWAPPED, "cython"]}
BACKENDS = ("pure", "cython")
MISSING = "missing"
# Only a run that hangs is meant to reach this limit.
LIMIT_SECONDS = 3600
# pytest's status if tests failed; anything above means that the run did not finish.
TESTS_FAILED = 1


class Suite(NamedTuple):
    name: str
    python: str
    program: list[str]
    """Arguments of the interpreter; the file for the outcomes and then the targets follow."""
    targets: list[str]
    """Modules, folders or single tests, as the program names them in its outcomes."""
    folder: Path


class Run(NamedTuple):
    outcomes: dict[str, str]
    trouble: str
    """Why the run did not finish, or nothing."""

    def summary(self) -> str:
        count = Counter(self.outcomes.values())
        return "/".join(str(count[outcome]) for outcome in ("passed", "failed", "skipped"))


Differences = dict[str, tuple[str, str]]


def unittest_suite(name: str, python: str, modules: list[str], folder: Path) -> Suite:
    return Suite(name, python, [str(OUTCOMES / "unittest_outcomes.py")], modules, folder)


def pytest_suite(name: str, python: str, options: list[str], targets: list[str], folder: Path) -> Suite:
    fixed = ["-m", "pytest", "-p", "pytest_outcomes", "-p", "no:cacheprovider"]
    return Suite(name, python, [*fixed, *options, "--outcomes"], targets, folder)


def run(suite: Suite, way: str, record: Path, targets: list[str] | None = None) -> Run:
    """Run the targets, or the whole suite; what the program prints stays in `record` with the ending .log."""
    outcomes = record.with_suffix(".outcomes")
    outcomes.unlink(missing_ok=True)
    command = [suite.python, *WAYS[way], *suite.program, str(outcomes), *(targets or suite.targets)]
    with open(record.with_suffix(".log"), "w", encoding="utf-8") as log:
        # Its own session, so that all that a suite started ends with it.
        process = subprocess.Popen(
            command,
            cwd=suite.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell makes background jobs ignore interrupts, and some tests interrupt themselves.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            trouble = _trouble(process.wait(LIMIT_SECONDS))
        except subprocess.TimeoutExpired:
            trouble = f"stopped after {LIMIT_SECONDS} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    lines = outcomes.read_text(encoding="utf-8").splitlines() if outcomes.exists() else []
    if not lines:
        return Run({}, trouble or "no test ran")
    module, *pairs = map(json.loads, lines)
    if (module == "contextvars_cy") is (way == "stock"):
        trouble = f"ran on the context variables of {module}"
    return Run(dict(pairs), trouble)


def _trouble(status: int) -> str:
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"exit status {status}" if status > TESTS_FAILED else ""


def environment() -> dict[str, str]:
    """This process's environment, without variables that steer contextvars_cy, Python or pytest."""
    steering = ("CONTEXTVARS_CY_", "PYTHON", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    path = os.environ.get("PYTHONPATH")
    return {**kept, "PYTHONPATH": os.pathsep.join([str(OUTCOMES), *([path] if path else [])])}


def differences(stock: Run, ours: Run) -> Differences:
    """The outcomes of each test on both sides, if they differ."""
    pairs = {
        test: (stock.outcomes.get(test, MISSING), ours.outcomes.get(test, MISSING))
        for test in sorted({*stock.outcomes, *ours.outcomes})
    }
    return {test: pair for test, pair in pairs.items() if pair[0] != pair[1]}


def compare(suite: Suite, backend: str, stock: Run, records: Path) -> tuple[Run, Differences]:
    """Run the suite on the backend. Some tests wait for a clock and fail on a busy machine: tests that differ run
    again, alone and both ways, and if the outcomes agree then, that counts."""
    ours = run(suite, backend, records / backend)
    tests = list(differences(stock, ours))
    if tests:
        stock_again = run(suite, "stock", records / f"{backend}-stock-again", tests).outcomes
        ours_again = run(suite, backend, records / f"{backend}-again", tests).outcomes
        same = {test: outcome for test, outcome in stock_again.items() & ours_again.items() if test in tests}
        for done in (stock, ours):
            done.outcomes.update(same)
    return ours, differences(stock, ours)
