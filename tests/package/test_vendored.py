"""A copy of the package inside of another one, under a name of its own, beside the installed one and without it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pytest

from helpers import run_python

BEGIN = """
import asyncio, gc, importlib, os, pickle, sys, threading


def load(name, backend):
    os.environ["CONTEXTVARS_CY_BACKEND"] = backend
    return importlib.import_module(name)
"""
# With `one` and `other`: two copies, or one copy twice.
WORK = """
for copy in (one, other):
    name = copy.__name__
    for public in ("Context", "ContextVar", "Hamt", "HamtSet", "Local", "bind", "assign"):
        assert getattr(copy, public).__module__ == name
    local, var, events = copy.Local(), copy.ContextVar("var"), []
    local.user = 1
    assert local.user == 1 and type(var.proxy()) is copy.Proxy
    with var.watch(events.append), copy.watch(events.append):
        with var.set(1):
            pass
    assert [(type(event), event.old_value) for event in events[:2]] == [(copy.WatchEvent, copy.MISSING)] * 2
    assert type(copy.Hamt(a=1).diff(copy.Hamt())) is copy.HamtDiff and copy.Hamt(a=1).find("b")[0] is copy.MISSING
    importlib.import_module(name + ".executors")
    assert copy.executors.Thread.__module__ == name + ".executors"
    assert pickle.loads(pickle.dumps(copy.Hamt(a=1))) == copy.Hamt(a=1)
    assert type(pickle.loads(pickle.dumps(copy.HamtSet("a")))) is copy.HamtSet
for name, module in list(sys.modules.items()):
    if name.startswith((one.__name__ + ".", other.__name__ + ".")):
        assert module.__name__ == name, (name, module)

first, second = one.ContextVar("var"), other.ContextVar("var")

def nest(depth):
    if depth:
        with first.set(depth), second.set(-depth):
            with one.copy_context(), other.copy_context():
                assert (first.get(), second.get()) == (depth, -depth)
                first.set(None)
                second.set(None)
                nest(depth - 1)
            assert (first.get(), second.get()) == (depth, -depth)
            assert one.current_context()[first] == -other.current_context()[second] == depth

def work():
    for _ in range(20):
        nest(10)
    assert one.thread_state() is one.thread_state()
    assert type(one.thread_state()) is one.ThreadState and type(other.thread_state()) is other.ThreadState
    gc.collect()

