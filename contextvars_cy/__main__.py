"""`python -m contextvars_cy`: say which twin runs, or run a program on our context variables.

The arguments are read by hand: what argparse would import must not come before the program's own imports.
"""

from __future__ import annotations

import builtins
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from . import __version__, _backend, install

USAGE = f"""\
usage: python -m {__package__} info
       python -m {__package__} run [--backend B] [--host H] (SCRIPT | -m MODULE) [ARGS...]
       python -m {__package__} --version | --help
"""
HELP = f"""\
{USAGE}
info   tells the version, the backend, the host, why, the Python, and where the extension lies
run    runs an unmodified program with `contextvars` replaced by ours, like `python SCRIPT` otherwise

  --backend B   cython or pure; unset, CONTEXTVARS_CY_BACKEND or the better one that works
  --host H      native or thread; unset, CONTEXTVARS_CY_HOST or native
"""
HELP_OPTIONS = ("-h", "--help")
CHOICES = {"--backend": _backend.BACKENDS, "--host": _backend.HOSTS}


def main(arguments: list[str]) -> None:
    command = arguments[0] if arguments else ""
    if command in HELP_OPTIONS or command == "info" and any(option in arguments for option in HELP_OPTIONS):
        _say(HELP)
    elif command in ("-V", "--version"):
        _say(f"contextvars_cy {__version__}\n")
    elif command == "info":
        if len(arguments) > 1:
            _refuse(f"info takes no arguments but --help, got {' '.join(arguments[1:])}")
        _say(_info())
    elif command == "run":
        _run(arguments[1:])
    elif not command:
        print(USAGE, end="", file=sys.stderr)
        _refuse("a command is needed: info or run")
    elif command.startswith("-"):
        _refuse(f"there is no option {command}: choose one of info, run, --version, --help")
    else:
        _refuse(f"there is no command {command}: choose one of info, run")


def _refuse(what: str, status: int = 2) -> NoReturn:
    print(f"python -m {__package__}: {what}", file=sys.stderr)
    raise SystemExit(status)


def _say(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except OSError as error:
        # What was not written stays in the buffer, and would fail once more at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            _refuse(f"the output cannot be written: {error}", status=1)
        # The reader has enough.
        raise SystemExit(1) from None


def _info() -> str:
    import platform

    extension = find_spec(_backend.EXTENSIONS[-1])
    reason, remedy = _backend.reason, ""
    if reason == _backend.MISSING:
        reason, remedy = _backend.explained(reason)
    rows = {
        "version": __version__,
        "backend": f"{_backend.backend} ({reason})",
        "remedy": remedy,
        "host": _backend.host,
        "Python": f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})",
        "package": os.path.dirname(__file__),
        "extension": extension.origin if extension else "none",
    }
    return "".join(f"{name:<10} {value}\n" for name, value in rows.items() if value)


def _run(arguments: list[str]) -> None:
    chosen: dict[str, str] = {}
    while arguments and arguments[0].partition("=")[0] in CHOICES:
        option, equals, value = arguments.pop(0).partition("=")
        if not equals:
            value = arguments.pop(0) if arguments else ""
        if value not in CHOICES[option]:
            _refuse(f"{option} {value or 'needs a value'}: choose one of {', '.join(CHOICES[option])}")
        chosen[option] = value
    if arguments and arguments[0] in HELP_OPTIONS:
        return _say(HELP)
    as_module = arguments[:1] == ["-m"]
    program = arguments[1:] if as_module else arguments
    if not program:
        _refuse("run needs a SCRIPT or -m MODULE")
    if not as_module and program[0].startswith("-"):
        _refuse(f"run has no option {program[0]}; it has --backend, --host, -m and --help")
    if not as_module and not os.path.exists(program[0]):
        _refuse(f"can't open file {program[0]!r}: no such file")
    _restart_with(chosen, arguments)
    install()
    _become(program, as_module)


