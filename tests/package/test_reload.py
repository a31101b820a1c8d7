"""Reloading the package, and importing it once more after it was taken out of `sys.modules`, as some tools do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from helpers import run_python

BEGIN = """
import importlib, os, sys
import contextvars_cy
from contextvars_cy import ContextVar, copy_context
var = ContextVar("var")
token = var.set(1)
context = copy_context()
"""
AFRESH = """
for name in [name for name in sys.modules if name.partition(".")[0] == "contextvars_cy"]:
    del sys.modules[name]
try:
    import contextvars_cy
except RuntimeError as error:
    sys.exit(f"RuntimeError: {error}")
"""


def run(tmp_path: Path, backend: str, host: str, *parts: str) -> subprocess.CompletedProcess[str]:
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
    return run_python(["-W", "error", "-c", "\n".join(parts)], cwd=tmp_path, env=env)


def other(host: str) -> str:
    return {"native": "thread", "thread": "native"}[host]


for_both = pytest.mark.parametrize("backend, host", [(b, h) for b in ("pure", "cython") for h in ("native", "thread")])


@for_both
def test_a_reload_changes_nothing(backend: str, host: str, tmp_path: Path) -> None:
    """The environment was read at the first import."""
    program = f"""
os.environ["CONTEXTVARS_CY_HOST"] = {other(host)!r}
assert importlib.reload(contextvars_cy) is contextvars_cy
assert (contextvars_cy.backend, contextvars_cy.host) == ({backend!r}, {host!r})
assert contextvars_cy.ContextVar is ContextVar and var.get() == context[var] == 1
var.reset(token)
assert var not in contextvars_cy.copy_context()
"""
    done = run(tmp_path, backend, host, BEGIN, program)
    assert (done.returncode, done.stderr) == (0, "")


@for_both
def test_imported_once_more(backend: str, host: str, tmp_path: Path) -> None:
    """What the program holds of the first import goes on working. The reference is a second system then, with types
    and values of its own; the interpreter loads an extension once, so the compiled backend is the same one."""
    program = f"""
assert (contextvars_cy.backend, contextvars_cy.host) == ({backend!r}, {host!r})
assert (contextvars_cy.ContextVar is ContextVar) == ({backend!r} == "cython")
second = contextvars_cy.ContextVar("second")
second.set(2)
assert var.get() == context[var] == 1
with contextvars_cy.copy_context() as inner, copy_context():
    second.set(3)
    var.set(3)
    assert (second.get(), var.get()) == (3, 3)
assert (second.get(), var.get()) == (2, 1)
var.reset(token)
assert var.get(None) is None and second.get() == 2
local, events = contextvars_cy.Local(), []
local.user = 1
assert local.user == 1 and type(second.proxy()) is contextvars_cy.Proxy
with contextvars_cy.watch(events.append), second.watch(events.append):
    second.unset()
    assert second.set(3).old_value is contextvars_cy.MISSING is contextvars_cy.Token.MISSING
assert [type(event) for event in events] == [contextvars_cy.WatchEvent] * 4
from contextvars_cy.executors import Thread
assert contextvars_cy.bind(second.get)() == 3
"""
    done = run(tmp_path, backend, host, BEGIN, AFRESH, program)
    assert (done.returncode, done.stderr) == (0, "")


@for_both
def test_imported_once_more_for_another_host(backend: str, host: str, tmp_path: Path) -> None:
    program = f"""
os.environ["CONTEXTVARS_CY_HOST"] = {other(host)!r}
{AFRESH}
context = contextvars_cy.Context()
try:
    context.native
    at_work = "native"
except AttributeError:
    at_work = "thread"
assert at_work == contextvars_cy.host == {other(host)!r}
assert var.get() == 1
"""
    done = run(tmp_path, backend, host, BEGIN, program)
    if backend == "pure":
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert (done.returncode, done.stderr) == (
            1,
            f"RuntimeError: CONTEXTVARS_CY_HOST asks for the {other(host)} host, but in this process the compiled "
            f"backend runs on the {host} host already; set the variable before contextvars_cy is imported for the "
            "first time\n",
        )
