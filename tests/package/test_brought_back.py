"""Libraries that bring a Context's values back one by one, under `python -m contextvars_cy run`: all values come back,
those of the C modules too."""

from __future__ import annotations

import sys

import pytest

from helpers import run_python

ASGIREF = """
import asyncio, contextvars, decimal
from asgiref.sync import sync_to_async

variable = contextvars.ContextVar("variable", default="default")


def in_a_thread():
    variable.set("thread")
    decimal.setcontext(decimal.Context(prec=3))


async def main():
    await sync_to_async(in_a_thread)()
    print(variable.get(), decimal.getcontext().prec)


asyncio.run(main())
"""
PYTEST_ASYNCIO = """
import contextvars, decimal
import pytest_asyncio

variable = contextvars.ContextVar("variable", default="default")


@pytest_asyncio.fixture
async def values():
    variable.set("fixture")
    decimal.setcontext(decimal.Context(prec=3))


async def test_values(values):
    print(variable.get(), decimal.getcontext().prec)
"""
PROGRAMS = {"asgiref": (ASGIREF, ["program.py"], "thread 3")}
# Before, pytest-asyncio replaces `contextvars.copy_context` for a moment, in the hope that asyncio has the same module.
if sys.version_info >= (3, 11):
    arguments = ["-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "program.py"]
    PROGRAMS["pytest-asyncio"] = PYTEST_ASYNCIO, arguments, "fixture 3"


@pytest.mark.parametrize("library", PROGRAMS)
@pytest.mark.parametrize("command", [[], ["-m", "contextvars_cy", "run"]], ids=["as it is", "on ours"])
@pytest.mark.parametrize("backend", ["cython", "pure"])
def test_values_that_are_brought_back(backend, command, library, tmp_path):
    program, arguments, values = PROGRAMS[library]
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": "native"}
    done = run_python([*command, *arguments], tmp_path, env)
    assert (done.returncode, values in done.stdout) == (0, True), done.stdout + done.stderr
