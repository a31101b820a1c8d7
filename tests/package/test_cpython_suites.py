"""CPython's own tests of contexts and asyncio, as the running Python ships them, on our context variables."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

import contextvars_cy
from helpers import run_python

BACKENDS = ("pure", "cython")
HOSTS = ("native", "thread")
RUNNER = Path(__file__).with_name("suite_runner.py")

CANDIDATES = [
    "test.test_asyncio.test_tasks",
    "test.test_asyncio.test_futures",
    "test.test_asyncio.test_futures2",
    "test.test_asyncio.test_runners",
    "test.test_asyncio.test_threads",
    "test.test_asyncio.test_taskgroups",
    "test.test_asyncio.test_eager_task_factory",
    "test.test_asyncio.test_context",
    "test.test_unittest.test_async_case",
    "unittest.test.test_async_case",
]


def present(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


# These give a Context to the class of tasks itself, which from 3.15 on takes none but the native.
EXPLAINED = (
    {"test_context_4", "test_get_context", "test_context_already_entered_leaves_loop_usable"}
    if sys.version_info >= (3, 15)
    else set()
)

SUITES = [module for module in CANDIDATES if present(module)]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_test_context_passes(backend, host, tmp_path):
    flags = ["-m", "contextvars_cy", "run", "--backend", backend, "--host", host]
    done = run_python([*flags, "-m", "unittest", "test.test_context"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE).group(1)) >= 20


def run_suite(flags, modules, folder):
    """What failed on the variables that the flags choose; none: the standard library's."""
    out = folder / "outcome.json"
    done = run_python([*flags, RUNNER, out, *modules], cwd=folder)
    assert out.exists(), done.stdout + done.stderr
    outcome = json.loads(out.read_text(encoding="utf-8"))
    assert (outcome["module"] == "contextvars_cy") is bool(flags)
    return outcome, done.stderr


@pytest.fixture(scope="module")
def on_the_standard_library(tmp_path_factory):
    outcomes = {}

    def run(suite):
        if suite not in outcomes:
            outcomes[suite] = run_suite([], [suite], tmp_path_factory.mktemp("standard"))[0]
        return outcomes[suite]

    return run


def test_the_suites_are_there():
    assert {"test.test_asyncio.test_tasks", "test.test_asyncio.test_futures2"} <= set(SUITES)
    assert sum("test_async_case" in module for module in SUITES) == 1


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_fails_that_passes_on_the_standard_library(backend, suite, on_the_standard_library, tmp_path):
    expected = on_the_standard_library(suite)
    flags = ["-m", "contextvars_cy", "run", "--backend", backend, "--host", "native"]
    outcome, output = run_suite(flags, [suite], tmp_path)
    assert outcome["ran"] == expected["ran"] > 0
    failed = sorted(set(outcome["failed"]) - set(expected["failed"]))
    failed = [test for test in failed if test.rpartition(".")[2] not in EXPLAINED]
    if failed:
        # Some of these wait for a clock and fail on a busy machine; what fails a second time, alone, is ours.
        outcome, output = run_suite(flags, failed, tmp_path)
        failed = outcome["failed"]
    assert not failed, output


# ---- CPython's tests of its own map, on ours ----


class CPythonMap:
    """Our Hamt under the names of the interpreter's test double: its `delete` of a missing key returns the map."""

    def __init__(self, hamt=None):
        self.hamt = contextvars_cy.Hamt() if hamt is None else hamt

    def _wrap(self, hamt):
        return self if hamt is self.hamt else CPythonMap(hamt)

    def set(self, key, value):
        return self._wrap(self.hamt.set(key, value))

    def delete(self, key):
        return self._wrap(self.hamt.discard(key))

    def get(self, key, *default):
        return self.hamt.get(key, *default)

    def keys(self):
        return Counted(self.hamt.keys())

    def values(self):
        return Counted(self.hamt.values())

    def items(self):
        return Counted(self.hamt.items())

    def __len__(self):
        return len(self.hamt)

    def __eq__(self, other):
        return self.hamt == other.hamt if isinstance(other, CPythonMap) else NotImplemented

    def __contains__(self, key):
        return key in self.hamt

    def __getitem__(self, key):
        return self.hamt[key]

    def __iter__(self):
        return iter(self.hamt)


class Counted:
    """The test double's views are iterators that know their length."""

    def __init__(self, view):
        self.view, self.iterator = view, iter(view)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.iterator)

    def __len__(self):
        return len(self.view)


HAMT_PROGRAM = """
import sys, unittest
sys.path.insert(0, sys.argv[1])
import contextvars_cy
from test import test_context
from test_cpython_suites import CPythonMap

assert contextvars_cy.backend == sys.argv[2]
test_context.hamt = CPythonMap
test_context.HamtTest.__unittest_skip__ = False
suite = unittest.defaultTestLoader.loadTestsFromTestCase(test_context.HamtTest)
result = unittest.TextTestRunner().run(suite)
sys.exit(not result.wasSuccessful() or bool(result.skipped))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_hamttest_passes_with_our_map(backend, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(HAMT_PROGRAM, encoding="utf-8")
    arguments = [program, RUNNER.parent, backend]
    done = run_python(arguments, cwd=tmp_path, env={"CONTEXTVARS_CY_BACKEND": backend})
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE).group(1)) >= 20