def _restart_with(chosen: dict[str, str], arguments: list[str]) -> None:
    """Start over in a new interpreter where the backend or the host is another than this one has imported already."""
    running = {"--backend": _backend.backend, "--host": _backend.host}
    if all(running[option] == value for option, value in chosen.items()):
        return
    if chosen.get("--backend") == "cython":
        why_not, _ = _backend.obstacle()
        if why_not:
            _refuse(f"--backend cython: {'; '.join(filter(None, _backend.explained(why_not)))}")
    for option, value in chosen.items():
        os.environ[f"CONTEXTVARS_CY_{option[2:].upper()}"] = value
    command = [sys.executable, *_interpreter_arguments(), "run", *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "win32":
        # There, exec would hand the terminal back before the program has ended.
        import subprocess

        raise SystemExit(subprocess.call(command))
    os.execv(sys.executable, command)


def _interpreter_arguments() -> list[str]:
    """What stood between the interpreter and this module's own arguments: its options, `-m` and the module."""
    if sys.version_info >= (3, 10):
        return sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    import subprocess

    options = subprocess._args_from_interpreter_flags()
    # What that function leaves out, or knows only in part.
    options += [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
    options += ["-u"] if getattr(sys.stdout, "write_through", False) else []
    return [*options, "-m", __package__]


def _become(program: list[str], as_module: bool) -> None:
    """Run the program as `__main__`; what this module has on the stack is not shown in its tracebacks."""
    module = ModuleType("__main__")
    namespace = vars(module)
    namespace["__builtins__"] = builtins
    if "__annotations__" in globals():
        # This interpreter gives every __main__ one from the start.
        namespace["__annotations__"] = {}
    sys.modules["__main__"] = module
    sys.argv[:] = program
    try:
        code = _module_code(program[0], module) if as_module else _script_code(program[0], module)
        exec(code, namespace)
    except SystemExit:
        raise
    except BaseException as error:
        _show_from_the_program_on(error)
        raise


def _script_code(script: str, module: ModuleType) -> CodeType:
    path = os.path.join(os.getcwd(), script)
    spec = PathFinder.find_spec("__main__", [path])
    if spec is not None:
        # A folder or a zip file that has a __main__.py.
        _put_first_on_the_path(path, always=True)
        return _spec_code(spec, module)
    if os.path.isdir(script):
        _refuse(f"can't find '__main__' module in {script!r}", status=1)
    _put_first_on_the_path(os.path.dirname(os.path.realpath(path)))
    module.__file__ = path
    vars(module)["__cached__"] = None
    if path.endswith(".pyc"):
        module.__loader__ = loader = SourcelessFileLoader("__main__", path)
        return _checked_code(loader.get_code("__main__"), script)
    module.__loader__ = SourceFileLoader("__main__", path)
    with open(path, "rb") as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def _put_first_on_the_path(entry: str, always: bool = False) -> None:
    """Put the program in front of sys.path, in the place of what `-m` had put there."""
    # -P and -I keep Python from putting anything there but a folder or a zip file that is the program.
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = entry
    elif always:
        sys.path.insert(0, entry)


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
    return _spec_code(spec, module)


def _spec_code(spec: ModuleSpec, module: ModuleType) -> CodeType:
    module.__spec__ = spec
    module.__file__ = spec.origin
    vars(module)["__cached__"] = spec.cached
    module.__loader__ = spec.loader
    module.__package__ = spec.parent
    return _checked_code(spec.loader.get_code(spec.name) if spec.loader else None, spec.name)  # type: ignore[attr-defined]


def _checked_code(code: CodeType | None, name: str) -> CodeType:
    if code is None:
        _refuse(f"No code object available for {name}", status=1)
    return code


def _show_from_the_program_on(error: BaseException) -> None:
    traceback: TracebackType | None = error.__traceback__
    while traceback and _is_machinery(traceback.tb_frame.f_globals):
        traceback = traceback.tb_next
    hook = sys.excepthook

    def show(kind: type[BaseException], value: BaseException, whole: TracebackType | None) -> None:
        hook(kind, value.with_traceback(traceback), traceback)

    sys.excepthook = show


def _is_machinery(namespace: dict[str, Any]) -> bool:
    """Whether code of this namespace finds and loads programs; the namespace itself is asked, as the program's too is
    called __main__."""
    return namespace is globals() or namespace.get("__name__", "").partition(".")[0] in ("importlib", "zipimport")


if __name__ == "__main__":
    main(sys.argv[1:])
