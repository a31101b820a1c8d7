"""`python -m contextvars_cy`: what it tells is true, and what it runs behaves as under plain Python; `install` too."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from helpers import environment, run_python

BACKENDS = ("cython", "pure")
HOSTS = ("native", "thread")
COMBINATIONS = pytest.mark.parametrize("backend, host", [(backend, host) for backend in BACKENDS for host in HOSTS])
# The second way is never what runs already, so the command has to start over in a new interpreter.
WAYS = pytest.mark.parametrize("way", [[], ["--backend=pure", "--host", "thread"]], ids=["directly", "restarted"])


def run_ours(
    arguments: Iterable[object], cwd: Path, flags: Iterable[str] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    return run_python([*flags, "-m", "contextvars_cy", "run", *arguments], cwd, **options)


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[object, ...]:
    """All that a caller sees; addresses differ from one process to the next."""
    return done.returncode, *(re.sub(r"0x[0-9a-f]+", "0x…", text) for text in (done.stdout, done.stderr))


def assert_same(
    program: Iterable[object], cwd: Path, way: Iterable[str] = (), flags: Iterable[str] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program both ways and return how it ended."""
    plain = run_python([*flags, *program], cwd, **options)
    ours = run_ours([*way, *program], cwd, flags, **options)
    assert outcome(ours) == outcome(plain)
    return plain


# ---- info ----


@COMBINATIONS
def test_info_is_true(backend: str, host: str, tmp_path: Path) -> None:
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
    program = "import contextvars_cy as c, sys; print(c.__version__, c.__path__[0], sys.executable, sep='\\n')"
    version, package, executable = run_python(["-c", program], tmp_path, env).stdout.splitlines()
    extension = Path(package, "_context", f"context_cy{sysconfig.get_config_var('EXT_SUFFIX')}")
    assert extension.is_file()

    done = run_python(["-m", "contextvars_cy", "info"], tmp_path, env)
    assert (done.returncode, done.stderr) == (0, "")
    assert dict(line.split(None, 1) for line in done.stdout.splitlines()) == {
        "version": version,
        "backend": f"{backend} (CONTEXTVARS_CY_BACKEND asks for it)",
        "host": host,
        "Python": f"{platform.python_implementation()} {platform.python_version()} ({executable})",
        "package": package,
        "extension": str(extension),
    }


