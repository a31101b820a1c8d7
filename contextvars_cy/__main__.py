"""`python -m contextvars_cy`: say which twin runs, or run a program on our context variables.

The arguments are read by hand: what argparse would import must not come before the program's own imports.
"""

from __future__ import annotations

import builtins
import os
import platform
import subprocess
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType, TracebackType
from typing import NoReturn

import contextvars_cy
from contextvars_cy import _backend

USAGE = """\
usage: python -m contextvars_cy info
       python -m contextvars_cy run [--backend B] [--host H] (SCRIPT | -m MODULE) [ARGS...]

info   tells the version, the backend, the host, why, the Python, and where the extension lies
run    runs an unmodified program with `contextvars` replaced by ours, like `python SCRIPT` otherwise

  --backend B   cython or pure; unset, CONTEXTVARS_CY_BACKEND or the better one that works
  --host H      native or thread; unset, CONTEXTVARS_CY_HOST or native
"""
CHOICES = {"--backend": _backend.BACKENDS, "--host": _backend.HOSTS}


def main(arguments: list[str]) -> None:
    command = arguments[0] if arguments else "no command"
    if command in ("-h", "--help") or command == "run" and arguments[1:2] in (["-h"], ["--help"]):
        print(USAGE, end="")
    elif command == "info":
        if len(arguments) > 1:
            _refuse(f"info takes no arguments, got {' '.join(arguments[1:])}")
        print(_info())
    elif command == "run":
        _run(arguments[1:])
    else:
        _refuse(f"{command}: choose one of info, run")


def _refuse(what: str, status: int = 2) -> NoReturn:
    print(f"python -m contextvars_cy: {what}", file=sys.stderr)
    raise SystemExit(status)


def _info() -> str:
    extension = find_spec("contextvars_cy._context_cy")
    rows = {
        "version": contextvars_cy.__version__,
        "backend": f"{_backend.backend} ({_backend.reason})",
        "host": _backend.host,
        "Python": f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})",
        "package": os.path.dirname(__file__),
        "extension": extension.origin if extension else "none",
    }
    return "\n".join(f"{name:<10} {value}" for name, value in rows.items())


def _run(arguments: list[str]) -> None:
    chosen: dict[str, str] = {}
    while arguments and arguments[0].partition("=")[0] in CHOICES:
        option, equals, value = arguments.pop(0).partition("=")
        if not equals:
            value = arguments.pop(0) if arguments else ""
        if value not in CHOICES[option]:
            _refuse(f"{option} {value}: choose one of {', '.join(CHOICES[option])}")
        chosen[option] = value
    as_module = arguments[:1] == ["-m"]
    program = arguments[1:] if as_module else arguments
    if not program:
        _refuse("run needs a SCRIPT or -m MODULE")
    if not as_module and program[0].startswith("-"):
        _refuse(f"run has no option {program[0]}; it has --backend, --host and -m")
    if not as_module and not os.path.exists(program[0]):
        _refuse(f"can't open file {program[0]!r}: no such file")
    _restart_with(chosen, arguments)
    contextvars_cy.install()
    _become(program, as_module)


def _restart_with(chosen: dict[str, str], arguments: list[str]) -> None:
    """Start over in a new interpreter where the backend or the host is another than this one has imported already."""
    running = {"--backend": _backend.backend, "--host": _backend.host}
    if all(running[option] == value for option, value in chosen.items()):
        return
    for option, value in chosen.items():
        os.environ[f"CONTEXTVARS_CY_{option[2:].upper()}"] = value
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    command = [sys.executable, *flags, "-m", "contextvars_cy", "run", *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "win32":
        # There, exec would hand the terminal back before the program has ended.
        raise SystemExit(subprocess.call(command))
    os.execv(sys.executable, command)


def _become(program: list[str], as_module: bool) -> None:
    """Run the program as `__main__`; what this module has on the stack is not shown in its tracebacks."""
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    sys.argv[:] = program
    try:
        code = _module_code(program[0], module) if as_module else _script_code(program[0], module)
        exec(code, module.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        _show_from_the_program_on(error)
        raise


def _script_code(script: str, module: ModuleType) -> CodeType:
    directory = os.path.realpath(os.path.dirname(script))
    spec = PathFinder.find_spec("__main__", [script])
    if spec is not None:
        # A folder or a zip file that has a __main__.py.
        directory = script
    # -P and -I keep Python from putting the program's folder in front.
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = directory
    if spec is not None:
        return _spec_code(spec, module)
    module.__file__ = script
    module.__loader__ = SourceFileLoader("__main__", script)
    module.__dict__["__cached__"] = None
    if os.path.isdir(script):
        _refuse(f"can't find '__main__' module in {script!r}", status=1)
    with open(script, "rb") as file:
        return compile(file.read(), script, "exec", dont_inherit=True)


def _module_code(name: str, module: ModuleType) -> CodeType:
    try:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name += ".__main__"
            spec = find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        spec = None
    if spec is None:
        _refuse(f"No module named {name}", status=1)
    sys.argv[0] = spec.origin or name
    module.__package__ = spec.parent
    return _spec_code(spec, module)


def _spec_code(spec: ModuleSpec, module: ModuleType) -> CodeType:
    module.__spec__ = spec
    module.__file__ = spec.origin
    module.__loader__ = spec.loader
    code = spec.loader.get_code(spec.name) if spec.loader else None  # type: ignore[attr-defined]
    if code is None:
        _refuse(f"No code object available for {spec.name}", status=1)
    return code  # type: ignore[no-any-return]


def _show_from_the_program_on(error: BaseException) -> None:
    traceback: TracebackType | None = error.__traceback__
    while traceback and traceback.tb_frame.f_globals.get("__name__") in (__name__, "importlib._bootstrap_external"):
        traceback = traceback.tb_next
    hook = sys.excepthook

    def show(kind: type[BaseException], value: BaseException, whole: TracebackType | None) -> None:
        hook(kind, value.with_traceback(traceback), traceback)

    sys.excepthook = show


if __name__ == "__main__":
    main(sys.argv[1:])
