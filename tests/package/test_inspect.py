"""`python -m contextvars_cy inspect`: other processes tell of themselves and are not changed, or it is said why not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contextvars_cy._tracing import asking
from helpers import environment, run_python

BACKENDS = ("cython", "pure")
HOSTS = ("native", "thread")
COMBINATIONS = pytest.mark.parametrize("backend, host", [(backend, host) for backend in BACKENDS for host in HOSTS])
# Where the kernel lets a process be looked into by those that started it alone, this one lets all its user's do it.
ALLOW = """
import ctypes
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
"""


def inspect(cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    # On a machine that has much to do, an answer takes long.
    return run_python(["-m", "contextvars_cy", "inspect", "--timeout=60", *arguments], cwd)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    start = "python -m contextvars_cy: "
    assert line.startswith(start)
    return line[len(start) :]


@pytest.mark.parametrize("option", ["--help", "-h", "--format json --help"])
def test_help(option: str, tmp_path: Path) -> None:
    done = inspect(tmp_path, *option.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert "inspect [--format F] [--timeout S] PID\n" in done.stdout


WRONG = {
    "--nonsense 1": "inspect has no option --nonsense; it has --format, --timeout and --help",
    "--format yaml 1": "--format yaml: choose one of text, json",
    "--format": "--format needs a value: choose one of text, json",
    "--timeout soon 1": "--timeout soon: it needs a number of seconds",
    "--timeout=0 1": "--timeout 0: it needs a number of seconds",
    "": "inspect needs one PID, the number of a process, got none",
    "1 2": "inspect needs one PID, the number of a process, got 1 2",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_arguments(arguments: str, tmp_path: Path) -> None:
    assert refusal(inspect(tmp_path, *arguments.split())) == WRONG[arguments]


# ---- what sys.remote_exec may say, on every Python ----


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[BaseException], str]:
    def refused(error: BaseException) -> str:
        def remote_exec(pid: int, script: str) -> None:
            raise error

        monkeypatch.setattr(sys, "remote_exec", remote_exec, raising=False)
        with pytest.raises(SystemExit) as end:
            asking.inspect(str(os.getpid()), "text", 1)
        assert end.value.code == 2
        return capsys.readouterr().err

    return refused


ERRORS = [
    (PermissionError(), "may not be inspected by this user: needed is "),
    (ProcessLookupError(), f"there is no process {os.getpid()}\n"),
    (RuntimeError("Remote debugging is not enabled in the remote process"), "PYTHON_DISABLE_REMOTE_DEBUG"),
    (
        RuntimeError("Can't send commands from a Python 3.14 process to a Python 3.15 process"),
        "to a Python 3.15 process; run this command with the Python of the process\n",
    ),
    (RuntimeError("PyRuntime address lookup failed"), "it does not seem to be a Python 3.14 or later (PyRuntime"),
    (OSError("something else"), f"process {os.getpid()} could not be inspected: something else\n"),
]


@pytest.mark.parametrize("error, text", ERRORS, ids=[repr(error) for error, _ in ERRORS])
def test_errors_are_told_in_one_line(
    error: BaseException, text: str, refused: Callable[[BaseException], str], tmp_path: Path
) -> None:
    told = refused(error)
    assert text in told and told.count("\n") == 1


if sys.version_info < (3, 14):

    def test_an_older_python_says_why_not(tmp_path: Path) -> None:
        told = refusal(inspect(tmp_path, os.getpid()))
        assert told.startswith("inspect needs Python 3.14 or later, with sys.remote_exec, here and in the process")
        assert told.endswith(f"; this is {sys.implementation.name} {sys.version.split()[0]}")


# ---- with real processes ----

if sys.version_info >= (3, 14) and sys.platform == "linux":
    ASYNCIO = """
import asyncio
import contextvars
import threading

from contextvars_cy import ContextVar, host, tracing

user = ContextVar("user")
password = tracing.secret(ContextVar("password"))
theirs = contextvars.ContextVar("theirs")


