"""`python -m contextvars_cy run`: become the program, as the interpreter does."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from .. import _backend
from .._sealed import PACKAGE


def refuse(what: str, status: int = 2) -> NoReturn:
    print(f"python -m {PACKAGE}: {what}", file=sys.stderr)
    raise SystemExit(status)


def restart_with(chosen: dict[str, str], arguments: list[str]) -> None:
    """Start over in a new interpreter if the backend or host differs from what this one has imported."""
    running = {"--backend": _backend.backend, "--host": _backend.host}
    if all(running[option] == value for option, value in chosen.items()):
        return
    if chosen.get("--backend") == "cython":
        why_not, _ = _backend.obstacle()
        if why_not:
            refuse(f"--backend cython: {'; '.join(filter(None, _backend.explained(why_not)))}")
    for option, value in chosen.items():
        os.environ[f"CONTEXTVARS_CY_{option[2:].upper()}"] = value
    command = [sys.executable, *_interpreter_arguments(), "run", *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "win32":
        # There, exec would return the terminal before the program has ended.
        import subprocess

        raise SystemExit(subprocess.call(command))
    os.execv(sys.executable, command)


def _interpreter_arguments() -> list[str]:
    """The arguments between the interpreter and this module's own: its options, `-m` and the module."""
    if sys.version_info >= (3, 10):
        return sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    import subprocess

    options = subprocess._args_from_interpreter_flags()
    # Options that that function omits, or knows only in part.
    options += [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
    options += ["-u"] if getattr(sys.stdout, "write_through", False) else []
    return [*options, "-m", PACKAGE]


def become(program: list[str], as_module: bool, begin: Callable[[], object] | None = None) -> None:
    """Run the program as `__main__`, and keep this package's frames out of its tracebacks. Its code is found, and that
    of the packages around it has run, when `begin` is called."""
    module = ModuleType("__main__")
    namespace = vars(module)
    namespace["__builtins__"] = builtins
    if "__annotations__" in vars(sys.modules["__main__"]):
        # This interpreter gives every __main__ one from the start.
        namespace["__annotations__"] = {}
    sys.modules["__main__"] = module
    sys.argv[:] = program
    try:
        code = _module_code(program[0], module) if as_module else _script_code(program[0], module)
        if begin is not None:
            begin()
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
        refuse(f"can't find '__main__' module in {script!r}", status=1)
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
    """Put the program first on sys.path, in place of the entry of `-m`."""
    # With -P and -I, Python puts only a folder or a zip file that is the program there.
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
        refuse(f"No module named {name}", status=1)
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
        refuse(f"No code object available for {name}", status=1)
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
    """Whether code of this namespace finds and loads programs; tests the namespace itself, as the program's is called
    __main__ too."""
    return namespace is globals() or namespace.get("__name__", "").partition(".")[0] in ("importlib", "zipimport")
