"""`python -m contextvars_cy inspect PID`: ask a process for a snapshot of itself.

`sys.remote_exec` has the main thread of the process run a script when it next runs Python code. It writes the answer to
a folder that only this user, and the process, can read.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time

from .._install.run import refuse
from .._places import Place
from .._sealed import PACKAGE
from .inspecting import FORMAT, Snapshot
from .texts import printable

FORMATS = ("text", "json")
# Seconds.
TIMEOUT = 5.0
_FIRST_WAKE, _PAUSE = 0.1, 0.01
_IS_LINUX = sys.platform.startswith("linux")

# It prints nothing and raises nothing, whatever happens.
_SCRIPT = """\
def answer(folder):
    import _thread
    import os
    import sys

    def say(text):
        path = os.path.join(folder, "answer")
        try:
            number = os.open(path + ".part", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            os.rename(path + ".part", path)
        except BaseException:
            # The other side has given up.
            pass

    try:
        os.close(os.open(os.path.join(folder, "begun"), os.O_WRONLY | os.O_CREAT, 0o600))
        if {package!r} not in sys.modules:
            return say("not imported")
        from {package}._tracing.answering import answer

        answer(say)
    except KeyboardInterrupt:
        # It was meant for the program.
        _thread.start_new_thread(_thread.interrupt_main, ())
    except BaseException as error:
        say(type(error).__name__ + ": " + str(error))


answer({folder!r})
del answer
"""


def inspect(process: str, format: str, timeout: float) -> str:
    """The process's snapshot in this format; every reason why there is none is a refusal."""
    if not hasattr(sys, "remote_exec"):
        refuse(
            "inspect needs Python 3.14 or later, with sys.remote_exec, here and in the process that it looks into; "
            f"this is {sys.implementation.name} {sys.version.partition(' ')[0]}"
        )
    if not (process.isascii() and process.isdigit()):
        refuse(f"inspect needs the number of a process, not {process!r}")
    pid = int(process)
    _check_that_it_runs(pid)
    folder = tempfile.mkdtemp(prefix=f"{PACKAGE}-")
    try:
        text = _answer(pid, folder, timeout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise ValueError
        return json.dumps(data) + "\n" if format == "json" else str(Snapshot(data))
    except (ValueError, LookupError, TypeError, AttributeError):
        refuse(f"process {pid} could not be inspected: {_reason(text)}")


def _reason(text: str) -> str:
    if text == "not imported":
        return f"it has not imported {PACKAGE}, so it has no Contexts of ours; python -m asyncio pstree shows its tasks"
    if text.startswith("{"):
        return f"its {PACKAGE} is another version, whose answer this one cannot read"
    if text.startswith(("ImportError", "ModuleNotFoundError")):
        return f"its {PACKAGE} is another version, or still being imported ({printable(text)})"
    return printable(text)


def _check_that_it_runs(pid: int) -> None:
    # On Windows this would end it.
    if os.name == "posix":
        try:
            if pid == 0:
                raise ProcessLookupError
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            refuse(f"there is no process {pid}")
        except PermissionError:
            _refuse_for_want_of_rights(pid)


def _refuse_for_want_of_rights(pid: int) -> None:
    needed = {
        "linux": "the user of the process, with /proc/sys/kernel/yama/ptrace_scope at 0, or root, or CAP_SYS_PTRACE",
        "darwin": "root",
        "win32": "SeDebugPrivilege",
    }
    refuse(f"process {pid} may not be inspected by this user: needed is {needed.get(sys.platform, 'the same user')}")


def _answer(pid: int, folder: str, timeout: float) -> str:
    script = os.path.join(folder, "script.py")
    with open(script, "w", encoding="utf-8") as file:
        file.write(_SCRIPT.format(package=PACKAGE, folder=folder))
    owner = _owner(pid)
    if owner is not None:
        for path in (script, folder):
            os.chown(path, *owner)
    if os.path.exists(f"/proc/{pid}/root") and not _sees(pid, script):
        refuse(f"process {pid} has other files than this command, as in a container: run the command there")
    _execute(pid, script)
    path, begun = os.path.join(folder, "answer"), os.path.join(folder, "begun")
    answered = False
    try:
        end, wake = time.monotonic() + timeout, time.monotonic() + _FIRST_WAKE
        while not os.path.lexists(path):
            now = time.monotonic()
            if now > end:
                _refuse_to_wait(pid, timeout, os.path.lexists(begun))
            if now > wake:
                _check_that_it_runs(pid)
                _wake(pid)
                wake = now + 5 * _FIRST_WAKE
            time.sleep(_PAUSE)
        answered = True
        return _read(path)
    finally:
        if not answered and not os.path.lexists(begun):
            _take_back(pid)


def _owner(pid: int) -> tuple[int, int] | None:
    """For root: the process's user and group, who must read the script."""
    if os.name != "posix" or os.geteuid() != 0:
        return None
    try:
        found = os.stat(f"/proc/{pid}")
        return found.st_uid, found.st_gid
    except OSError:
        pass
    done = subprocess.run(["ps", "-o", "uid=,gid=", "-p", str(pid)], capture_output=True, text=True)
    numbers = done.stdout.split()
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else None


def _sees(pid: int, path: str) -> bool:
    try:
        return os.path.samefile(f"/proc/{pid}/root{path}", path)
    except PermissionError:
        # The call that follows says so better.
        return True
    except OSError:
        return False


def _execute(pid: int, script: str) -> None:
    try:
        sys.remote_exec(pid, script)  # type: ignore[attr-defined,unused-ignore]
    except PermissionError:
        _refuse_for_want_of_rights(pid)
    except ProcessLookupError:
        refuse(f"there is no process {pid}")
    except (OSError, RuntimeError) as error:
        text = str(error)
        if "not enabled" in text:
            text = (
                "remote debugging is switched off there: by PYTHON_DISABLE_REMOTE_DEBUG, -X disable-remote-debug, or "
                "how its Python was built"
            )
        elif "Can't send commands" in text:
            text = f"{text}; run this command with the Python of the process"
        elif "PyRuntime" in text or "debug" in text:
            text = f"it does not seem to be a Python 3.14 or later ({text})"
        refuse(f"process {pid} could not be inspected: {text}")


def _take_back(pid: int) -> None:
    """Have the process run nothing in place of the script, which it would not find any more, and say so."""
    try:
        sys.remote_exec(pid, os.devnull)  # type: ignore[attr-defined,unused-ignore]
    except (OSError, RuntimeError):
        return
    # It may just be opening the script.
    time.sleep(5 * _PAUSE)


def _read(path: str) -> str:
    # Root reads what another user has written.
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with open(number, encoding="utf-8") as file:
        return file.read() if stat.S_ISREG(os.fstat(number).st_mode) else ""


def _refuse_to_wait(pid: int, timeout: float, begun: bool) -> None:
    longer = "give it longer with --timeout SECONDS"
    if begun:
        refuse(f"process {pid} has begun to answer, but not ended within {timeout:g} seconds: {longer}")
    place = _main_thread_place(pid)
    where = "" if place is None else f": it is at {printable(str(place))}"
    refuse(
        f"process {pid} has not answered within {timeout:g} seconds. Only its main thread can, when it runs Python; "
        f"it waits in C code, for a lock, a sleep or a long computation{where}. Try again when it goes on, or {longer}"
    )


def _main_thread_place(pid: int) -> Place | None:
    """The innermost line of the main thread, which this Python reads from outside of the process, if it can."""
    try:
        from _remote_debugging import RemoteUnwinder  # type: ignore[import-not-found,unused-ignore]

        (first, *_) = RemoteUnwinder(pid).get_stack_trace()
        # From Python 3.15 on, by interpreters.
        (thread, *_) = getattr(first, "threads", [first])
        (frame, *_) = thread.frame_info
        line = frame.location.lineno if hasattr(frame, "location") else frame.lineno
        return Place(frame.filename, line, frame.funcname)
    except Exception:
        # It is private, and may change.
        return None


# ---- waking an event loop ----

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WAIT_FOR_ANY = 0x40000000


def _wake(pid: int) -> None:
    """On Linux, have an event loop that waits in epoll look round once, which without an event it may not do for hours.

    A debugger's stop ends the call with EINTR, which every caller expects, as a signal does; the program is told of no
    signal. Other calls go on as if nothing had been.
    """
    if not _IS_LINUX:
        return
    try:
        with open(f"/proc/{pid}/wchan") as file:
            waits_in = file.read()
        if not waits_in.endswith(("ep_poll", "epoll_wait")):
            return
        import ctypes

        ptrace = ctypes.CDLL(None).ptrace
        ptrace.argtypes, ptrace.restype = [ctypes.c_long] * 4, ctypes.c_long
        if ptrace(_SEIZE, pid, 0, 0) == -1:
            return
        try:
            ptrace(_INTERRUPT, pid, 0, 0)
            end = time.monotonic() + 1
            while os.waitpid(pid, os.WNOHANG | _WAIT_FOR_ANY)[0] != pid and time.monotonic() < end:
                time.sleep(_PAUSE / 10)
        finally:
            ptrace(_DETACH, pid, 0, 0)
    except (OSError, ImportError, AttributeError):
        # It was a courtesy.
        pass


def parsed_timeout(text: str) -> float:
    try:
        timeout = float(text)
    except ValueError:
        timeout = -1.0
    if not 0 < timeout < 1e6:
        refuse(f"--timeout {text}: it needs a number of seconds")
    return timeout