async def wait(name):
    if host == "native":
        user.set(name)
        theirs.set(1)
    await asyncio.sleep(600)


async def main():
    password.set("hunter2") if host == "native" else None
    loop = asyncio.get_running_loop()
    end = asyncio.create_task(asyncio.to_thread(input))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait(name), name=name) for name in ("ada", "grace")]
        await asyncio.sleep(0)
        print("ready", flush=True)
        await end
        for task in tasks:
            task.cancel()


def beside(end):
    with user.set("beside"):
        end.wait()


end = threading.Event()
thread = threading.Thread(target=beside, args=[end], name="beside")
thread.start()
asyncio.run(main())
end.set()
thread.join()
print("done", threading.active_count())
"""
    BUSY = """
import signal
import threading

from contextvars_cy import ContextVar

user = ContextVar("user")
lock = threading.Lock()


class Locked:
    def __repr__(self):
        with lock:
            return "locked"


user.set(Locked())
end = []
threading.Thread(target=lambda: end.append(input())).start()
print("ready", flush=True)
while not end:
    with lock:
        sum(range(100))
print("done")
"""
    ASLEEP = """
import time
from contextvars_cy import ContextVar
print("ready", flush=True)
time.sleep(float(input()))
print("done")
"""
    INTERRUPTED = """
import signal
from contextvars_cy._tracing import answering

def interrupted(say):
    raise KeyboardInterrupt

answering.answer = interrupted
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print("ready", flush=True)
    while True:
        pass
except KeyboardInterrupt:
    print("done")
"""
    WITHOUT = """
print("ready", flush=True)
import threading
threading.Thread(target=input).start()
while threading.active_count() > 1:
    pass
