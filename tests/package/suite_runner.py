"""Runs unittest modules and writes what failed as JSON: `suite_runner.py OUT MODULE_OR_TEST…`.

A program like any other: alone it runs them on the standard library's context variables, under
`python -m contextvars_cy run` on ours.
"""

import contextvars
import json
import sys
import unittest

out, *names = sys.argv[1:]
suite = unittest.defaultTestLoader.loadTestsFromNames(names)
result = unittest.TextTestRunner(verbosity=0).run(suite)
outcome = {
    "module": contextvars.ContextVar.__module__,
    "ran": result.testsRun,
    "failed": sorted(test.id() for test, _ in result.failures + result.errors),
}
with open(out, "w", encoding="utf-8") as file:
    json.dump(outcome, file)
