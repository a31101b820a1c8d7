"""What interpreters differ in, for the marks of tests that some of them have no way to run."""

from __future__ import annotations

import os
import sys

import pytest

import contextvars_cy

CPYTHON = sys.implementation.name == "cpython"
DEBUG_BUILD = hasattr(sys, "gettotalrefcount")
GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
# By tools/sanitize.sh, and by tools/coverage.sh.
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")
TRACED = "coverage" in sys.modules
NATIVE_REFERENCE = contextvars_cy.backend == "pure" and contextvars_cy.host == "native"

crashes_without_the_gil = pytest.mark.skipif(
    NATIVE_REFERENCE and not GIL, reason="without the GIL, that crashes CPython itself (its issue 155519)"
)
entered_twice_without_the_gil = pytest.mark.skipif(
    NATIVE_REFERENCE and not GIL,
    reason="without the GIL, CPython lets two threads into one of its own Contexts at once",
)
needs_room_to_leave = pytest.mark.skipif(
    # PyPy 8.0.1 also ends itself there now and then.
    not CPYTHON,
    reason="leaving a Context is Python code here, and needs room",
)
threads_outlive_their_interpreter = pytest.mark.skipif(
    sys.version_info[:2] == (3, 10),
    reason="with its own Contexts too, CPython 3.10 crashes once in 150 ends at which threads run",
)
needs_the_usual_frames = pytest.mark.skipif(SANITIZED, reason="sanitized frames are larger than the stack allows for")
needs_room_at_the_end = pytest.mark.skipif(TRACED, reason="where the stack ends, the tracing has no room")
too_long_to_trace = pytest.mark.skipif(TRACED, reason="the tracing makes minutes of it")
counts_on_the_gil = pytest.mark.skipif(
    TRACED and contextvars_cy.backend == "cython",
    reason="the compiled twin keeps the GIL from one line to the next, where now the tracing runs Python code",
)
sets_a_trace_function = pytest.mark.skipif(
    TRACED and contextvars_cy.backend == "cython", reason="a traced extension bears no other trace function"
)
