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

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()

# What some interpreters have no way to run, and why.
LEFT_OUT = {}
if sys.implementation.name == "cpython":
    try:
        # It comes with CPython's test modules, which some builds leave out.
        from _testcapi import set_nomemory as _  # noqa: F401
    except ImportError:
        LEFT_OUT["test_*no_memory.py"] = "this Python has no _testcapi.set_nomemory"
else:
    # Debian's PyPy has a _testcapi that ends in a FileNotFoundError.
    LEFT_OUT["test_*no_memory.py"] = "the hook for a lack of memory is CPython's"
    LEFT_OUT["test_interrupts.py"] = "its interrupts come by way of CPython's C API"
    name = "test_asyncio_finalises_an_async_generator_in_a_task_of_its_own"
    LEFT_OUT[name] = "what nobody holds is finalised at some later time here"
    LEFT_OUT["test_the_error_shows_where_it_waited"] = "an error that asyncio threw in loses what its traceback gained"
    # PyPy 8.0.1 also ends itself there now and then.
    for name in ("test_where_the_stack_ends_there_is_one_error", "test_stack_end.py"):
        LEFT_OUT[name] = "leaving a Context is Python code here, and needs room"
    LEFT_OUT["test_endings.py"] = "what a thread leaves is finalised at some later time here, in any thread"
    LEFT_OUT["test_finalisers_that_set"] = "the collector cannot be had at every allocation here"
    for name in ("test_every_pair_of_lines", "test_each_set_is_on_top_of_another"):
        LEFT_OUT[name] = "here Python code sets a native variable, in two lines that a trace function can come between"
if sys.version_info < (3, 13):
    name = "test_map_no_memory.py" if contextvars_cy.backend == "cython" else "test_*no_memory.py"
    LEFT_OUT[name] = "before 3.13, CPython itself crashes, or raises a SystemError, where Python code lacks memory"
if hasattr(sys, "gettotalrefcount") and sys.version_info >= (3, 14):
    names = ["test_*no_memory.py"]
    if contextvars_cy.backend == "cython":
        # merge() is written once, in Python.
        merges = [f"merge of a {kind} map-{lasting}" for kind in ("related", "strange") for lasting in (False, True)]
        names = [f"test_a_lack_of_memory_leaves_all_as_it_was[{merge}]" for merge in merges]
    for name in names:
        LEFT_OUT[name] = "a debug build of CPython ends itself where Python code appends to a list and memory lacks"
    LEFT_OUT["test_with"] = "a debug build of CPython ends itself where an error leaves a `with` of a static `__exit__`"
if not GIL:
    LEFT_OUT["test_*no_memory.py"] = "without the GIL, CPython itself crashes where memory lacks"
collect_ignore_glob = [f"*/{name}" for name in LEFT_OUT]
if not GIL and contextvars_cy.backend == "pure" and contextvars_cy.host == "native":
    crash = "without the GIL, that crashes CPython itself (its issue 155519)"
    LEFT_OUT["test_a_context_is_read_while_another_thread_sets_in_it"] = crash
    LEFT_OUT["test_reading_a_context_that_another_thread_sets_in"] = crash
    LEFT_OUT["test_another_threads_context_is_compared"] = crash
    entered = "without the GIL, CPython lets two threads into one of its own Contexts at once"
    LEFT_OUT["test_one_context_is_entered_by_one_thread_at_a_time"] = entered
    LEFT_OUT["test_a_token_is_used_once"] = entered

VARIABLES = ("CONTEXTVARS_CY_BACKEND", "CONTEXTVARS_CY_HOST")


def pytest_configure(config: pytest.Config) -> None:
    unset = [name for name in VARIABLES if not os.environ.get(name)]
    if unset:
        raise pytest.UsageError(f"set {' and '.join(unset)}, or run `make test`, which runs every backend and host")


def pytest_report_header() -> str:
    return f"contextvars_cy: {contextvars_cy.backend} backend, {contextvars_cy.host} host"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if item.name in LEFT_OUT or item.name.partition("[")[0] in LEFT_OUT]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, reason in LEFT_OUT.items():
        terminalreporter.write_line(f"{name} is left out: {reason}.")


@pytest.fixture
def frozen():
    """A collector that need not look at what there was before, for tests that call it often."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def quick_switches():
    """Threads that take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def context_of_its_own():
    with contextvars_cy.copy_context():
        yield
