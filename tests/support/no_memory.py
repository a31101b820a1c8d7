"""Lack of memory, made by the interpreter's own test hook: an operation is tried with each of its allocations failing.

Or with each and all after it. That only compiled code can be asked for: CPython's loop never ends where it unwinds a
`try` in Python code without any memory.
"""

from __future__ import annotations

import _testcapi
import gc
import itertools

LACK = object()
"""The outcome of an operation that raised MemoryError."""
IN_A_ROW = 5
"""Who succeeds so often, with a later allocation failing each time, has no later one; one may well be done without."""


def attempts(operation, lasting=False):
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


def _attempt(operation, number, until):
    _testcapi.set_nomemory(number, until)
    try:
        return operation()
    except MemoryError:
        return LACK
    finally:
        _testcapi.remove_mem_hooks()