threads = [threading.Thread(target=nest, args=[20]) for _ in range(8)] + [threading.Thread(target=work)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
work()

context = one.Context()
with context, first.set(1):
    inner = other.copy_context()
    assert inner.run(first.get, None) == 1
with one.watch(lambda event: seen.append(event.kind)), other.watch(lambda event: seen.append(event.kind)):
    seen, sets = [], ["set"] * (4 if one is other else 2)
    with first.set(1), second.set(1):
        pass
    assert [kind for kind in seen if kind != "switch"] == sets + ["reset" for _ in sets]

async def child(number):
    first.set(number)
    second.set(-number)
    await asyncio.sleep(0)
    return first.get() + second.get()

async def main():
    assert await asyncio.gather(*map(child, range(10))) == [0] * 10
    assert first.get(None) is None and second.get(None) is None

if one.host == "native":
    asyncio.run(main())

# In a list: a module that has it by name is told of as one that took it too early.
before = [sys.modules["contextvars"]]
for copy in (one, other):
    copy.install()
    installed = vars(sys.modules["contextvars"])
    assert installed["ContextVar"] is copy.ContextVar and installed["Context"] is copy.Context
    copy.uninstall()
    assert sys.modules["contextvars"] is before[0]
print(one.backend, other.backend, one.host, other.host)
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an `app` that has a copy of the installed package."""
    folder = tmp_path_factory.mktemp("vendored")
    program = "import contextvars_cy; print(contextvars_cy.__path__[0])"
    installed = run_python(["-c", program], folder).stdout.rstrip("\n")
    vendored = folder / "app" / "_vendor"
    shutil.copytree(
        installed, vendored / "contextvars_cy", ignore=shutil.ignore_patterns("__pycache__", "*.c", "*.pyx")
    )
    for package in (folder / "app", vendored):
        (package / "__init__.py").touch()
    return folder


def run(app: Path, host: str, *parts: str, flags: Iterable[str] = ()) -> str:
    done = run_python([*flags, "-W", "error", "-c", "\n".join(parts)], app, {"CONTEXTVARS_CY_HOST": host})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


FOUR = pytest.mark.parametrize("backend, host", list(product(["pure", "cython"], ["native", "thread"])))
BACKENDS = pytest.mark.parametrize("mine, installed", list(product(["pure", "cython"], repeat=2)))
HOSTS = pytest.mark.parametrize("host", ["native", "thread"])


@FOUR
def test_alone(backend: str, host: str, app: Path) -> None:
    """-S: nothing is installed."""
    begin = f"{BEGIN}\none = other = load('app._vendor.contextvars_cy', {backend!r})"
    end = "assert not [name for name in sys.modules if name.startswith('contextvars_cy')]"
    assert run(app, host, begin, WORK, end, flags=["-S"]) == f"{backend} {backend} {host} {host}\n"


@HOSTS
@BACKENDS
@pytest.mark.parametrize("order", ["first", "second", "in the place of contextvars"])
def test_beside_an_installed_one(order: str, mine: str, installed: str, host: str, app: Path) -> None:
    load_installed = f"other = load('contextvars_cy', {installed!r})"
    load_mine = f"one = load('app._vendor.contextvars_cy', {mine!r})"
    if order == "first":
        parts = [BEGIN, load_installed, load_mine]
    elif order == "second":
        parts = [BEGIN, load_mine, load_installed]
    else:
        parts = [BEGIN, load_installed, "other.install()", load_mine, "other.uninstall()"]
    assert run(app, host, *parts, WORK) == f"{mine} {installed} {host} {host}\n"


@FOUR
def test_the_command(backend: str, host: str, app: Path, tmp_path: Path) -> None:
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host, "PYTHONPATH": str(app)}
    command = ["-S", "-m", "app._vendor.contextvars_cy"]
    done = run_python([*command, "info"], tmp_path, env)
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert rows["backend"].startswith(f"{backend} (")
    assert rows["package"] == str(app / "app" / "_vendor" / "contextvars_cy")
    assert str(app) in rows["extension"]
    done = run_python([*command, "nonsense"], tmp_path, env)
    refusal = "there is no command nonsense: choose one of info, run, trace, inspect\n"
    assert done.stderr == f"python -m app._vendor.contextvars_cy: {refusal}"
    (tmp_path / "program.py").write_text("import contextvars\nprint(contextvars.ContextVar)\n")
    for way in ([], ["--backend", "pure", "--host", "thread"]):
        done = run_python([*command, "run", *way, "program.py"], tmp_path, env)
        assert done.stdout == "<class 'app._vendor.contextvars_cy.ContextVar'>\n", done.stderr


@FOUR
def test_a_snapshot_shows_the_values(backend: str, host: str, app: Path, tmp_path: Path) -> None:
    program = """
from app._vendor.contextvars_cy import ContextVar, tracing
ContextVar("var").set("here")
print(*tracing.snapshot().here.context)
"""
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host, "PYTHONPATH": str(app)}
    done = run_python(["-S", "-c", program], tmp_path, env)
    assert (done.stdout, done.stderr) == ("{'var': \"'here'\"} {}\n", "")


@FOUR
def test_debug_mode_tells_the_program_s_line(backend: str, host: str, app: Path, tmp_path: Path) -> None:
    program = """
from app._vendor.contextvars_cy import Context, ContextVar
var = ContextVar("var")
token = Context().run(var.set, 1)
try:
    var.reset(token)
except ValueError as error:
    print("at <string>:4 in <module>" in str(error))
"""
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host, "CONTEXTVARS_CY_DEBUG": "1"}
    done = run_python(["-c", program], app, env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
