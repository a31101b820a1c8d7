"""Another Cython project cimports our types and works on them; Python code sees what it did."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers import run_python

PROJECT = Path(__file__).with_name("cimport_project")

PROGRAM = """
import contextvars_cy
from contextvars_cy import Context, ContextVar, Hamt, ThreadState, Token, copy_context, current_context
import tenants

assert tenants.TYPES == [Context, ContextVar, Hamt, ThreadState, Token]
assert contextvars_cy.backend == "cython"

def refused(kind, call, *args):
    try:
        call(*args)
    except kind as error:
        return str(error)
    raise AssertionError(f"{kind} was not raised")

assert tenants.get("nobody") == "nobody"
assert refused(LookupError, tenants.get_or_fail) == str(tenants.tenant)
with copy_context():
    token = tenants.set_("blue")
    assert type(token) is Token and token.var is tenants.tenant
    assert tenants.tenant.get() == tenants.get_or_fail() == current_context()[tenants.tenant] == "blue"
    duplicate = tenants.copy()
    tenants.tenant.set("red")
    assert tenants.get_or_fail() == "red" and duplicate[tenants.tenant] == "blue"
    tenants.reset(token)
    assert tenants.tenant.get(None) is None
    assert "has already been used once" in refused(RuntimeError, tenants.reset, token)
    assert "created in a different Context" in refused(ValueError, tenants.reset, Context().run(tenants.set_, 1))
    assert "created by a different ContextVar" in refused(ValueError, tenants.reset, ContextVar("other").set(1))

context = Context()
assert tenants.set_in(context, "green") is context
assert context[tenants.tenant] == "green" and tenants.get(None) is None
with context:
    assert "is already entered" in refused(RuntimeError, tenants.set_in, context, 1)
assert "has not been entered" in refused(RuntimeError, tenants.exit_, context)
assert refused(TypeError, tenants.set_in, 1, 1)
assert copy_context().run(tenants.sum_of_sets, 1000) == sum(range(1000))
print("ran")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tenants")
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True)
    built = run_python(["setup.py", "build_ext", "--inplace"], cwd=folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.parametrize("host", ["native", "thread"])
def test_another_project_works_at_c_speed(folder: Path, host: str) -> None:
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    env = {"CONTEXTVARS_CY_BACKEND": "cython", "CONTEXTVARS_CY_HOST": host}
    done = run_python(["program.py"], cwd=folder, env=env)
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
