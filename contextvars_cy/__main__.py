"""`python -m contextvars_cy`: say which twin runs, run a program on our context variables, record what it does, or
look into a running one.

The arguments are read by hand, because argparse's imports must not come before the program's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Iterator
from importlib.util import find_spec

from . import __version__, _backend, install
from ._install.children import hold_in_children
from ._install.run import become, refuse, restart_with

USAGE = f"""\
usage: python -m {__package__} info
       python -m {__package__} run [--backend B] [--host H] (SCRIPT | -m MODULE) [ARGS...]
       python -m {__package__} trace [--only NAME]... [--format F] [-o FILE] (SCRIPT | -m MODULE) [ARGS...]
       python -m {__package__} inspect [--format F] [--timeout S] PID
       python -m {__package__} --version | --help
"""
HELP = f"""\
{USAGE}
info   tells the version, the backend, the host, why, the Python, and where the extension lies
run    runs an unmodified program with `contextvars` replaced by ours, like `python SCRIPT` otherwise

  --backend B   cython or pure; unset, CONTEXTVARS_CY_BACKEND or the better one that works
  --host H      native or thread; unset, CONTEXTVARS_CY_HOST or native

trace  runs it so too, and writes what happened to its context variables

  --only NAME   record this variable alone; may be given again
  --format F    html, a page for the browser, is the default; json; or text
  -o FILE       where to write it; unset, trace.html, trace.json or trace.txt

inspect  shows the threads and tasks of a running process, where they are, and the values in their Contexts

  --format F    text is the default; or json
  --timeout S   seconds to wait for its answer; 5 is the default
"""
HELP_OPTIONS = ("-h", "--help")
CHOICES = {"--backend": _backend.BACKENDS, "--host": _backend.HOSTS}
TRACE_OPTIONS = ("--only", "--format", "-o")
INSPECT_OPTIONS = ("--format", "--timeout")
COMMANDS = ("info", "run", "trace", "inspect")


def main(arguments: list[str]) -> None:
    command = arguments[0] if arguments else ""
    if command in HELP_OPTIONS or command == "info" and any(option in arguments for option in HELP_OPTIONS):
        _say(HELP)
    elif command in ("-V", "--version"):
        _say(f"contextvars_cy {__version__}\n")
    elif command == "info":
        if len(arguments) > 1:
            refuse(f"info takes no arguments but --help, got {' '.join(arguments[1:])}")
        _say(_info())
    elif command == "run":
        _run(arguments[1:])
    elif command == "trace":
        _trace(arguments[1:])
    elif command == "inspect":
        _inspect(arguments[1:])
    elif not command:
        print(USAGE, end="", file=sys.stderr)
        refuse(f"a command is needed: {', '.join(COMMANDS)}")
    elif command.startswith("-"):
        refuse(f"there is no option {command}: choose one of {', '.join(COMMANDS)}, --version, --help")
    else:
        refuse(f"there is no command {command}: choose one of {', '.join(COMMANDS)}")


def _say(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except OSError as error:
        # Unwritten text stays in the buffer, and would fail again at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            refuse(f"the output cannot be written: {error}", status=1)
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
    for option, value in _options_in(arguments, CHOICES):
        if value not in CHOICES[option]:
            refuse(f"{option} {value or 'needs a value'}: choose one of {', '.join(CHOICES[option])}")
        chosen[option] = value
    program, as_module = _program_in(arguments, "run", "--backend, --host, -m and --help")
    restart_with(chosen, arguments)
    install()
    hold_in_children()
    become(program, as_module)


def _trace(arguments: list[str]) -> None:
    from ._tracing.command import FORMATS, trace

    only: list[str] = []
    chosen = {"--format": "html"}
    for option, value in _options_in(arguments, TRACE_OPTIONS):
        if not value:
            refuse(f"{option} needs a value")
        if option == "--only":
            only.append(value)
        elif option == "--format" and value not in FORMATS:
            refuse(f"--format {value}: choose one of {', '.join(FORMATS)}")
        else:
            chosen[option] = value
    program, as_module = _program_in(arguments, "trace", "--only, --format, -o, -m and --help")
    trace(program, as_module, only, chosen["--format"], chosen.get("-o"))


def _inspect(arguments: list[str]) -> None:
    from ._tracing.asking import FORMATS, TIMEOUT, inspect, parsed_timeout

    format, timeout = "text", TIMEOUT
    if any(argument in HELP_OPTIONS for argument in arguments):
        return _say(HELP)
    for option, value in _options_in(arguments, INSPECT_OPTIONS):
        if option == "--timeout":
            timeout = parsed_timeout(value)
        elif value in FORMATS:
            format = value
        else:
            refuse(f"--format {value or 'needs a value'}: choose one of {', '.join(FORMATS)}")
    if arguments and arguments[0].startswith("-"):
        refuse(f"inspect has no option {arguments[0]}; it has --format, --timeout and --help")
    if len(arguments) != 1:
        refuse(f"inspect needs one PID, the number of a process, got {' '.join(arguments) or 'none'}")
    _say(inspect(arguments[0], format, timeout))


def _options_in(arguments: list[str], known: Container[str]) -> Iterator[tuple[str, str]]:
    """Take the options from the front of the arguments: each with its value, "" if that is missing."""
    while arguments and arguments[0].partition("=")[0] in known:
        option, equals, value = arguments.pop(0).partition("=")
        if not equals:
            value = arguments.pop(0) if arguments else ""
        yield option, value


def _program_in(arguments: list[str], command: str, options: str) -> tuple[list[str], bool]:
    """The program and its arguments, and whether it is a module."""
    if arguments and arguments[0] in HELP_OPTIONS:
        _say(HELP)
        raise SystemExit
    as_module = arguments[:1] == ["-m"]
    program = arguments[1:] if as_module else arguments
    if not program:
        refuse(f"{command} needs a SCRIPT or -m MODULE")
    if not as_module and program[0].startswith("-"):
        refuse(f"{command} has no option {program[0]}; it has {options}")
    if not as_module and not os.path.exists(program[0]):
        refuse(f"can't open file {program[0]!r}: no such file")
    return program, as_module


if __name__ == "__main__":
    main(sys.argv[1:])
