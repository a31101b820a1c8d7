"""A plugin of pytest that writes every test's outcome: `python -m pytest -p pytest_outcomes --outcomes FILE …`.

One JSON value a line, written as soon as it is known, so that a crash loses nothing: the module whose ContextVar the
tests use, and then [test, outcome] pairs. A test's last pair counts.
"""

import contextvars
import json


def pytest_addoption(parser):
    parser.addoption("--outcomes", required=True)


def pytest_configure(config):
    config.pluginmanager.register(Recorder(config.getoption("--outcomes")))


class Recorder:
    def __init__(self, path):
        self.file = open(path, "w", encoding="utf-8")
        self.write(contextvars.ContextVar.__module__)

    def write(self, value):
        print(json.dumps(value), file=self.file, flush=True)

    def pytest_collectreport(self, report):
        if report.outcome != "passed":
            self.write([report.nodeid, report.outcome])

    def pytest_runtest_logreport(self, report):
        # What went well before or after the test proper says nothing of its own.
        if report.when == "call" or report.outcome != "passed":
            self.write([report.nodeid, report.outcome])

    def pytest_unconfigure(self):
        self.file.close()
