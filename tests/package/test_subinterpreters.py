"""Subinterpreters: the pure backend works in them, the compiled one serves one interpreter of a process and says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers import run_python

# An isolated one has a GIL of its own, from Python 3.12 on.
KINDS = ["legacy", "isolated"] if sys.version_info >= (3, 12) else ["legacy"]

RUN = """
import sys

def run(program, kind):
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
        new = interpreters.create(kind)
    else:
        import _xxsubinterpreters as interpreters
        # Before 3.12 `isolated` means something else.
        new = interpreters.create(**({"isolated": kind == "isolated"} if sys.version_info >= (3, 12) else {}))
    failure = interpreters.run_string(new, program)
    interpreters.destroy(new)
    assert failure is None, failure.formatted
"""
WORK = """
from contextvars_cy import Context, ContextVar, Hamt, backend, copy_context, host

var = ContextVar("var", default=0)
with copy_context() as context:
    with var.set(1):
        assert Context().run(var.get) == 0 and var.get() == 1
    token = var.set(2)
    var.reset(token)
assert len(context) == 0 and Hamt(a=1).set("b", 2).delete("a") == Hamt(b=2)
print(backend, host, flush=True)
"""
# Before Python 3.13 a subinterpreter with a GIL of its own has no ctypes, which the pure backend needs there.
if sys.version_info < (3, 13):
    WORK = WORK.replace(
        "with copy_context() as context:",
        """
context = copy_context()
try:
    context.__enter__()
except RuntimeError as error:
    assert "needs ctypes" in str(error)
else:
    context.__exit__(None, None, None)
if True:""",
    )
ERROR = """
try:
    import contextvars_cy
except RuntimeError as error:
    print(error, flush=True)
"""


def run_in_subinterpreter(
    tmp_path: Path, kind: str, program: str, before: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    main = f"{before}\n{RUN}\nrun({program!r}, {kind!r})"
    return run_python(["-c", main], cwd=tmp_path, env={f"CONTEXTVARS_CY_{name}": env[name] for name in env})


@pytest.mark.parametrize("before", ["", "import contextvars_cy"], ids=["there only", "in both"])
@pytest.mark.parametrize("host", ["native", "thread"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_pure_backend_works(kind: str, host: str, before: str, tmp_path: Path) -> None:
    done = run_in_subinterpreter(tmp_path, kind, WORK, before, BACKEND="pure", HOST=host)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pure {host}\n", "")


# The first is Cython's, for an interpreter with the GIL of the others, the second the import system's.
REASONS = {
    "legacy": "Interpreter change detected - this module can only be loaded into one interpreter per process.",
    "isolated": "module contextvars_cy._hamt.trie_cy does not support loading in subinterpreters",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_compiled_backend_is_an_error_that_says_so(kind: str, tmp_path: Path) -> None:
    done = run_in_subinterpreter(tmp_path, kind, ERROR, "import contextvars_cy", BACKEND="cython")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "CONTEXTVARS_CY_BACKEND=cython, but the compiled extension cannot be loaded: ImportError: "
        f"{REASONS[kind]}; reinstall contextvars_cy where a C compiler works; or choose the pure backend\n"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_pure_backend_runs_there_where_nothing_was_asked_for(kind: str, tmp_path: Path) -> None:
    before = "import contextvars_cy; assert contextvars_cy.backend == 'cython'"
    done = run_in_subinterpreter(tmp_path, kind, WORK, before)
    assert (done.returncode, done.stdout) == (0, "pure native\n")
    # A GIL of its own it has only where Python code asks for that, and then nothing can be done.
    if kind == "isolated":
        assert done.stderr == ""
        return
    assert done.stderr.count("Warning: ") == 1
    reason = f"the compiled extension cannot be loaded: ImportError: {REASONS[kind]}"
    assert f"RuntimeWarning: contextvars_cy runs the pure backend, because {reason}" in done.stderr


POOL = """
from contextvars_cy import ContextVar, backend, travel
from contextvars_cy.executors import InterpreterPoolExecutor
import interpreter_pool

if __name__ == "__main__":
    with interpreter_pool.user.set("maker"):
        pool = InterpreterPoolExecutor(1, initializer=interpreter_pool.initialize)
    with pool:
        with interpreter_pool.user.set("ada"):
            print(backend, pool.submit(interpreter_pool.seen, 1).result(), *pool.map(interpreter_pool.seen, [2, 3]))
        print(pool.submit(interpreter_pool.seen, 4).result())
"""
POOL_MODULE = """
from contextvars_cy import ContextVar, backend, travel

user = ContextVar("user", default="nobody")
travel.register(user, "user")
made_by = []


def initialize():
    made_by.append(user.get())


def seen(number):
    before = user.get()
    user.set("left by another")
    return f"{number} {before} {made_by[0]} {backend}"
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the standard library has no pool of interpreters")
def test_a_pool_of_interpreters_has_registered_values(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(POOL, encoding="utf-8")
    (tmp_path / "interpreter_pool.py").write_text(POOL_MODULE, encoding="utf-8")
    done = run_python(["-W", "error", "main.py"], tmp_path)
    lines = ["cython 1 ada maker pure 2 ada maker pure 3 ada maker pure", "4 nobody maker pure"]
    assert done.stdout.splitlines() == lines, done.stderr


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the standard library has no pool of interpreters")
def test_a_pool_of_interpreters_says_that_it_has_no_compiled_backend(tmp_path: Path) -> None:
    program = "from contextvars_cy.executors import InterpreterPoolExecutor\nInterpreterPoolExecutor(1)"
    done = run_python(["-c", program], tmp_path, env={"CONTEXTVARS_CY_BACKEND": "cython"})
    assert "RuntimeError: CONTEXTVARS_CY_BACKEND=cython, which an interpreter with a GIL of its own" in done.stderr
