"""Cleaning up in another Context: `try_reset`, and what debug mode tells of a token."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable
from pathlib import Path

import pytest

from contextvars_cy import Context, ContextVar, Token, backend, copy_context, host


def test_a_token_from_here_is_used() -> None:
    var: ContextVar[int | str] = ContextVar("var", default="default")
    with copy_context():
        token = var.set(1)
        assert var.try_reset(token) is True
        assert var.get() == "default"
        with pytest.raises(RuntimeError, match="already been used once"):
            var.try_reset(token)


def test_a_token_from_another_context_is_refused_quietly_and_can_still_be_used_at_home() -> None:
    var: ContextVar[int | str] = ContextVar("var", default="default")
    with copy_context():
        token = var.set(1)
        with copy_context():
            var.set(2)
            assert var.try_reset(token) is False
            assert var.get() == 2
        assert var.get() == 1
        assert var.try_reset(token) is True
        assert var.get() == "default"


def test_a_token_from_another_context_is_refused_for_that_in_the_base_context_under_a_loop() -> None:
    var: ContextVar[int] = ContextVar("var")
    token = Context().run(var.set, 1)

    async def clean_up() -> bool:
        with pytest.raises(ValueError, match="different Context"):
            var.reset(token)
        return var.try_reset(token)

    refused = []
    thread = threading.Thread(target=lambda: refused.append(asyncio.run(clean_up())))
    thread.start()
    thread.join()
    assert refused == [False]


def test_a_token_from_another_thread_is_refused_quietly() -> None:
    var: ContextVar[int | str] = ContextVar("var", default="default")
    with copy_context():
        tokens = [var.set(1)]
        found = []
        thread = threading.Thread(target=lambda: Context().run(lambda: found.append(var.try_reset(tokens[0]))))
        thread.start()
        thread.join()
        assert found == [False] and var.get() == 1
        assert var.try_reset(tokens[0])


def test_what_is_a_mistake_stays_an_error() -> None:
    var: ContextVar[int] = ContextVar("var")
    other: ContextVar[int] = ContextVar("other")
    with copy_context():
        token = other.set(1)
        with pytest.raises(ValueError, match="was created by a different ContextVar"):
            var.try_reset(token)
        with pytest.raises(ValueError, match="was created by a different ContextVar"):
            Context().run(var.try_reset, token)
        with pytest.raises(TypeError, match="expected an instance of Token, got None"):
            var.try_reset(None)  # type: ignore[arg-type]
        other.reset(token)
        with pytest.raises(RuntimeError, match="already been used once"):
            Context().run(other.try_reset, token)


def test_a_generator_closed_in_another_context_cleans_up_without_noise() -> None:
    var = ContextVar("var", default="default")
    closed = []

    def scoped() -> Generator[None, None, None]:
        token = var.set("inside")
        try:
            yield
        finally:
            closed.append(var.try_reset(token))

    with copy_context():
        here, elsewhere = scoped(), scoped()
        next(here)
        here.close()
        next(elsewhere)
        Context().run(elsewhere.close)
    assert closed == [True, False]


MADE_ELSEWHERE = """
import threading
from contextvars_cy import Context, ContextVar, assign

var, other = ContextVar("var"), ContextVar("other")

def make():
    global token, assignment
    token = var.set(1)
    assignment = assign({var: 2})

def tell(call, *args):
    try:
        call(*args)
    except (RuntimeError, ValueError) as error:
        print(error)

def work():
    Context().run(make)

thread = threading.Thread(target=work, name="worker")
thread.start()
thread.join()
tell(var.reset, token)
tell(Context().run, other.reset, token)
tell(assignment.undo)
with var.set(3) as token:
    pass
tell(var.reset, token)
assignment = assign({})
assignment.undo()
tell(assignment.undo)
"""


def run_elsewhere(tmp_path: Path, options: Iterable[str] = (), **changes: str) -> list[str]:
    script = tmp_path / "made.py"
    script.write_text(MADE_ELSEWHERE, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name != "CONTEXTVARS_CY_DEBUG"}
    env = {**kept, "CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host, **changes}
    done = subprocess.run(
        [sys.executable, *options, str(script)], env=env, capture_output=True, text=True, cwd=os.getcwd()
    )
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("asked", ["by -X dev", "by the variable"])
def test_in_debug_mode_an_error_says_where_the_token_was_made(asked: str, tmp_path: Path) -> None:
    lines = (
        run_elsewhere(tmp_path, ("-X", "dev"))
        if asked == "by -X dev"
        else run_elsewhere(tmp_path, CONTEXTVARS_CY_DEBUG="1")
    )
    at = f"; it was made at {tmp_path / 'made.py'}:"
    expected = [
        f"was created in a different Context{at}9 in make, thread worker",
        f"was created by a different ContextVar{at}9 in make, thread worker",
        f"was made in a different Context{at}10 in make, thread worker",
        f"has already been used once{at}27 in <module>, thread MainThread",
        f"has already been undone{at}30 in <module>, thread MainThread",
    ]
    assert len(lines) == len(expected)
    for line, end in zip(lines, expected):
        assert line.endswith(end), line


@pytest.mark.parametrize("options", [(), ("-X", "dev")], ids=["plain", "-X dev"])
def test_without_debug_mode_it_is_what_the_standard_library_says(options: tuple[str, ...], tmp_path: Path) -> None:
    lines = run_elsewhere(tmp_path, options, CONTEXTVARS_CY_DEBUG="0")
    assert len(lines) == 5 and not [line for line in lines if "made at" in line or "worker" in line]


def test_a_wrong_choice_is_an_error_that_names_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="CONTEXTVARS_CY_DEBUG='yes': choose one of 0, 1, or leave it unset"):
        run_elsewhere(tmp_path, CONTEXTVARS_CY_DEBUG="yes")


def test_the_task_is_told(tmp_path: Path) -> None:
    program = """
import asyncio
from contextvars_cy import Context, ContextVar, assign

var = ContextVar("var")

async def main():
    return Context().run(var.set, 1)

task = None
loop = asyncio.new_event_loop()
token = loop.run_until_complete(loop.create_task(main(), name="a task"))
loop.close()
try:
    var.reset(token)
except ValueError as error:
    print(error)
"""
    script = tmp_path / "task.py"
    script.write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "CONTEXTVARS_CY_DEBUG": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"it was made at {script}:8 in main, thread MainThread, task a task\n" in done.stdout


def test_only_a_set_makes_a_token() -> None:
    with pytest.raises(RuntimeError, match="Tokens can only be created by ContextVars"):
        Token()
