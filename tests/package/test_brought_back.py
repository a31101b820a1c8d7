"""Libraries that bring a Context's values back one by one, under `python -m contextvars_cy run`: all values come back,
those of the C modules too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
def test_values_that_are_brought_back(backend: str, command: list[str], library: str, tmp_path: Path) -> None:
    program, arguments, values = PROGRAMS[library]
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": "native"}
    done = run_python([*command, *arguments], tmp_path, env)
    assert (done.returncode, values in done.stdout) == (0, True), done.stdout + done.stderr


# By plain import such a library sees all of our variables as one native variable.

ASGIREF_MEANWHILE = """
import asyncio, threading
from asgiref.sync import sync_to_async
from contextvars_cy import ContextVar, current_context

user, tenant = ContextVar("user", default="nobody"), ContextVar("tenant", default="-")
in_thread, is_set = threading.Event(), threading.Event()


def in_a_thread():
    in_thread.set()
    user.set("ada")
    is_set.wait()


async def meanwhile():
    while not in_thread.is_set():
        await asyncio.sleep(0.001)
    tenant.set("acme")
    is_set.set()


async def main():
    user.set("grace")
    asyncio.get_running_loop().create_task(meanwhile(), context=current_context().native)
    await sync_to_async(in_a_thread)()
    print(user.get(), tenant.get())


asyncio.run(main())
"""
ONE_BY_ONE = """
from contextvars_cy import ContextVar, copy_context

user, tenant, locale = (ContextVar(name, default="-") for name in ("user", "tenant", "locale"))


def bring_back(context):
    for variable in context:
        if variable.get(None) is not context[variable]:
            variable.set(context[variable])


def program(lose):
    locale.set("sv")
    child = copy_context()
    child.run(user.set, "ada")
    if not lose:
        # What the child itself sets is brought back, and lost is nothing.
        tenant.set("first")
        child = copy_context()
        tenant.set("acme")
        child.run(tenant.set, "first")
    else:
        tenant.set("first")
        tenant.set("acme")
        locale.set("fi")
    bring_back(child.native)
    if lose == "at a set":
        tenant.set("next")
    return user.get(), tenant.get(), locale.get()


for lose in ("", "at a get", "at a set"):
    print(copy_context().run(program, lose))
"""
FIXTURES = """
import pytest, pytest_asyncio
from contextvars_cy import ContextVar

tenant, settings = ContextVar("tenant", default="-"), ContextVar("settings", default="lost")


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def db():
    tenant.set("acme")
    yield


@pytest.fixture(scope="module")
def loaded():
    settings.set("loaded")


class TestFirst:
    def test_1(self, db):
        assert tenant.get() == "acme"

    def test_2(self, loaded):
        pass


def test_afterwards(loaded):
    print(settings.get())
"""
ON_BOTH = pytest.mark.parametrize("backend", ["cython", "pure"])


def run_in_debug_mode(
    program: str, arguments: list[str], backend: str, folder: Path, debug: str = "1"
) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(program, encoding="utf-8")
    names = ("CONTEXTVARS_CY_BACKEND", "CONTEXTVARS_CY_HOST", "CONTEXTVARS_CY_DEBUG")
    return run_python(arguments, folder, env=dict(zip(names, (backend, "native", debug))))


@ON_BOTH
def test_debug_mode_names_what_was_lost(backend: str, tmp_path: Path) -> None:
    done = run_in_debug_mode(ONE_BY_ONE, ["program.py"], backend, tmp_path)
    assert done.stdout == "('-', 'first', 'sv')\n('ada', '-', 'sv')\n('ada', 'next', 'sv')\n"
    at_get, at_set = (line for line in done.stderr.splitlines() if "RuntimeWarning" in line)
    assert "program.py:30: RuntimeWarning: locale, tenant were set in this Context and lost since: " in at_get
    assert "program.py:29: RuntimeWarning: locale, tenant were set in this Context and lost since: " in at_set
    assert "`python -m contextvars_cy run`" in at_get


@ON_BOTH
def test_an_interrupt_of_what_debug_mode_does_reaches_the_program(backend: str, tmp_path: Path) -> None:
    program = """
from contextvars_cy import ContextVar, assign
from contextvars_cy._features import brought_back

def interrupted(*args):
    raise KeyboardInterrupt

var = ContextVar("var", default=0)
token = var.set(1)
assignment = assign({var: 2})
brought_back._note_all = interrupted
for change in (lambda: var.set(3), assignment.undo, lambda: assign({var: 4}), lambda: var.reset(token), var.unset):
    try:
        change()
    except KeyboardInterrupt:
        print(var.get())
"""
    done = run_in_debug_mode(program, ["program.py"], backend, tmp_path)
    assert (done.stdout.split(), done.stderr) == (["3", "1", "4", "0", "0"], "")


@ON_BOTH
def test_without_debug_mode_nothing_is_told(backend: str, tmp_path: Path) -> None:
    done = run_in_debug_mode(ONE_BY_ONE, ["program.py"], backend, tmp_path, debug="0")
    assert done.stderr == ""


if sys.version_info >= (3, 11):

    @ON_BOTH
    def test_what_asgiref_loses(backend: str, tmp_path: Path) -> None:
        done = run_in_debug_mode(ASGIREF_MEANWHILE, ["program.py"], backend, tmp_path)
        assert done.stdout == "ada -\n"
        assert "RuntimeWarning: tenant was set in this Context and lost since: " in done.stderr
        command = ["-m", "contextvars_cy", "run", "program.py"]
        done = run_in_debug_mode(ASGIREF_MEANWHILE, command, backend, tmp_path)
        assert (done.stdout, "RuntimeWarning" in done.stderr) == ("ada acme\n", False)

    @ON_BOTH
    def test_what_pytest_asyncio_loses(backend: str, tmp_path: Path) -> None:
        done = run_in_debug_mode(FIXTURES, arguments, backend, tmp_path)
        assert "lost\n" in done.stdout
        assert "RuntimeWarning: settings was set in this Context and lost since: " in done.stdout
        done = run_in_debug_mode(FIXTURES, ["-m", "contextvars_cy", "run", *arguments], backend, tmp_path)
        assert "lost" not in done.stdout
