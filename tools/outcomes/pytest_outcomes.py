"""A plugin of pytest that writes every test's outcome: `python -m pytest -p pytest_outcomes --outcomes FILE …`.

One JSON value a line, written as soon as it is known, so that a crash loses nothing: the module whose ContextVar the
tests use, and then [test, outcome] pairs. A test's last pair counts.
"""

from __future__ import annotations

import contextvars
import json

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", required=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config.getoption("--outcomes")))


class Recorder:
    def __init__(self, path: str) -> None:
        self.file = open(path, "w", encoding="utf-8")
        self.write(contextvars.ContextVar.__module__)

    def write(self, value: object) -> None:
        print(json.dumps(value), file=self.file, flush=True)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome != "passed":
            self.write([report.nodeid, report.outcome])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Success before or after the test proper says nothing.
        if report.when == "call" or report.outcome != "passed":
            self.write([report.nodeid, report.outcome])

    def pytest_unconfigure(self) -> None:
        self.file.close()