def test_info_without_a_choice(tmp_path: Path) -> None:
    done = run_python(["-m", "contextvars_cy", "info"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nbackend    cython (the compiled extension works)\nhost       native\n" in done.stdout


# ---- run: as under plain Python ----

FACTS = '''"""The docstring."""
import sys
print(sorted(globals()))
print(sys.argv, sys.path)
print(__name__, __file__, __spec__, repr(__package__), __doc__, globals().get("__cached__"))
print(type(__loader__), __loader__.name if hasattr(__loader__, "name") else __loader__)
print(sys.modules["__main__"].__dict__ is globals(), __builtins__ is __import__("builtins"))
'''
# Options after the program are the program's own.
ARGUMENTS = ["one", "--backend", "pure", "-m", "two words", "--help", ""]

PROGRAMS: dict[str, str | bytes] = {
    "a module beside it": "import sibling\nprint(sibling.__file__, sibling.__name__)\n",
    "standard input": "import sys\nprint(sys.stdin.read().upper(), sys.stdin.isatty())\n",
    "falls off the end": "print('done')\n",
    "status": "import sys\nsys.exit(3)\n",
    "status None": "raise SystemExit\n",
    "status and text": "import sys\nsys.exit('text')\n",
    "exception": "print('before')\nraise ValueError('at the top')\n",
    "exception in a function": "def fail(number):\n    return 1 / number\n\ndef main():\n    fail(0)\n\nmain()\n",
    "exception in a module beside it": "import sibling\nsibling.fail()\n",
    "exception with a cause": (
        "def fail():\n    raise ValueError('first')\n\n"
        "try:\n    fail()\nexcept ValueError as error:\n    raise KeyError('second') from error\n"
    ),
    "exception in an except block": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    undefined\n",
    "exception in an executed text": "exec('def fail():\\n    undefined\\n\\nfail()')\n",
    "exception out of importlib": "import importlib\nimportlib.import_module('no_such_module')\n",
    "exception in a module imported by name": "import importlib\nimportlib.import_module('sibling').fail()\n",
    "syntax error": "print('never')\nvalue = = 1\n",
    "own excepthook": (
        "import sys, traceback\n"
        "def hook(kind, error, trace):\n"
        "    print(kind, error, [frame.name for frame in traceback.extract_tb(trace)], error.__traceback__ is trace)\n"
        "sys.excepthook = hook\n"
        "def fail():\n    raise ValueError('for the hook')\n\nfail()\n"
    ),
    "KeyboardInterrupt": "raise KeyboardInterrupt\n",
    "pickle": (
        "import pickle\n"
        "class Point:\n    def __init__(self, x):\n        self.x = x\n\n"
        "copy = pickle.loads(pickle.dumps(Point(3)))\nprint(copy.x, type(copy) is Point, Point)\n"
    ),
    "atexit": "import atexit\nvalue = [1]\n@atexit.register\ndef last():\n    print(value, __name__)\n",
    "thread that outlives the program": (
        "import threading, time\nvalue = [1]\n"
        "def work():\n"
        "    threading.main_thread().join()\n"
        "    print(value, __name__, time.__name__)\n\n"
        "threading.Thread(target=work).start()\n"
    ),
    "finaliser of a global": "class Last:\n    def __del__(self):\n        print('gone')\n\nlast = Last()\n",
    "annotations": "value: int = 1\ndef function(x: 1 + 1): ...\nprint(__annotations__, function.__annotations__)\n",
    "its own source": "import inspect\ndef function():\n    return 1\n\nprint(inspect.getsource(function))\n",
    "imports itself": "import __main__\nvalue = 1\nprint(__main__.value)\n",
    "source in Latin-1": "# coding: latin-1\nprint(ascii('Grüße'))\n".encode("latin-1"),
    "changes its folder": "import os\nos.chdir('/')\nimport sibling\nraise ValueError\n",
    "signal": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n",
    "facts": FACTS,
}
SIBLING = "def fail():\n    raise RuntimeError('beside')\n"


def write(path: Path, source: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(source if isinstance(source, bytes) else source.encode())


@WAYS
@pytest.mark.parametrize("name", PROGRAMS)
def test_script_runs_as_under_python(name: str, way: list[str], tmp_path: Path) -> None:
    write(tmp_path / "program.py", PROGRAMS[name])
    write(tmp_path / "sibling.py", SIBLING)
    assert_same(["program.py", *ARGUMENTS], tmp_path, way, input="a line\nanother ")


ENDS = {"status": 3, "status and text": 1, "exception": 1, "KeyboardInterrupt": -signal.SIGINT, "falls off the end": 0}


@WAYS
@pytest.mark.parametrize("name", ENDS)
def test_status_is_the_program_s(name: str, way: list[str], tmp_path: Path) -> None:
    write(tmp_path / "program.py", PROGRAMS[name])
    assert run_ours([*way, "program.py"], tmp_path).returncode == ENDS[name]


def test_traceback_starts_in_the_program(tmp_path: Path) -> None:
    write(tmp_path / "program.py", PROGRAMS["exception in a function"])
    done = run_ours(["program.py"], tmp_path)
    lines = re.findall(r'File "(.*)", line (\d+), in (.*)', done.stderr)
    script = os.path.join(os.path.realpath(tmp_path), "program.py")
    assert lines == [(script, "7", "<module>"), (script, "5", "main"), (script, "2", "fail")]


def layout(folder: Path) -> None:
    """One program in all the shapes in which Python runs one."""
    write(folder / "program.py", FACTS)
    write(folder / "below" / "program.py", FACTS)
    write(folder / "below" / "sibling.py", SIBLING)
    (folder / "link.py").symlink_to(folder / "below" / "program.py")
    write(folder / "package" / "__init__.py", "")
    write(folder / "package" / "__main__.py", FACTS)
    write(folder / "package" / "module.py", FACTS)
    write(folder / "package" / "inner" / "__main__.py", FACTS)
    with zipfile.ZipFile(folder / "program.zip", "w") as archive:
        archive.writestr("__main__.py", FACTS)


SHAPES = {
    "script": ["program.py"],
    "script from here": [os.path.join(".", "program.py")],
    "script below": [os.path.join("below", "program.py")],
    "link": ["link.py"],
    "folder": ["package"],
    "folder with a slash": ["package" + os.sep],
    "zip": ["program.zip"],
    "module": ["-m", "program"],
    "package": ["-m", "package"],
    "module of a package": ["-m", "package.module"],
    "main module of a package": ["-m", "package.__main__"],
    "package in a package": ["-m", "package.inner"],
    "module of a folder": ["-m", "below.program"],
}


@WAYS
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_program(shape: str, way: list[str], tmp_path: Path) -> None:
    layout(tmp_path)
    done = assert_same([*SHAPES[shape], *ARGUMENTS], tmp_path, way)
    assert done.returncode == 0
    assert "two words" in done.stdout


@pytest.mark.parametrize("shape", ["script", "folder", "zip"])
def test_absolute_path(shape: str, tmp_path: Path) -> None:
    layout(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    done = assert_same([tmp_path / SHAPES[shape][0]], tmp_path / "elsewhere")
    assert done.returncode == 0


def test_compiled_script(tmp_path: Path) -> None:
    write(tmp_path / "program.py", FACTS)
    program = "import py_compile; py_compile.compile('program.py', 'program.pyc')"
    assert run_python(["-c", program], tmp_path).returncode == 0
    assert assert_same(["program.pyc", "one"], tmp_path).returncode == 0


FAILURES = {
    "an exception": "def fail():\n    1 / 0\n\nfail()\n",
    "a syntax error": "value = = 1\n",
}


def without_runpy(text: str) -> str:
    """A traceback without the frames of the machinery that runs programs, each with the lines under its head."""
    machinery = r'  File "(?:<frozen .*>|[^"]*/(?:runpy|importlib/\w+)\.py)", .*\n(?:    .*\n)*'
    return re.sub(machinery, "", text).replace("Traceback (most recent call last):\n", "")


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("shape", ["folder", "zip", "module", "package", "module of a package"])
def test_traceback_of_every_shape_starts_in_the_program(shape: str, failure: str, tmp_path: Path) -> None:
    for name in ("program.py", "package/__init__.py", "package/__main__.py", "package/module.py"):
        write(tmp_path / name, "" if "init" in name else FAILURES[failure])
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.writestr("__main__.py", FAILURES[failure])
    plain = run_python(SHAPES[shape], tmp_path)
    ours = run_ours(SHAPES[shape], tmp_path)
    assert ours.returncode == plain.returncode == 1
    assert without_runpy(plain.stderr) == ours.stderr.replace("Traceback (most recent call last):\n", "")


def test_traceback_of_a_package_that_fails(tmp_path: Path) -> None:
    write(tmp_path / "package" / "__init__.py", FAILURES["an exception"])
    write(tmp_path / "package" / "__main__.py", FACTS)
    done = run_ours(["-m", "package"], tmp_path)
    assert done.returncode == 1
    (first, *_) = re.findall(r'File "(.*)", line', done.stderr)
    assert first == os.path.join(os.path.realpath(tmp_path), "package", "__init__.py")


@pytest.mark.parametrize("module", ["missing", "package", "package.missing", "missing.module", "program.missing"])
def test_missing_module(module: str, tmp_path: Path) -> None:
    write(tmp_path / "package" / "__init__.py", "")
    write(tmp_path / "program.py", "")
    plain = run_python(["-m", module], tmp_path)
    ours = run_ours(["-m", module], tmp_path)
    assert ours.returncode == plain.returncode == 1
    (line,) = ours.stderr.splitlines()
    assert line.startswith(f"python -m contextvars_cy: No module named {module}")
    assert ours.stdout == ""


def test_module_that_misses_another_module_says_which(tmp_path: Path) -> None:
    write(tmp_path / "package" / "__init__.py", "import no_such_module\n")
    write(tmp_path / "package" / "__main__.py", "")
    done = run_ours(["-m", "package"], tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'no_such_module'"


@pytest.mark.parametrize("kind", ["missing.py", "empty"])
def test_nothing_to_run(kind: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    plain = run_python([kind], tmp_path)
    ours = run_ours([kind], tmp_path)
    assert ours.returncode == plain.returncode != 0
    (line,) = ours.stderr.splitlines()
    assert kind in line


FLAGS = """
import os, sys
print(sys.flags, sys.warnoptions, sys._xoptions, sys.stdout.write_through, sys.dont_write_bytecode, __debug__)
print(sys.path, sys.pycache_prefix, os.environ.get("VARIABLE"))
"""
INTERPRETER_FLAGS = [
    ["-u"],
    ["-O"],
    ["-OO"],
    ["-B"],
    ["-s"],
    ["-q"],
    ["-bb"],
    ["-X", "dev"],
    ["-X", "utf8"],
    ["-X", "tracemalloc=3"],
    ["-Xpycache_prefix=elsewhere"],
    ["-W", "error"],
    ["-W", "error", "-W", "ignore::ImportWarning", "-uB"],
]
# What Python puts in front of sys.path depends on the shape of the program.
SAFE_PATH = [(["-I"], shape) for shape in ("script", "folder")]
if sys.version_info >= (3, 11):
    SAFE_PATH += [(["-P"], shape) for shape in ("script", "folder", "package")]


@WAYS
@pytest.mark.parametrize(
    "flags, shape",
    [*((flags, "script") for flags in INTERPRETER_FLAGS), (["-u"], "package"), *SAFE_PATH],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_interpreter_flags_are_kept(flags: list[str], shape: str, way: list[str], tmp_path: Path) -> None:
    write(tmp_path / "program.py", FLAGS)
    write(tmp_path / "package" / "__main__.py", FLAGS)
    # With -P, `-m` finds only what is on the path anyway.
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = assert_same(SHAPES[shape], tmp_path, way, flags, env={"PYTHONPATH": os.pathsep.join(paths)})
    assert (done.returncode, done.stderr) == (0, "")


@WAYS
def test_environment_is_not_mangled(way: list[str], tmp_path: Path) -> None:
    write(tmp_path / "program.py", "import json, os\nprint(json.dumps(dict(os.environ)))\n")
    env = {"VARIABLE": "a value = with 'signs' and ümlaut", "PYTHONHASHSEED": "7"}
    plain = json.loads(run_python(["program.py"], tmp_path, env).stdout)
    ours = json.loads(run_ours([*way, "program.py"], tmp_path, env=env).stdout)
    asked_for = {"CONTEXTVARS_CY_BACKEND": "pure", "CONTEXTVARS_CY_HOST": "thread"} if way else {}
    assert ours == {**plain, **asked_for}


# One line: the interrupt may come before the sleep has begun.
# A shell's background jobs inherit that interrupts are ignored.
WAITING = """
import signal
import time

signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True) or time.sleep(60)
"""


@WAYS
def test_interrupt_from_outside(way: list[str], tmp_path: Path) -> None:
    write(tmp_path / "program.py", WAITING)
    ends: list[tuple[int, list[str], str]] = []
    for start in ([], ["-m", "contextvars_cy", "run", *way]):
        with subprocess.Popen(
            [sys.executable, *start, "program.py"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline() == "ready\n"  # type: ignore[union-attr]
            process.send_signal(signal.SIGINT)
            errors = process.stderr.read()  # type: ignore[union-attr]
            ends.append((process.wait(), re.findall("File .*", errors), errors.splitlines()[-1]))
    assert ends[0] == ends[1]
    assert ends[0][0] == -signal.SIGINT


# ---- run: on our context variables ----

OURS = """
import sys
before = dict(sys.modules)
import contextvars, _contextvars
import json
import contextvars_cy
import sibling

homes = sorted({
    getattr(module, name).__module__
    for module in (contextvars, _contextvars, sibling)
    for name in ("Context", "ContextVar", "Token", "copy_context")
})
variable = contextvars.ContextVar("variable", default="default")
context = contextvars.copy_context()
context.run(variable.set, "set")
values = variable.get(), context[variable]
same = contextvars.ContextVar is _contextvars.ContextVar is contextvars_cy.ContextVar

contextvars_cy.uninstall()
import contextvars as native
natives = native.ContextVar, native.Context, native.Token, native.copy_context
print(json.dumps({
    "homes": homes,
    "values": values,
    "same": same,
    "native": native.ContextVar is not contextvars_cy.ContextVar,
    "backend": contextvars_cy.backend,
    "host": contextvars_cy.host,
    "asyncio": "asyncio" in before,
    "holders": sorted(
        name
        for name, module in before.items()
        if not name.startswith("contextvars_cy") and name not in ("contextvars", "_contextvars")
        and any(value is one for value in vars(module).values() for one in natives)
    ),
}))
"""


def assert_ours(done: subprocess.CompletedProcess[str], backend: str, host: str) -> None:
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "homes": ["contextvars_cy"],
        "values": ["default", "set"],
        "same": True,
        "native": True,
        "backend": backend,
        "host": host,
        "asyncio": False,
        "holders": [],
    }


@pytest.fixture
def our_program(tmp_path: Path) -> None:
    write(tmp_path / "program.py", OURS)
    write(tmp_path / "sibling.py", "from contextvars import *\n")


@pytest.mark.usefixtures("our_program")
@pytest.mark.parametrize("program", [["program.py"], ["-m", "program"]], ids=["script", "module"])
@COMBINATIONS
def test_run_is_on_our_variables(backend: str, host: str, program: list[str], tmp_path: Path) -> None:
    assert_ours(run_ours(["--backend", backend, "--host", host, *program], tmp_path), backend, host)


@pytest.mark.usefixtures("our_program")
@COMBINATIONS
def test_environment_chooses_too(backend: str, host: str, tmp_path: Path) -> None:
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
    assert_ours(run_ours(["program.py"], tmp_path, env=env), backend, host)


@pytest.mark.usefixtures("our_program")
@COMBINATIONS
def test_option_wins_over_the_environment(backend: str, host: str, tmp_path: Path) -> None:
    other = {"CONTEXTVARS_CY_BACKEND": "pure", "CONTEXTVARS_CY_HOST": "thread"}
    assert_ours(run_ours([f"--host={host}", f"--backend={backend}", "program.py"], tmp_path, env=other), backend, host)


# ---- what is refused ----

REFUSED = {
    "unknown command": ["nonsense"],
    "unknown option in place of a command": ["--nonsense"],
    "argument to info": ["info", "more"],
    "option of info": ["info", "--nonsense"],
    "no program": ["run"],
    "option but no program": ["run", "--backend", "pure"],
    "missing script": ["run", "missing.py"],
    "missing script in another backend": ["run", "--backend=pure", "missing.py"],
    "unknown backend": ["run", "--backend", "nonsense", "program.py"],
    "unknown host": ["run", "--host=nonsense", "program.py"],
    "backend without a value": ["run", "--backend"],
    "host with an empty value": ["run", "--host=", "program.py"],
    "unknown option": ["run", "--nonsense", "program.py"],
    "no module": ["run", "-m"],
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    write(tmp_path / "program.py", "print('must not run')\n")
    done = run_python(["-m", "contextvars_cy", *arguments], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    named = [argument for argument in arguments if "nonsense" in argument or "missing" in argument]
    assert all(argument.partition("=")[2] or argument in line for argument in named)


@pytest.mark.parametrize(
    "arguments, choices",
    [
        (["nonsense"], ["info", "run", "trace", "inspect"]),
        (["--nonsense"], ["info", "run", "trace", "inspect", "--version", "--help"]),
        (["info", "--nonsense"], ["--help"]),
        (["run", "--nonsense", "program.py"], ["--backend", "--host", "-m", "--help"]),
        (["run", "--backend"], ["cython", "pure"]),
        (["run", "--host=nonsense"], ["native", "thread"]),
    ],
)
def test_a_refusal_says_the_choices(arguments: list[str], choices: list[str], tmp_path: Path) -> None:
    done = run_python(["-m", "contextvars_cy", *arguments], tmp_path)
    assert all(choice in done.stderr for choice in choices)


def test_without_a_command_it_shows_how_it_is_used(tmp_path: Path) -> None:
    done = run_python(["-m", "contextvars_cy"], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: python -m contextvars_cy info\n")
    assert done.stderr.endswith("\npython -m contextvars_cy: a command is needed: info, run, trace, inspect\n")


# An option after the program is the program's, as ARGUMENTS has it.
HELP = ["--help", "-h", "info --help", "info -h", "run --help", "run -h", "run --backend pure --help"]


@pytest.mark.parametrize("arguments", HELP)
def test_help(arguments: str, tmp_path: Path) -> None:
    done = run_python(["-m", "contextvars_cy", *arguments.split()], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    words = (
        "usage:",
        "info",
        "run",
        "trace",
        "inspect",
        "PID",
        "SCRIPT",
        "-m MODULE",
        "--backend",
        "--host",
        "--version",
    )
    assert all(word in done.stdout for word in words)


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(option: str, tmp_path: Path) -> None:
    done = run_python(["-m", "contextvars_cy", option], tmp_path)
    version = run_python(["-c", "import contextvars_cy as c; print(c.__version__)"], tmp_path).stdout
    assert (done.returncode, done.stdout, done.stderr) == (0, f"contextvars_cy {version}", "")


@pytest.mark.parametrize("arguments", ["info", "--help", "--version", "run --help"])
def test_output_that_nobody_reads_is_no_traceback(arguments: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "contextvars_cy", *arguments.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


if os.path.exists("/dev/full"):

    def test_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
        command = [sys.executable, "-m", "contextvars_cy", "info"]
        options: dict[str, Any] = {"cwd": tmp_path, "env": environment(), "stderr": subprocess.PIPE, "text": True}
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, **options)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("python -m contextvars_cy: the output cannot be written: ")


# ---- install and uninstall ----

INSTALLATIONS = {
    "ours after install": """
from contextvars_cy import ContextVar, copy_context, install
install()
import contextvars, _contextvars
assert contextvars.ContextVar is _contextvars.ContextVar is ContextVar
assert contextvars.copy_context is copy_context
assert contextvars.ContextVar.__module__ == "contextvars_cy"
assert set(contextvars.__all__) == {"Context", "ContextVar", "Token", "copy_context"}
from contextvars import *
assert Context is contextvars.Context and Token is contextvars.Token
""",
    "one uninstall after two installs": """
import sys
import contextvars, _contextvars
from contextvars_cy import install, uninstall
install()
install()
assert sys.modules["contextvars"] is not contextvars and sys.modules["_contextvars"] is not _contextvars
uninstall()
assert sys.modules["contextvars"] is contextvars and sys.modules["_contextvars"] is _contextvars
import contextvars as again
assert again is contextvars
""",
    "uninstall where nothing had been imported": """
import sys
import contextvars_cy
for name in ("contextvars", "_contextvars"):
    sys.modules.pop(name, None)
contextvars_cy.install()
contextvars_cy.uninstall()
assert "contextvars" not in sys.modules and "_contextvars" not in sys.modules
import contextvars
assert contextvars.ContextVar.__module__ != "contextvars_cy"
""",
    "uninstall without install": """
import contextvars
from contextvars_cy import install, uninstall
uninstall()
import contextvars as again
assert again is contextvars
install()
uninstall()
uninstall()
import contextvars as again
assert again is contextvars
""",
    "uninstall after the program dropped the module": """
import sys
import contextvars_cy
for name in ("contextvars", "_contextvars"):
    sys.modules.pop(name, None)
contextvars_cy.install()
del sys.modules["contextvars"], sys.modules["_contextvars"]
contextvars_cy.uninstall()
import contextvars
assert contextvars.ContextVar.__module__ != "contextvars_cy"
""",
    "install again": """
from contextvars_cy import ContextVar, install, uninstall
for _ in range(2):
    install()
    import contextvars
    assert contextvars.ContextVar is ContextVar
    uninstall()
    import contextvars
    assert contextvars.ContextVar is not ContextVar
""",
    "find_spec": """
import importlib.util
from contextvars_cy import install, uninstall
original = importlib.util.find_spec("contextvars")
install()
for name in ("contextvars", "_contextvars"):
    spec = importlib.util.find_spec(name)
    assert spec.name == name and spec.origin == "contextvars_cy"
uninstall()
assert importlib.util.find_spec("contextvars").origin == original.origin
""",
    "our engine works after install and uninstall": """
from contextvars_cy import Context, ContextVar, copy_context, install, uninstall
variable = ContextVar("variable", default="default")
for change in (install, uninstall):
    change()
    with variable.set("set"):
        context = copy_context()
    assert variable.get() == "default" and context[variable] == "set"
    with context:
        assert variable.get() == "set"
    assert context.run(variable.get) == "set" and len(Context()) == 0
""",
}


# Of these programs some have imported the standard library's names before, to compare.
LATE = ["-W", "ignore:contextvars_cy.install() was called:RuntimeWarning"]


@COMBINATIONS
@pytest.mark.parametrize("name", INSTALLATIONS)
def test_install(name: str, backend: str, host: str, tmp_path: Path) -> None:
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
    done = run_python(["-W", "error", *LATE, "-c", INSTALLATIONS[name] + "print('done')\n"], tmp_path, env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


TAKEN = {
    "module.py": "import contextvars\n",
    "package/__init__.py": "",
    "package/name.py": "from contextvars import ContextVar as Variable\n",
    "package/token.py": "import _contextvars; kept = _contextvars.Token\n",
    "package/function.py": "from contextvars import copy_context\n",
    "package/none.py": "import asyncio, decimal\nvariable = __import__('contextvars').ContextVar('variable')\n",
}
TOO_LATE = """
import asyncio, decimal, threading, unittest, importlib.util, sys
import module, package.name, package.token, package.function, package.none


class Hostile:
    __class__ = type(sys)

    def __eq__(self, other):
        raise AssertionError


module.hostile = sys.modules["hostile"] = Hostile()
spec = importlib.util.find_spec("lazy")
spec.loader = importlib.util.LazyLoader(spec.loader)
sys.modules["lazy"] = lazy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lazy)

from contextvars_cy import install
install()
install()
print("done")
"""


@COMBINATIONS
def test_a_late_install_names_the_modules_that_keep_what_they_have(backend: str, host: str, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    for name, source in {**TAKEN, "lazy.py": "raise SystemExit('imported')", "late.py": TOO_LATE}.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
    done = run_python(["late.py"], tmp_path, env)
    (where, line) = done.stderr.splitlines()
    place, text = where.split(" RuntimeWarning: ")
    assert place.endswith("late.py:20:") and line == "  install()"
    names = "module, package.function, package.name, package.token"
    assert text.partition(" variables: ")[2] == f"{names}; call it before they are imported"
    assert (done.returncode, done.stdout) == (0, "done\n")
    # By the filter that the documentation gives.
    done = run_python(["-W", "error", *LATE, "late.py"], tmp_path, env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    # Where it is an error, nothing was replaced.
    program = TOO_LATE.replace("install()\ninstall()", "try: install()\nexcept RuntimeWarning: import contextvars")
    program += "assert contextvars is module.contextvars\n"
    done = run_python(["-W", "error", "-c", program], tmp_path, env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@COMBINATIONS
def test_run_and_an_install_in_time_warn_of_nothing(backend: str, host: str, tmp_path: Path) -> None:
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
    (tmp_path / "program.py").write_text("import asyncio, contextvars; print('done')", encoding="utf-8")
    first = "import asyncio, concurrent.futures, decimal, logging, threading, unittest.async_case\n"
    first += "import contextvars_cy.executors; contextvars_cy.install(); print('done')"
    for arguments in (["-m", "contextvars_cy", "run", "program.py"], ["-c", first]):
        done = run_python(["-W", "error", *arguments], tmp_path, env)
        assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


ASYNCIO = """
{first}
{second}
import contextvars
assert contextvars.ContextVar.__module__ == "contextvars_cy"
variable = contextvars.ContextVar("variable", default="default")

async def step(name):
    variable.set(name)
    loop, seen = asyncio.get_running_loop(), []
    loop.call_soon(lambda: seen.append(("call_soon", variable.get())))
    loop.call_soon(lambda: seen.append(("context", variable.get())), context=contextvars.Context())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    seen.append(("task", await asyncio.create_task(get())))
    seen.append(("itself", variable.get()))
    return seen

async def get():
    return variable.get()

async def main():
    for name, seen in zip("ab", await asyncio.gather(step("a"), step("b"))):
        assert seen == [("call_soon", name), ("context", "default"), ("task", name), ("itself", name)], seen
    assert variable.get() == "default"

asyncio.run(main())
print("done")
"""
ORDERS = {
    "before": ("import asyncio", "from contextvars_cy import install; install()"),
    "after": ("from contextvars_cy import install; install()", "import asyncio"),
}


# Contexts that asyncio makes itself, and those that it is given, which some of its tasks take only if they are native.
ASYNCIO_CONTEXTS = """
{first}
{second}
import contextvars, sys
variable = contextvars.ContextVar("variable", default="default")

async def get_and_set(value):
    old_value = variable.get()
    variable.set(value)
    await asyncio.sleep(0)
    return old_value, variable.get()

async def serve(reader, writer):
    writer.write(variable.get().encode())
    writer.close()
    await writer.wait_closed()

async def main():
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    assert await loop.create_task(get_and_set(1)) == ("default", 1)
    if sys.version_info >= (3, 11):
        assert await loop.create_task(get_and_set(2), context=context) == ("default", 2)
        assert await asyncio.create_task(get_and_set(3), context=context) == (2, 3)
        assert context[variable] == 3
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
        assert await asyncio.create_task(get_and_set(4), context=context) == (3, 4)
        loop.set_task_factory(None)
    if sys.version_info >= (3, 14):
        task = asyncio.create_task(get_and_set(5), context=context, eager_start=True)
        assert context[variable] == 5
        assert await task == (4, 5)
    variable.set("server")
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    variable.set("client")
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() in (b"server", b"default")
    writer.close()
    server.close()

asyncio.run(main())
print("done")
"""


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("program", [ASYNCIO, ASYNCIO_CONTEXTS], ids=["flow", "contexts"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_asyncio_imported_before_or_after_install(backend: str, program: str, order: str, tmp_path: Path) -> None:
    first, second = ORDERS[order]
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": "native"}
    done = run_python(["-W", "error", "-c", program.format(first=first, second=second)], tmp_path, env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


UNINSTALL = """
import sys
{first}
{second}
from contextvars_cy import uninstall
uninstall()
import contextvars
seen = [vars(module)["contextvars"] for name, module in sys.modules.items()
        if name.startswith("asyncio.") and "contextvars" in vars(module)]
assert seen and all(module is contextvars for module in seen)
asyncio.run(asyncio.sleep(0))
print("done")
"""


@pytest.mark.parametrize("order", ORDERS)
def test_uninstall_gives_asyncio_back_as_it_was(order: str, tmp_path: Path) -> None:
    first, second = ORDERS[order]
    env = {"CONTEXTVARS_CY_BACKEND": "pure", "CONTEXTVARS_CY_HOST": "native"}
    done = run_python(["-W", "error", "-c", UNINSTALL.format(first=first, second=second)], tmp_path, env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


# ---- processes that the program starts ----

BESIDE = "from contextvars import ContextVar\n"
PARENT = """
import pathlib
import contextvars
import multiprocessing
import sys
import beside

var = contextvars.ContextVar("var", default=1)


def show(depth):
    print(depth, contextvars.ContextVar.__module__, beside.ContextVar.__module__, var.get(), flush=True)
    if depth:
        process = multiprocessing.Process(target=show, args=(depth - 1,))
        process.start()
        process.join()


if __name__ == "__main__":
    if sys.argv[1] == "spawn":
        # Python's own forkserver fails with it.
        sys.path.append(pathlib.Path("elsewhere"))
    multiprocessing.set_start_method(sys.argv[1])
    multiprocessing.set_forkserver_preload(sys.argv[2:])
    show(2)
"""
START_METHODS = [name for name in ("spawn", "forkserver", "fork") if name in multiprocessing.get_all_start_methods()]


@pytest.mark.parametrize(
    "preload", [[], ["beside"], ["__main__", "beside"]], ids=["nothing", "a module", "the program"]
)
@pytest.mark.parametrize("method", START_METHODS)
def test_it_holds_in_processes_that_the_program_starts(method: str, preload: list[str], tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT, encoding="utf-8")
    (tmp_path / "beside.py").write_text(BESIDE, encoding="utf-8")
    done = run_python(["-W", "error", "-m", "contextvars_cy", "run", "parent.py", method, *preload], tmp_path)
    assert done.stdout.splitlines() == [f"{depth} contextvars_cy contextvars_cy 1" for depth in (2, 1, 0)], done.stderr
    assert done.stderr == ""