print("done")
"""

    @contextmanager
    def running(
        program: str, cwd: Path, *flags: str, end: str = "end\n", done: str = "done\n", **env: str
    ) -> Iterator[int]:
        """A process that runs the program, and has ended as it would without being looked into."""
        (cwd / "program.py").write_text(ALLOW + program, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, *flags, "program.py"],
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                yield process.pid
                output, errors = process.communicate(end, timeout=60)
                assert (process.returncode, output, errors) == (0, done, "")
            finally:
                process.kill()

    def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    # The loop waits in epoll for minutes.
    @COMBINATIONS
    def test_an_idle_event_loop(backend: str, host: str, tmp_path: Path) -> None:
        env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
        with running(ASYNCIO, tmp_path, done="done 1\n", **env) as pid:
            text = lines(inspect(tmp_path, pid))
            data = json.loads(inspect(tmp_path, "--format=json", pid).stdout)
        assert text[0].startswith(
            f"process {pid}, program.py: Python {sys.version.split()[0]}, {backend} backend, {host}"
        )
        assert data["format"] == 1
        tasks = {task["name"]: task for task in data["tasks"]}
        parent = data["tasks"][tasks["ada"]["awaited_by"][0]]
        assert parent["coroutine"] == "main"
        threads = {thread["name"]: thread for thread in data["threads"]}
        assert data["threads"][tasks["ada"]["thread"]] is threads["MainThread"] is data["threads"][data["here"]]
        # None for itself.
        assert set(threads) == {"MainThread", "beside", "asyncio_0"}
        assert [place[2] for place in tasks["ada"]["places"][:2]] == ["wait", "sleep"]
        (ada,) = (number for number, line in enumerate(text) if line.startswith("    task ada, wait, waits at "))
        if host == "native":
            context = data["contexts"][tasks["ada"]["context"]]
            assert context == {"values": {"user": "'ada'", "password": "<secret>"}, "native_values": {"theirs": "1"}}
            assert text[ada + 1 : ada + 4] == [
                "        password = <secret>",
                "        user = 'ada'",
                "        theirs = 1  (of the standard library)",
            ]
        else:
            assert text[ada + 1] == "        values unknown: on the thread host tasks share their thread's Context"
        beside = threads["beside"]["context"]
        if backend == "pure" and host == "native" or sys.version_info >= (3, 16):
            assert beside is None
        elif getattr(sys, "_is_gil_enabled", lambda: True)() or backend == "pure":
            assert data["contexts"][beside]["values"] == {"user": "'beside'"}

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_value_s_repr_may_take_a_lock_that_the_program_holds(backend: str, tmp_path: Path) -> None:
        with running(BUSY, tmp_path, CONTEXTVARS_CY_BACKEND=backend) as pid:
            for _ in range(5):
                assert "    user = locked" in lines(inspect(tmp_path, pid))

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_process_that_is_blocked_says_where_and_goes_on_undisturbed(backend: str, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        with running(ASLEEP, tmp_path, end="0.1\n", CONTEXTVARS_CY_BACKEND=backend) as pid:
            command = ["-m", "contextvars_cy", "inspect", "--timeout", "0.5", pid]
            told = refusal(run_python(command, tmp_path, {"TMPDIR": str(folder)}))
        assert told.startswith(f"process {pid} has not answered within 0.5 seconds. Only its main thread can")
        assert re.search(r": it is at .*program\.py:\d+ in <module>\. Try again when it goes on", told)
        assert not [*folder.iterdir()]

    def test_an_interrupt_meanwhile_is_the_program_s(tmp_path: Path) -> None:
        with running(INTERRUPTED, tmp_path) as pid:
            told = refusal(inspect(tmp_path, "--timeout", "0.5", pid))
        assert told.startswith(f"process {pid} has begun to answer, but not ended within 0.5 seconds: ")

    def test_it_waits_until_the_process_answers(tmp_path: Path) -> None:
        program = ASLEEP.replace("float(input())", "1").replace('print("done")', "print(input())")
        with running(program, tmp_path, done="end\n") as pid:
            start = time.monotonic()
            assert "thread MainThread at " in inspect(tmp_path, "--timeout", "60", pid).stdout
        assert time.monotonic() - start < 50

    def test_a_program_without_the_package(tmp_path: Path) -> None:
        with running(WITHOUT, tmp_path) as pid:
            told = refusal(inspect(tmp_path, pid))
        assert "it has not imported contextvars_cy" in told and "asyncio pstree" in told

    def test_a_package_of_another_version(tmp_path: Path) -> None:
        program = WITHOUT.replace("\nprint", "\nimport sys\nsys.modules['contextvars_cy'] = sys\nprint", 1)
        with running(program, tmp_path) as pid:
            assert "its contextvars_cy is another version" in refusal(inspect(tmp_path, pid))

    DISABLED: list[Any] = [([], {"PYTHON_DISABLE_REMOTE_DEBUG": "1"}), (["-X", "disable-remote-debug"], {})]

    @pytest.mark.parametrize("flags, env", DISABLED, ids=["variable", "option"])
    def test_remote_debugging_that_is_switched_off(flags: list[str], env: dict[str, str], tmp_path: Path) -> None:
        with running(WITHOUT, tmp_path, *flags, **env) as pid:
            assert "PYTHON_DISABLE_REMOTE_DEBUG" in refusal(inspect(tmp_path, pid))

    def test_what_is_no_process(tmp_path: Path) -> None:
        assert refusal(inspect(tmp_path, "one")) == "inspect needs the number of a process, not 'one'"
        with subprocess.Popen(["true"]) as ended:
            pass
        for pid in (ended.pid, 0, 2**40):
            assert refusal(inspect(tmp_path, pid)) == f"there is no process {pid}"

    def test_a_process_that_is_no_python(tmp_path: Path) -> None:
        with subprocess.Popen(["sleep", "60"]) as process:
            told = refusal(inspect(tmp_path, process.pid))
            process.kill()
        assert told.startswith(f"process {process.pid} ")
        assert "it does not seem to be a Python 3.14 or later" in told or "may not be inspected" in told
