"""Run third-party test suites on the standard library's context variables and on ours, and compare each test.

The suites are CPython's own (test_context, with HamtTest on our map, and asyncio's that name contexts), from every
Python found here, and those that structlog, asgiref, werkzeug, trio, anyio and OpenTelemetry ship in their source
distributions, on one Python. The package index is needed at the first run. The exit status is 1 if a test differs and
tools/conformance_suites.py gives no reason, or if something could not run.

    python tools/conformance.py --only trio --only anyio --python python3.12
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from conformance_runs import BACKENDS, Differences, Run, Suite, compare, environment, pytest_suite, run, unittest_suite
from conformance_suites import (
    CPYTHON_MODULES,
    EXPLAINED,
    LEAST_PYTHON_FOR_PACKAGES,
    PACKAGES,
    PINNED,
    TEST_LIMIT_SECONDS,
    Package,
)

REPOSITORY = Path(__file__).resolve().parent.parent
WORK = REPOSITORY / "build" / "conformance"
TEST_CONTEXT, *ASYNCIO_MODULES = CPYTHON_MODULES
CPYTHON_SUITES = {"test_context": [TEST_CONTEXT], "asyncio": ASYNCIO_MODULES}
LEAST_PYTHON = (3, 9)
WITHOUT_TESTS = "without its own test suite (on Debian: libpython3-testsuite)"
NO_PYTHON = f"every CPython from 3.9 up that was found comes {WITHOUT_TESTS}"
PROBE = """
import importlib.util, json, platform, sys
def present(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
print(json.dumps([platform.python_implementation(), sys.version_info[:3], sys.executable,
                  [module for module in sys.argv[1:] if present(module)]]))
"""


class CannotRun(Exception):
    """A suite could not be run; the text says why."""


class Interpreter(NamedTuple):
    path: str
    implementation: str
    version: tuple[int, int, int]
    modules: list[str]
    """The CPython test modules that it comes with."""

    @property
    def name(self) -> str:
        return ".".join(map(str, self.version))


class Row(NamedTuple):
    python: str
    suite: str
    problem: str = ""
    runs: dict[str, Run] = {}
    differing: dict[str, Differences] = {}


# ---- which Pythons ----


def probe(path: str) -> Interpreter | None:
    command = shutil.which(path)
    if command is None:
        return None
    done = subprocess.run(
        [command, "-c", PROBE, *CPYTHON_MODULES], capture_output=True, text=True, env=environment(), check=False
    )
    if done.returncode:
        return None
    implementation, version, executable, modules = json.loads(done.stdout)
    return Interpreter(executable, implementation, tuple(version), modules)


def usable(interpreter: Interpreter) -> bool:
    return interpreter.implementation == "CPython" and interpreter.version >= LEAST_PYTHON


def find_interpreters() -> list[Interpreter]:
    """One CPython of each series that comes with its tests: the one that runs this, those under pyenv and on PATH."""
    roots = {Path.home() / ".pyenv", Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")}
    paths = [sys.executable]
    paths += sorted(str(path) for root in roots for path in root.glob("versions/*/bin/python"))
    paths += [f"python3.{minor}" for minor in range(LEAST_PYTHON[1], 31)]
    found: dict[tuple[int, int], Interpreter] = {}
    for path in paths:
        interpreter = probe(path)
        if interpreter and usable(interpreter) and TEST_CONTEXT in interpreter.modules:
            found.setdefault(interpreter.version[:2], interpreter)
    return [interpreter for _, interpreter in sorted(found.items())]


# ---- what is installed ----


def call(arguments: list[str], log: Path, what: str, **changes: str) -> None:
    with open(log, "a", encoding="utf-8") as file:
        done = subprocess.run(
            arguments, env={**environment(), **changes}, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False
        )
    if done.returncode:
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("ERROR")]
        raise CannotRun(f"{what} ({lines[-1] if lines else 'see the log'}; {log})")


def pip(python: Path, *arguments: str) -> list[str]:
    return [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]


def project_files() -> list[Path]:
    package = REPOSITORY / "contextvars_cy"
    endings = ("py", "pyx", "pxi", "pxd", "h", "typed")
    sources = [path for ending in endings for path in package.rglob(f"*.{ending}")]
    # With the pytest plugin, for which every pytest looks where the wheel says that it has one.
    beside = [REPOSITORY / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    return sorted([*beside, *REPOSITORY.glob("*.py"), *sources])


def prepare(interpreter: Interpreter, name: str, work: Path, package: Package | None = None) -> tuple[Path, Path]:
    """A venv that has our compiled wheel, and the package with what its tests need; its Python, and its folder."""
    home = work / interpreter.name / name
    venv, source, stamp = home / "venv", home / "source", home / "ready"
    python = venv / "bin" / "python"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in project_files())).hexdigest()
    contents = f"{digest}\n{interpreter.path}\n{package}{PINNED if package else ''}\n"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == contents:
        return python, source
    shutil.rmtree(home, ignore_errors=True)
    source.mkdir(parents=True)
    log = home / "installation.log"
    say(f"{interpreter.name} {name}: installing")
    call([interpreter.path, "-m", "venv", str(venv)], log, "its venv module does not work")
    wheels = build_wheel(python, work / interpreter.name / f"wheel-{digest[:12]}", log)
    call(pip(python, "install", *wheels), log, "the wheel of contextvars_cy could not be installed")
    if package:
        shutil.unpack_archive(download(python, name, package, work / "downloads", log), source)
        tree = source / f"{name}-{package.version}"
        if not (tree / package.tests).exists():
            raise CannotRun(f"its source distribution has no {package.tests}")
        constraints = home / "constraints.txt"
        constraints.write_text(PINNED, encoding="utf-8")
        needed = ["pytest", "pytest-timeout", *package.requirements]
        command = pip(python, "install", "--constraint", str(constraints), *needed, "--editable", str(tree))
        call(command, log, "it and what its tests need could not be installed")
    stamp.write_text(contents, encoding="utf-8")
    return python, source


def build_wheel(python: Path, folder: Path, log: Path) -> list[str]:
    if not list(folder.glob("*.whl")):
        with tempfile.TemporaryDirectory() as copy:
            for path in project_files():
                target = Path(copy, path.relative_to(REPOSITORY))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            command = pip(python, "wheel", "--no-cache-dir", "--no-deps", "--wheel-dir", str(folder), copy)
            what = "contextvars_cy could not be built, which needs a C compiler and the package index"
            call(command, log, what, CONTEXTVARS_CY_BACKEND="cython")
    return [str(path) for path in folder.glob("*.whl")]


def download(python: Path, name: str, package: Package, folder: Path, log: Path) -> Path:
    archive = folder / f"{name}-{package.version}.tar.gz"
    if not archive.exists():
        options = ["--no-deps", "--no-binary", name, "--dest", str(folder)]
        what = "its source distribution could not be downloaded from the package index"
        call(pip(python, "download", *options, f"{name}=={package.version}"), log, what)
    return archive


# ---- running ----


def cpython_suite(interpreter: Interpreter, name: str, work: Path) -> Suite:
    modules = [module for module in CPYTHON_SUITES[name] if module in interpreter.modules]
    python, folder = prepare(interpreter, "cpython", work)
    return unittest_suite(name, str(python), modules, folder)


def package_suite(interpreter: Interpreter, name: str, work: Path) -> Suite:
    package = PACKAGES[name]
    if interpreter.version < LEAST_PYTHON_FOR_PACKAGES:
        least = ".".join(map(str, LEAST_PYTHON_FOR_PACKAGES))
        raise CannotRun(f"{name} {package.version} and its tests need Python {least}; name one with --python")
    python, folder = prepare(interpreter, name, work, package)
    options = ["--timeout", str(TEST_LIMIT_SECONDS), *package.options]
    return pytest_suite(name, str(python), options, [package.tests], folder / f"{name}-{package.version}")


def check(suite: Suite, python: str, records: Path) -> Row:
    records.mkdir(parents=True, exist_ok=True)
    runs: dict[str, Run] = {}
    differing: dict[str, Differences] = {}
    for way in ("stock", *BACKENDS):
        start = time.monotonic()
        say(f"{python} {suite.name}: {way}")
        if way == "stock":
            runs[way] = run(suite, way, records / way)
        else:
            runs[way], differing[way] = compare(suite, way, runs["stock"], records)
        told = runs[way].trouble or f"{len(differing.get(way, ()))} different" * (way != "stock")
        say(f"    {runs[way].summary()} in {time.monotonic() - start:.0f} s {told}")
    troubles = [f"{way}: {done.trouble}, see {records / way}.log" for way, done in runs.items() if done.trouble]
    if not troubles and "passed" not in runs["stock"].outcomes.values():
        troubles = [f"no test passes as it is, see {records / 'stock'}.log"]
    return Row(python, suite.name, "; ".join(troubles), runs, differing)


def say(what: str) -> None:
    print(what, flush=True)


# ---- the table ----


def reason(python: str, suite: str, test: str) -> str | None:
    version = tuple(int(number) for number in python.split(".")[:2])
    known = (one for one in EXPLAINED if one.suite == suite and one.test in test and version >= one.since)
    return next((one.why for one in known), None)


def report(rows: list[Row]) -> int:
    """Print the table and every difference; the exit status."""
    head = ["Python", "suite", "tests", "stock", *BACKENDS, "difference"]
    table = [head, ["---"] * len(head), *(cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    say("\nOf each run: passed/failed/skipped\n")
    for line in table:
        padded = (cell.ljust(width, "-" if cell == "---" else " ") for cell, width in zip(line, widths))
        say(f"| {' | '.join(padded)} |")
    failed = [row for row in rows if row.problem]
    for row in failed:
        say(f"{row.python} {row.suite}: {row.problem}")
    status = bool(failed)
    for row in rows:
        for backend, differing in row.differing.items():
            for test, (stock, ours) in differing.items():
                why = reason(row.python, row.suite, test)
                status = status or why is None
                told = f"{stock} as it is, {ours} on ours: {why or 'NO REASON'}"
                say(f"{row.python} {row.suite}, {backend}: {test}: {told}")
    return int(status)


def cells(row: Row) -> list[str]:
    tests = len(row.runs["stock"].outcomes) if row.runs else "-"
    results = [row.runs[way].summary() if row.runs else "-" for way in ("stock", *BACKENDS)]
    differing = {test for found in row.differing.values() for test in found}
    explained = sum(reason(row.python, row.suite, test) is not None for test in differing)
    difference = f"{len(differing)}" + f" ({explained} explained)" * bool(explained)
    return [row.python, row.suite, str(tests), *results, "no result" if row.problem else difference]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    names = [*CPYTHON_SUITES, *PACKAGES]
    parser.add_argument("--only", action="append", choices=names, help="this suite; may be given several times")
    parser.add_argument(
        "--python",
        action="append",
        metavar="PATH",
        help="CPython's suites from this Python instead of those found, the packages' on the first one named",
    )
    parser.add_argument("--work", type=Path, default=WORK, help="folder for downloads, venvs and logs (%(default)s)")
    options = parser.parse_args(arguments)
    options.only = options.only or names
    options.interpreters = []
    for path in options.python or []:
        interpreter = probe(path)
        if interpreter is None:
            parser.error(f"--python {path}: this is no Python that runs")
        if not usable(interpreter):
            parser.error(
                f"--python {path}: {interpreter.implementation} {interpreter.name} is not CPython 3.9 or newer"
            )
        if TEST_CONTEXT not in interpreter.modules and set(options.only) & set(CPYTHON_SUITES):
            parser.error(f"--python {path}: this Python comes {WITHOUT_TESTS}; choose other suites with --only")
        options.interpreters.append(interpreter)
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    work = options.work.resolve()
    cpython = [name for name in CPYTHON_SUITES if name in options.only]
    interpreters = options.interpreters or find_interpreters()
    plans = [(interpreter, name, cpython_suite) for interpreter in interpreters for name in cpython]
    one = options.interpreters[0] if options.interpreters else probe(sys.executable)
    plans += [(one, name, package_suite) for name in PACKAGES if name in options.only]
    rows = [Row("none", name, NO_PYTHON) for name in cpython if not interpreters]
    for interpreter, name, make_suite in plans:
        try:
            suite = make_suite(interpreter, name, work)
            rows.append(check(suite, interpreter.name, work / interpreter.name / "records" / name))
        except CannotRun as error:
            say(f"    {error}")
            rows.append(Row(interpreter.name, name, str(error)))
    status = report(rows)
    say(f"What the runs printed is in {work}/*/records.")
    return status


if __name__ == "__main__":
    # Only what is installed in the venvs is tested.
    os.environ.pop("PYTHONPATH", None)
    raise SystemExit(main(sys.argv[1:]))
