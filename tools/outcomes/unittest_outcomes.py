"""Runs unittest modules and writes every test's outcome: `unittest_outcomes.py FILE MODULE_OR_TEST…`.

A program like any other: alone it runs them on the standard library's context variables, under
`python -m contextvars_cy run` on ours, and then CPython's tests of its own map on ours too. The file is like that of
pytest_outcomes.py.
"""

from __future__ import annotations

import contextvars
import json
import sys
import unittest
from typing import Any

out, *names = sys.argv[1:]


class Recorder(unittest.TextTestResult):
    def startTestRun(self) -> None:
        super().startTestRun()
        self.file = open(out, "w", encoding="utf-8")
        self.write(contextvars.ContextVar.__module__)

    def stopTestRun(self) -> None:
        super().stopTestRun()
        self.file.close()

    def write(self, value: object) -> None:
        print(json.dumps(value), file=self.file, flush=True)

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.write([test.id(), "passed"])

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self.write([test.id(), "failed"])

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self.write([test.id(), "failed"])

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.write([test.id(), "failed"])

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        # A subtest that was skipped leaves the outcome to its test.
        self.write([getattr(test, "test_case", test).id(), "skipped"])

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self.write([test.id(), "skipped"])

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self.write([test.id(), "failed"])


if contextvars.ContextVar.__module__ == "contextvars_cy" and any("test_context" in name for name in names):
    import hamt_double
    from test import test_context

    if hasattr(test_context, "HamtTest"):
        assert hasattr(test_context, "hamt"), "HamtTest finds the map that it tests under another name"
        test_context.hamt = hamt_double.Map
        test_context.HamtTest.__unittest_skip__ = False

recorder: Any = Recorder
suite = unittest.defaultTestLoader.loadTestsFromNames(names)
unittest.TextTestRunner(resultclass=recorder).run(suite)
