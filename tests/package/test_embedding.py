"""A program that has Python inside, and starts it more than once: `Py_Finalize`, and `Py_Initialize` again."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import TIMEOUT_SECONDS, environment, run_python

Run = Callable[..., subprocess.CompletedProcess[str]]

# Each argument is run in an interpreter of its own, one after the other.
SOURCE = """
#include <Python.h>

int main(int argc, char **argv) {
    for (int number = 1; number < argc; number++) {
        Py_Initialize();
        int failed = PyRun_SimpleString(argv[number]);
        if (Py_FinalizeEx() < 0 || failed) return 1;
    }
    return 0;
}
"""
WORK = """
import contextvars_cy, threading
from contextvars_cy import Context, ContextVar, Hamt, copy_context

var = ContextVar("var", default=0)
with copy_context() as context, var.set(1):
    assert Context().run(var.get) == 0 and var.get() == 1
    thread = threading.Thread(target=copy_context().run, args=[var.set, 2])
    thread.start()
    thread.join()
var.set([context, Hamt(a=var).set("b", 2)])
print(contextvars_cy.backend, contextvars_cy.host)
"""
ENDED = "ImportError: it can serve one interpreter, and that one has ended; this is another in its process"
VARIABLES = sysconfig.get_config_vars()
LIBRARIES = [Path(VARIABLES[folder]) for folder in ("LIBDIR", "LIBPL") if VARIABLES.get(folder)]

# Some systems have it in a package of its own.
if any(list(folder.glob(f"libpython{VARIABLES.get('LDVERSION')}.*")) for folder in LIBRARIES):

    @pytest.fixture(scope="module")
    def embedded(tmp_path_factory: pytest.TempPathFactory) -> Run:
        """Runs the programs with the package that is installed here."""
        folder = tmp_path_factory.mktemp("embedding")
        (folder / "embedding.c").write_text(SOURCE)
        folders = [option for path in LIBRARIES for option in (f"-L{path}", f"-Wl,-rpath,{path}")]
        flags = " ".join(VARIABLES.get(name) or "" for name in ("LIBS", "SYSLIBS", "LINKFORSHARED")).split()
        include = f"-I{sysconfig.get_path('include')}"
        command = [VARIABLES["CC"].split()[0], "embedding.c", "-o", "embedding", include, *folders]
        built = subprocess.run(
            [*command, f"-lpython{VARIABLES['LDVERSION']}", *flags], cwd=folder, capture_output=True, text=True
        )
        assert built.returncode == 0, built.stderr
        program = "import contextvars_cy, os; print(os.path.dirname(contextvars_cy.__path__[0]))"
        installed = run_python(["-c", program], folder).stdout.rstrip("\n")

        def run(programs: list[str], **env: str) -> subprocess.CompletedProcess[str]:
            env = {f"CONTEXTVARS_CY_{name}": value for name, value in env.items()}
            env.update(PYTHONHOME=sys.base_prefix, PYTHONPATH=installed)
            return subprocess.run(
                [folder / "embedding", *programs],
                cwd=folder,
                env=environment(env),
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
            )

        return run

    @pytest.mark.parametrize("host", ["native", "thread"])
    def test_the_second_interpreter_gets_the_pure_backend_and_a_warning(host: str, embedded: Run) -> None:
        done = embedded([WORK] * 3, HOST=host)
        assert (done.returncode, done.stdout) == (0, f"cython {host}\n" + f"pure {host}\n" * 2), done.stderr
        reason = f"the compiled extension cannot be loaded: {ENDED}"
        assert done.stderr.count("Warning: ") == 2
        assert done.stderr.count(f"RuntimeWarning: contextvars_cy runs the pure backend, because {reason}") == 2

    @pytest.mark.parametrize("host", ["native", "thread"])
    def test_the_pure_backend_runs_in_all(host: str, embedded: Run) -> None:
        if embedded(["import ctypes"] * 3).returncode:
            pytest.skip("this CPython crashes by itself if three interpreters import ctypes one after the other")
        done = embedded([WORK] * 3, BACKEND="pure", HOST=host)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"pure {host}\n" * 3, "")

    def test_where_the_compiled_backend_is_asked_for_the_second_import_is_an_error_that_says_why(embedded: Run) -> None:
        done = embedded([WORK] * 2, BACKEND="cython")
        assert (done.returncode, done.stdout) == (1, "cython native\n")
        last = done.stderr.splitlines()[-1]
        assert last.startswith(
            f"RuntimeError: CONTEXTVARS_CY_BACKEND=cython, but the compiled extension cannot be loaded: {ENDED};"
        )
