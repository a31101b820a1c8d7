"""What `tools/conformance.py` runs, and the differences that are known: tables, and nothing else.

The releases are pinned, so that results can be repeated. Their requirements repeat what their own metadata lists for
tests, without linters.
"""

from __future__ import annotations

from typing import NamedTuple

# Modules of the standard library's own test suite that are about contexts; a Python has those of its version.
CPYTHON_MODULES = [
    "test.test_context",
    "test.test_asyncio.test_tasks",
    "test.test_asyncio.test_futures",
    "test.test_asyncio.test_futures2",
    "test.test_asyncio.test_runners",
    "test.test_asyncio.test_threads",
    "test.test_asyncio.test_taskgroups",
    "test.test_asyncio.test_eager_task_factory",
    "test.test_asyncio.test_context",
    "test.test_unittest.test_async_case",
    "unittest.test.test_async_case",
]


# What the releases below and pytest need.
LEAST_PYTHON_FOR_PACKAGES = (3, 10)
# The versions of what their tests need, as constraints for pip.
PINNED = """
astor==0.8.1
async_generator==1.10
blockbuster==1.5.29
cffi==2.1.1
coverage==7.17.3
cryptography==50.0.2
ephemeral-port-reserve==1.1.4
greenlet==3.5.6
hypothesis==6.170.15
opentelemetry-sdk==1.45.2
opentelemetry-test-utils==0.66b2
packaging==26.3
psutil==7.2.2
pyopenssl==26.4.0
pytest==9.2.0
pytest-asyncio==1.5.0
pytest-mock==3.17.0
pytest-timeout==2.4.0
rich==15.0.0
simplejson==4.3.0
time-machine==3.6.0
trio==0.35.0
trustme==1.2.1
truststore==0.10.5
twisted==26.10.0
uvloop==0.23.0
watchdog==7.1.0
"""
# For each test, so that one that hangs fails; longer than their own limits, for a busy machine.
TEST_LIMIT_SECONDS = 120


class Package(NamedTuple):
    version: str
    requirements: list[str]
    """Besides pytest and pytest-timeout."""
    tests: str
    options: list[str] = []
    """For pytest; each option that leaves tests out has its reason beside it."""


PACKAGES = {
    "structlog": Package(
        version="26.1.0",
        requirements=["greenlet", "pytest-asyncio", "rich", "simplejson", "time-machine", "twisted"],
        tests="tests",
    ),
    "asgiref": Package(
        version="3.13.0",
        requirements=["packaging", "pytest-asyncio"],
        tests="tests",
    ),
    "werkzeug": Package(
        version="3.1.9",
        requirements=["cffi", "cryptography", "ephemeral-port-reserve", "watchdog"],
        tests="tests",
        # Those serve from a separate process, which has the standard library's variables.
        options=["-m", "not dev_server"],
    ),
    "trio": Package(
        version="0.35.0",
        requirements=["astor", "async_generator", "cryptography", "pyOpenSSL", "trustme"],
        tests="src/trio/_tests",
        # Tests of its code generators and its type hints need its linters and type checkers.
        options=["--skip-optional-imports"],
    ),
    "anyio": Package(
        version="4.16.0",
        requirements=[
            "blockbuster",
            "coverage[toml]",
            "hypothesis",
            "psutil",
            "pytest-mock",
            "trio",
            "trustme",
            "truststore",
            "uvloop",
        ],
        tests="tests",
    ),
    "opentelemetry_api": Package(
        version="1.45.2",
        requirements=["opentelemetry-test-utils"],
        tests="tests",
        # On ours, contextvars_cy.integrations.opentelemetry.RuntimeContext takes the place of its own.
        options=["-p", "opentelemetry_on_ours"],
    ),
}


class Explained(NamedTuple):
    """Tests with other outcomes on our variables; docs/compatibility.md repeats why."""

    suite: str
    test: str
    """Part of their names."""
    why: str
    since: tuple[int, int] = (3, 9)
    """The first Python for which that holds."""


EXPLAINED = [
    Explained("asyncio", ".test_get_context", "a task holds the native Context, which is what it gives back", (3, 15)),
]
