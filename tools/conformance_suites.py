"""What `tools/conformance.py` runs, and the differences that are known: tables, and nothing else.

The releases are pinned, so that a result can be had again. What they need for their tests is theirs to say: the
requirements repeat what their own metadata lists, without their linters.
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


class Package(NamedTuple):
    version: str
    least_python: tuple[int, int]
    requirements: list[str]
    tests: str
    options: list[str] = []
    left_out: dict[str, str] = {}
    """Tests that cannot be compared, and why."""


PACKAGES = {
    "structlog": Package(
        version="26.1.0",
        least_python=(3, 10),
        requirements=["greenlet", "pytest", "pytest-asyncio", "rich", "simplejson", "time-machine", "twisted"],
        tests="tests",
    ),
    "asgiref": Package(
        version="3.13.0",
        least_python=(3, 10),
        requirements=["packaging", "pytest", "pytest-asyncio"],
        tests="tests",
    ),
    "werkzeug": Package(
        version="3.1.9",
        least_python=(3, 9),
        requirements=["cffi", "cryptography", "ephemeral-port-reserve", "pytest", "pytest-timeout", "watchdog"],
        tests="tests",
    ),
    "trio": Package(
        version="0.35.0",
        least_python=(3, 10),
        requirements=["astor", "async_generator", "cryptography", "pyOpenSSL", "pytest", "trustme"],
        tests="src/trio/_tests",
        left_out={"src/trio/_tests/tools": "tests of its code generators, which need its linters"},
    ),
    "anyio": Package(
        version="4.16.0",
        least_python=(3, 10),
        requirements=[
            "blockbuster",
            "coverage[toml]",
            "hypothesis",
            "psutil",
            "pytest",
            "pytest-mock",
            "pytest-timeout",
            "trio",
            "trustme",
            "truststore",
            "uvloop",
        ],
        tests="tests",
        # Its own limit of 20 seconds for a test is short for a busy machine.
        options=["--timeout", "120"],
    ),
}

# (suite, pattern of the test's name as in fnmatch): why the difference is none of ours to remove.
EXPLAINED: dict[tuple[str, str], str] = {}
