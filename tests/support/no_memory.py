"""Lack of memory, made by the interpreter's own test hook: an operation is tried with each of its allocations failing.

Or with each and all after it. That only compiled code can be asked for: CPython's loop never ends where it unwinds a
`try` in Python code without any memory.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contextvars_cy import backend
from interpreters import CPYTHON, DEBUG_BUILD, GIL, TRACED

hook: Any = None
if CPYTHON:
    # It comes with CPython's test modules, which some builds leave out.
    with contextlib.suppress(ImportError):
        hook = importlib.import_module("_testcapi")

BEFORE_3_13 = "before 3.13, CPython itself crashes, or raises a SystemError, where Python code lacks memory"
IN_A_DEBUG_BUILD = "a debug build of CPython ends itself where Python code appends to a list and memory lacks"
NO_MEMORY_MARKS = [
    pytest.mark.skipif(TRACED, reason="the tracing would lack memory too"),
    pytest.mark.skipif(not hasattr(hook, "set_nomemory"), reason="this Python has no _testcapi.set_nomemory"),
    pytest.mark.skipif(not GIL, reason="without the GIL, CPython itself crashes where memory lacks"),
    pytest.mark.skipif(backend == "pure" and sys.version_info < (3, 13), reason=BEFORE_3_13),
    pytest.mark.skipif(backend == "pure" and DEBUG_BUILD and sys.version_info >= (3, 14), reason=IN_A_DEBUG_BUILD),
]

LACK = object()
"""The outcome of an operation that raised MemoryError."""
IN_A_ROW = 5
"""Who succeeds so often, with a later allocation failing each time, has no later one; one may well be done without."""


def attempts(operation: Callable[[], object], lasting: bool = False) -> Iterator[object]:
    """Call the operation again and again, with a later allocation failing each time; yield its result or LACK."""
    successes = 0
    for number in itertools.count():
        # Empties the interpreter's free lists, in which it would find objects without an allocation.
        gc.collect()
        outcome = _attempt(operation, number, 0 if lasting else number + 1)
        yield outcome
        successes = 0 if outcome is LACK else successes + 1
        if successes == IN_A_ROW:
            return


def _attempt(operation: Callable[[], object], number: int, until: int) -> object:
    hook.set_nomemory(number, until)
    try:
        return operation()
    except MemoryError:
        return LACK
    finally:
        hook.remove_mem_hooks()
