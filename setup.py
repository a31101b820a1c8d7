"""The one decision of the build: with the compiled extension or without. Everything else is in pyproject.toml.

`CONTEXTVARS_CY_BACKEND` is unset (compiled where possible), `cython` (compiled or an error) or `pure`. A pure build
declares no extensions, so its wheel is tagged py3-none-any; an extension that is declared optional and fails would
leave a wheel with a platform's tag, which pip caches. It records in the package why it is pure, since pip shows what a
build prints only if it fails; `python -m contextvars_cy info` tells it.
"""

import os
import platform
import sys
import tempfile
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import BaseError, CCompilerError

MODULES = ("_hamt/trie_cy", "_hamt/hamt_cy", "_context/context_cy")
VARIABLES = ("CONTEXTVARS_CY_BACKEND", "CONTEXTVARS_CY_DEBUG", "CONTEXTVARS_CY_HOST")


def obstacle():
    """Why nothing can be compiled here, or None: found out by compiling and linking an empty extension."""
    if platform.python_implementation() != "CPython":
        return f"{platform.python_implementation()} runs the pure code better"
    try:
        import Cython  # noqa: F401
    except ImportError:
        return "Cython is not installed"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("#include <Python.h>\nPyMODINIT_FUNC PyInit_probe(void) { return NULL; }\n")
        command = build_ext(Distribution({"ext_modules": [Extension("probe", [str(source)])]}))
        command.build_lib = command.build_temp = folder
        command.ensure_finalized()
        try:
            command.run()
        except (BaseError, CCompilerError, OSError) as error:
            return f"no C compiler works here: {error}"
    return None


def reason_for_a_pure_build():
    choice = os.environ.get("CONTEXTVARS_CY_BACKEND", "")
    if choice not in ("", "cython", "pure"):
        sys.exit(f"CONTEXTVARS_CY_BACKEND={choice!r}: choose one of cython, pure, or leave it unset")
    reason = "CONTEXTVARS_CY_BACKEND=pure asks for it" if choice == "pure" else obstacle()
    if reason and choice == "cython":
        sys.exit(f"CONTEXTVARS_CY_BACKEND=cython, but {reason}")
    if reason:
        print(f"contextvars_cy: a pure build, without the compiled extension: {reason}", file=sys.stderr)
    return reason


class RecordingBuild(build_py):
    def run(self):
        super().run()
        record = Path("" if self.editable_mode else self.build_lib, "contextvars_cy", "_pure_build.txt")
        if reason:
            # What an earlier build has left beside the sources would still be imported.
            for module, suffix in product(MODULES if self.editable_mode else (), EXTENSION_SUFFIXES):
                Path("contextvars_cy", module + suffix).unlink(missing_ok=True)
            python = f"{platform.python_implementation()} {platform.python_version()}"
            record.write_text(f"{python}: {' '.join(reason.split())}\n", encoding="utf-8")
        elif record.exists():
            record.unlink()


for variable in os.environ:
    if variable.startswith("CONTEXTVARS_CY_") and variable not in VARIABLES:
        hint = f"there are {', '.join(VARIABLES)}"
        print(f"contextvars_cy: the environment variable {variable} does nothing; {hint}", file=sys.stderr)
# Metadata and source distributions are the same either way.
undecided = {"egg_info", "dist_info", "sdist"}.intersection(sys.argv)
if undecided and not find_spec("setuptools_scm"):
    sys.exit("contextvars_cy: setuptools-scm is not installed, which knows the version: pip install setuptools-scm")
reason = None if undecided else reason_for_a_pure_build()
headers = [str(path) for path in Path("contextvars_cy").rglob("*.h")]
extensions = [
    Extension(f"contextvars_cy.{name.replace('/', '.')}", [f"contextvars_cy/{name}.pyx"], depends=headers)
    for name in MODULES
]
setup(ext_modules=[] if undecided or reason else extensions, cmdclass={"build_py": RecordingBuild})
