"""Debug mode: the LookupError of `get` tells where the variable was last set, and why that is not seen here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from contextvars_cy import backend, host
from contextvars_cy._context.messages import UNSET
from helpers import run_python

TELL = """
import asyncio
import sys
import threading
from contextvars_cy import Context, ContextVar, copy_context

user = ContextVar("user")


def tell():
    try:
        user.get()
    except LookupError as error:
        print(error.__notes__[0] if sys.version_info >= (3, 11) else error.__cause__)


"""
COPIED_BEFORE = """
async def audit():
    await asyncio.sleep(0)
    tell()

async def handle():
    task = asyncio.create_task(audit())
    user.set("ada")
    await task

async def main():
    await asyncio.create_task(handle(), name="a request")

asyncio.run(main())
"""
SET_IN_A_COPY = """
async def middleware():
    user.set("ada")

async def main():
    await asyncio.create_task(middleware(), name="middleware")
    tell()

asyncio.run(main())
"""
THREAD = """
def work():
    tell()

def main():
    user.set("ada")
    thread = threading.Thread(target=work, name="worker")
    thread.start()
    thread.join()

main()
"""
RESET = """
def main():
    token = user.set("ada")
    user.reset(token)
    tell()

main()
"""
EMPTY = """
def main():
    user.set("ada")
    Context().run(tell)

main()
"""
NEVER = """
tell()
"""
COPY_OF_A_RESET = """
def main():
    token = user.set("ada")
    user.reset(token)
    copy_context().run(tell)

main()
"""

# What the note says after the name of the variable, with the numbers of lines in the program above.
TASKS = {
    "copied before": (
        COPIED_BEFORE,
        "it was set at {file}:8 in handle, in task a request, but this Context was copied before that, by create_task "
        "at {file}:7 in handle",
    ),
    "set in a copy": (
        SET_IN_A_COPY,
        "it was set at {file}:3 in middleware, in task middleware, in a copy of this Context, made by create_task at "
        "{file}:6 in main, and what is set in a copy stays there",
    ),
}
THREADS = {
    "reset": (
        RESET,
        "it was set at {file}:3 in main, in thread MainThread, and reset at {file}:4 in main, in thread MainThread",
    ),
    "another thread": (
        THREAD,
        "it was set at {file}:6 in main, in thread MainThread, and thread worker did not inherit it: a thread "
        "begins with an empty Context, and this one was made by Thread.start at {file}:8 in main",
    ),
    "an empty Context": (
        EMPTY,
        "it was last set at {file}:3 in main, in thread MainThread, in another Context, there from the start; how this "
        "one was made is unknown, since no Python code saw it",
    ),
    "a copy after a reset": (
        COPY_OF_A_RESET,
        "it was set at {file}:3 in main, in thread MainThread, and reset at {file}:4 in main, in thread MainThread, "
        "before this Context was made by copy_context at {file}:5 in main",
    ),
    "never set": (NEVER, "nothing has set it since contextvars_cy was imported"),
}
# On the thread host, tasks share their thread's Context.
CASES = {**THREADS, **TASKS} if host == "native" else THREADS


def output_of(program: str, tmp_path: Path, **env: str) -> str:
    # In a file of its own, so that the numbers of lines are those of each program.
    (tmp_path / "telling.py").write_text(TELL, encoding="utf-8")
    (tmp_path / "app.py").write_text(f"from telling import *{program}", encoding="utf-8")
    chosen = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
    done = run_python([tmp_path / "app.py"], tmp_path, {**chosen, **env})
    assert not done.stderr, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("case", CASES)
def test_in_debug_mode_the_error_says_why(case: str, tmp_path: Path) -> None:
    program, why = CASES[case]
    told = output_of(program, tmp_path, CONTEXTVARS_CY_DEBUG="1")
    assert told == "user is unset here: " + why.format(file=tmp_path / "app.py")


def test_without_debug_mode_it_has_the_hint_alone(tmp_path: Path) -> None:
    told = output_of(RESET, tmp_path, CONTEXTVARS_CY_DEBUG="0")
    assert told == ("None" if sys.version_info < (3, 11) else UNSET)


def test_a_default_is_no_error_and_a_lookup_error_keeps_its_variable(tmp_path: Path) -> None:
    program = """
try:
    user.get()
except LookupError as error:
    print(error.args == (user,), user.get("nobody"))
"""
    assert output_of(program, tmp_path, CONTEXTVARS_CY_DEBUG="1") == "True nobody"
