"""What interpreters differ in, for the marks of tests that some of them have no way to run."""

from __future__ import annotations

import sys

import pytest

import contextvars_cy

CPYTHON = sys.implementation.name == "cpython"
DEBUG_BUILD = hasattr(sys, "gettotalrefcount")
GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
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
