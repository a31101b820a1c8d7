"""CPython's own tests of contexts and asyncio, as the running Python ships them, on our context variables."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import conformance
import conformance_runs
from conformance_suites import CPYTHON_MODULES
from helpers import run_python


def present(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


if not (present("test.test_context") and present("test.test_asyncio")):
    missing = "this Python comes without its own test suite (on Debian: libpython3-testsuite)"
    pytest.skip(missing, allow_module_level=True)
MODULES = [module for module in CPYTHON_MODULES if present(module)]


@pytest.mark.parametrize("backend", conformance_runs.BACKENDS)
def test_test_context_passes_on_the_thread_host(backend: str, tmp_path: Path) -> None:
    flags = ["-m", "contextvars_cy", "run", "--backend", backend, "--host", "thread"]
    done = run_python([*flags, "-m", "unittest", "test.test_context"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE).group(1)) >= 20  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def on_the_standard_library(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[conformance_runs.Suite], conformance_runs.Run]:
    runs: dict[str, conformance_runs.Run] = {}

    def run(suite: conformance_runs.Suite) -> conformance_runs.Run:
        if suite.name not in runs:
            runs[suite.name] = conformance_runs.run(suite, "stock", suite.folder / "stock")
        return runs[suite.name]

    return run


def test_the_suites_are_there() -> None:
    assert {"test.test_context", "test.test_asyncio.test_tasks", "test.test_asyncio.test_futures2"} <= set(MODULES)
    assert sum("test_async_case" in module for module in MODULES) == 1


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("backend", conformance_runs.BACKENDS)
def test_each_test_comes_out_as_on_the_standard_library(
    backend: str,
    module: str,
    on_the_standard_library: Callable[[conformance_runs.Suite], conformance_runs.Run],
    tmp_path: Path,
) -> None:
    suite = conformance_runs.unittest_suite(module, sys.executable, [module], tmp_path)
    stock = on_the_standard_library(suite)
    ours, differing = conformance_runs.compare(suite, backend, stock, tmp_path)
    assert not stock.trouble and not ours.trouble
    assert "passed" in ours.outcomes.values()
    version = platform.python_version()
    unexplained = [test for test in differing if not conformance.reason(version, "asyncio", test)]
    assert not unexplained, (tmp_path / f"{backend}.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("backend", conformance_runs.BACKENDS)
def test_hamttest_runs_on_our_map(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = conformance_runs.unittest_suite("HamtTest", sys.executable, ["test.test_context.HamtTest"], tmp_path)
    outcomes = conformance_runs.run(suite, backend, tmp_path / backend).outcomes
    assert len(outcomes) >= 20
    assert set(outcomes.values()) == {"passed"}

    # And on no other. (One of them tests its own keys.)
    (tmp_path / "sitecustomize.py").write_text("import contextvars_cy; contextvars_cy.Hamt = None", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    outcomes = conformance_runs.run(suite, backend, tmp_path / backend).outcomes
    assert list(outcomes.values()).count("failed") >= 20
