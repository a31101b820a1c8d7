"""Which twin on which host the tests run is always said, never left to chance: `make test` runs all four."""

from __future__ import annotations

import gc
import os
import sys

import pytest
from hypothesis import HealthCheck, settings

import contextvars_cy

# No timing decides a test: machines are shared.
settings.register_profile(
    "contextvars_cy", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
# For tools that make tests slow: pytest --hypothesis-profile=few.
settings.register_profile("few", parent=settings.get_profile("contextvars_cy"), max_examples=30)
settings.load_profile("contextvars_cy")

# What some interpreters have no way to run.
collect_ignore_glob = []
if sys.implementation.name == "cpython":
    try:
        # The hook for a lack of memory comes with CPython's test modules, which some builds leave out.
        from _testcapi import set_nomemory as _  # noqa: F401
    except ImportError:
        collect_ignore_glob.append("*/test_*no_memory.py")
else:
    # Interrupts come by way of CPython's C API; Debian's PyPy has a _testcapi that ends in a FileNotFoundError.
    collect_ignore_glob += ["*/test_*no_memory.py", "*/test_interrupts.py"]

VARIABLES = ("CONTEXTVARS_CY_BACKEND", "CONTEXTVARS_CY_HOST")


def pytest_configure(config: pytest.Config) -> None:
    unset = [name for name in VARIABLES if not os.environ.get(name)]
    if unset:
        raise pytest.UsageError(f"set {' and '.join(unset)}, or run `make test`, which runs every backend and host")


def pytest_report_header() -> str:
    return f"contextvars_cy: {contextvars_cy.backend} backend, {contextvars_cy.host} host"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if collect_ignore_glob:
        terminalreporter.write_line(
            "This Python has no _testcapi.set_nomemory: the tests of lacking memory are left out."
        )


@pytest.fixture
def frozen():
    """A collector that need not look at what there was before, for tests that call it often."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def context_of_its_own():
    with contextvars_cy.copy_context():
        yield
