"""`make conformance` has to see every difference, and to fail for each that nobody has explained."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import conformance
import conformance_runs
from conformance_suites import Explained
from helpers import run_python

PYTEST_SUITE = """
import contextvars, pathlib, pytest, sys

ours = contextvars.ContextVar.__module__ == "contextvars_cy"

def test_same():
    pass

@pytest.mark.skip
def test_skipped():
    pass

def test_fails_everywhere():
    assert False

@pytest.mark.parametrize("number", [1])
def test_different(number):
    assert not ours

def test_slow_machine():
    seen = pathlib.Path(f"seen-{sys.modules['contextvars_cy'].backend if ours else 'stock'}")
    before = seen.exists()
    seen.touch()
    assert before or not ours

@pytest.fixture
def broken_afterwards():
    yield
    assert not ours

def test_its_end(broken_afterwards):
    pass
"""
DIFFERENT = {
    "test_fake.py::test_different[1]": ("passed", "failed"),
    "test_fake.py::test_its_end": ("passed", "failed"),
}
UNITTEST_SUITE = """
import contextvars, unittest

ours = contextvars.ContextVar.__module__ == "contextvars_cy"

class Fake(unittest.TestCase):
    def test_same(self):
        pass

    def test_different(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertFalse(ours and number == 1)

    def test_error(self):
        raise OSError

    def test_skipped_in_part(self):
        with self.subTest(number=1):
            self.skipTest("as it is")

    @unittest.expectedFailure
    def test_expected_to_fail(self):
        self.assertTrue(ours)

class FakeClass(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        assert not ours

    def test_same(self):
        pass
"""


def pytest_suite(folder: Path, text: str) -> conformance_runs.Suite:
    (folder / "test_fake.py").write_text(text, encoding="utf-8")
    return conformance_runs.pytest_suite("fake", sys.executable, [], ["test_fake.py"], folder)


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> conformance.Row:
    folder = tmp_path_factory.mktemp("fake")
    return conformance.check(pytest_suite(folder, PYTEST_SUITE), "3.9.1", folder / "records")


def test_a_difference_counts_when_it_comes_a_second_time(row: conformance.Row) -> None:
    assert row.problem == ""
    assert [row.runs[way].summary() for way in ("stock", "pure", "cython")] == ["4/1/1", "2/3/1", "2/3/1"]
    assert row.differing == {"pure": DIFFERENT, "cython": DIFFERENT}


@pytest.fixture
def explain(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    known: list[Explained] = []
    monkeypatch.setattr(conformance, "EXPLAINED", known)
    return lambda suite, test, **since: known.append(Explained(suite, test, "it looks at the type", **since))


def test_a_difference_without_a_reason_fails(
    row: conformance.Row, capsys: pytest.CaptureFixture[str], explain: Callable[..., None]
) -> None:
    assert conformance.report([row]) == 1
    told = capsys.readouterr().out
    assert "| 3.9.1  | fake  | 6     | 4/1/1 | 2/3/1 | 2/3/1  | 2          |" in told.splitlines()
    assert "3.9.1 fake, pure: test_fake.py::test_different[1]: passed as it is, failed on ours: NO REASON" in told

    explain("fake", "test_fake.py::test_different")
    assert conformance.report([row]) == 1
    assert "failed on ours: it looks at the type" in capsys.readouterr().out

    explain("fake", "test_fake.py::test_its_end")
    assert conformance.report([row]) == 0
    told = capsys.readouterr().out
    assert "2 (2 explained)" in told and "NO REASON" not in told


def test_a_reason_is_for_one_suite_and_from_one_python_on(row: conformance.Row, explain: Callable[..., None]) -> None:
    for test in ("test_different", "test_its_end"):
        explain("other", test)
        explain("fake", test, since=(3, 10))
    assert conformance.report([row]) == 1


def test_the_same_outcomes_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = conformance.check(pytest_suite(tmp_path, "def test_same(): pass"), "3.9.1", tmp_path)
    assert conformance.report([row]) == 0
    assert "| 3.9.1  | fake  | 1     | 1/0/0 | 1/0/0 | 1/0/0  | 0          |" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "text, told",
    [
        ("import contextvars, os, signal\n"
         "def test_first(): pass\n"
         "def test_crash():\n"
         "    if contextvars.ContextVar.__module__ == 'contextvars_cy': os.kill(os.getpid(), signal.SIGKILL)\n",
         "pure: ended by SIGKILL"),
        ("def test_fails(): assert False", "no test passes as it is"),
        ("", "stock: exit status 5"),
        ("import no_such_module", "stock: exit status 2"),
    ],
    ids=["crash", "nothing passes", "no tests", "cannot be collected"],
)  # fmt: skip
def test_a_suite_that_says_nothing_fails(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = conformance.check(pytest_suite(tmp_path, text), "3.9.1", tmp_path)
    assert told in row.problem
    assert conformance.report([row]) == 1
    assert "no result" in capsys.readouterr().out


def test_a_run_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance_runs, "LIMIT_SECONDS", 3)
    suite = pytest_suite(tmp_path, "import time\ndef test_hangs(): time.sleep(600)")
    assert conformance_runs.run(suite, "stock", tmp_path / "stock").trouble == "stopped after 3 s"


def test_a_suite_can_interrupt_itself(tmp_path: Path) -> None:
    suite = pytest_suite(
        tmp_path,
        "import pytest, signal\n"
        "def test_interrupt():\n"
        "    with pytest.raises(KeyboardInterrupt): signal.raise_signal(signal.SIGINT)\n",
    )
    # As in a shell's background.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = conformance_runs.run(suite, "stock", tmp_path / "stock")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.outcomes == {"test_fake.py::test_interrupt": "passed"}


def test_outcomes_of_unittest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake.py").write_text(UNITTEST_SUITE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    suite = conformance_runs.unittest_suite("fake", sys.executable, ["fake"], tmp_path)
    row = conformance.check(suite, "3.9.1", tmp_path)
    assert row.problem == ""
    assert row.runs["stock"].outcomes == {
        "fake.Fake.test_same": "passed",
        "fake.Fake.test_different": "passed",
        "fake.Fake.test_error": "failed",
        "fake.Fake.test_skipped_in_part": "skipped",
        "fake.Fake.test_expected_to_fail": "skipped",
        "fake.FakeClass.test_same": "passed",
    }
    assert row.differing["pure"] == row.differing["cython"] == {
        "fake.Fake.test_different": ("passed", "failed"),
        "fake.Fake.test_expected_to_fail": ("skipped", "failed"),
        "fake.FakeClass.test_same": ("passed", "missing"),
        "setUpClass (fake.FakeClass)": ("missing", "failed"),
    }  # fmt: skip


# ---- the command ----


def pretender(folder: Path, *said: object) -> str:
    """An interpreter that says of itself what the tool asks each for."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho '{json.dumps(said)}'\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_the_wheel_is_built_with_the_plugin_that_every_pytest_loads() -> None:
    assert conformance.REPOSITORY / "pytest_contextvars_cy.py" in conformance.project_files()


def test_an_unknown_suite_is_refused() -> None:
    done = run_python([conformance.__file__, "--only", "nonsense"], cwd=".")
    assert done.returncode == 2
    assert "invalid choice: 'nonsense'" in done.stderr


@pytest.mark.parametrize(
    "said, told",
    [
        ([], "this is no Python that runs"),
        (["PyPy", [3, 11, 1], "pypy", []], "PyPy 3.11.1 is not CPython 3.9 or newer"),
        (["CPython", [3, 8, 1], "python", []], "CPython 3.8.1 is not CPython 3.9 or newer"),
        (["CPython", [3, 11, 1], "python", []], "comes without its own test suite"),
    ],
    ids=["none", "PyPy", "old", "without tests"],
)
def test_a_python_that_does_not_serve_is_refused(
    said: list[object], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = pretender(tmp_path, *said) if said else str(tmp_path / "none")
    with pytest.raises(SystemExit) as refusal:
        conformance.main(["--python", python])
    assert refusal.value.code == 2
    assert told in capsys.readouterr().err


def test_a_python_without_its_tests_runs_the_packages_suites(tmp_path: Path) -> None:
    options = conformance.parse(
        ["--only", "trio", "--python", str(pretender(tmp_path, "CPython", [3, 11, 1], "p", []))]
    )
    assert [interpreter.name for interpreter in options.interpreters] == ["3.11.1"]


def test_what_needs_a_newer_python_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = pretender(tmp_path, "CPython", [3, 9, 1], "python", [])
    assert conformance.main(["--only", "trio", "--python", python, "--work", str(tmp_path)]) == 1
    assert "need Python 3.10; name one with --python" in capsys.readouterr().out


def test_what_cannot_be_downloaded_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(conformance, "build_wheel", lambda python, folder, log: ["pip"])
    monkeypatch.setattr(conformance, "LEAST_PYTHON_FOR_PACKAGES", (3, 9))
    assert conformance.main(["--only", "werkzeug", "--python", sys.executable, "--work", str(tmp_path / "work")]) == 1
    told = capsys.readouterr().out
    assert "its source distribution could not be downloaded from the package index" in told
    assert "no result" in told


def test_no_python_with_its_tests_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(conformance, "find_interpreters", list)
    assert conformance.main(["--only", "asyncio", "--work", str(tmp_path)]) == 1
    assert "every CPython from 3.9 up that was found comes without its own test suite" in capsys.readouterr().out


def test_one_interpreter_of_each_series_is_found() -> None:
    series = [interpreter.version[:2] for interpreter in conformance.find_interpreters()]
    assert sys.version_info[:2] in series
    assert len(set(series)) == len(series)
