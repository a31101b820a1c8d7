"""The implementations of context variables, all loaded into one process.

A twin and its host are chosen when the package is imported, and the interpreter loads an extension once for each file.
So each of our four is a copy of the package, in a folder of its own, imported with an environment of its own.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

from .context_operations import ATTRIBUTES, EXTRACONTEXT, NOT_FOLLOWED, Own, own_statements
from .measuring import INSTALL_GROUP, BenchError

WHAT_STATEMENTS_USE = Path(__file__).with_name("variables.py")


class Subject(NamedTuple):
    """A loaded implementation: its statements, the names that they use, and a way to run them."""

    own: Own
    namespace: dict[str, Any]
    inside: Callable[[int], Callable[..., Any]]
    """Returns a caller of functions with so many variables set; for one thread at a time."""


class Implementation(NamedTuple):
    distribution: str
    load: Callable[[], Subject]


@contextlib.contextmanager
def set_aside(package: str) -> Iterator[None]:
    """Remove the package from `sys.modules`, so that another may have its name for a while."""

    def take() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] == package]
        return {name: sys.modules.pop(name) for name in names}

    original = take()
    try:
        yield
    finally:
        take()
        sys.modules.update(original)


def run_file(path: Path, name: str, module: ModuleType) -> ModuleType:
    """Run a file as a separate module, which imports this module under the name `contextvars`."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    with set_aside("contextvars"):
        sys.modules["contextvars"] = module
        spec.loader.exec_module(made)
    return made


def variables(module: ModuleType, followed: bool) -> Subject:
    """An implementation that has the names of `contextvars`."""
    own = own_statements(module)
    if not followed:
        own.update(NOT_FOLLOWED)
    namespace: dict[str, Any] = vars(run_file(WHAT_STATEMENTS_USE, "variables", module))
    return Subject(own, namespace, lambda size: namespace["filled"](size).run)


def attributes(local: Any, own: Own) -> Subject:
    """An implementation whose variables are the attributes of an object."""

    def inside(size: int) -> Callable[..., Any]:
        # In its own Context, since the attributes of extracontext are variables of the standard library.
        context = contextvars.Context()
        return lambda function, *arguments: context.run(fill_and_call, size, function, *arguments)

    def fill_and_call(size: int, function: Callable[..., Any], *arguments: Any) -> Any:
        for number in range(size):
            setattr(local, f"v{number}", "one")
        return function(*arguments)

    return Subject(own, {"local": local, "one": "one", "two": "two"}, inside)


def ours(backend: str, host: str) -> Subject:
    spec = importlib.util.find_spec("contextvars_cy")
    if spec is None or spec.origin is None:
        raise BenchError(f"{backend}-{host} needs the package contextvars_cy; run pip install --editable .")
    environment = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, environment), set_aside("contextvars_cy"):
        shutil.copytree(Path(spec.origin).parent, Path(folder, "contextvars_cy"))
        sys.path.insert(0, folder)
        try:
            module = importlib.import_module("contextvars_cy")
        except (ImportError, RuntimeError) as error:
            raise BenchError(f"{backend}-{host}: {error}") from error
        finally:
            sys.path.remove(folder)
    return variables(module, host == "native")


def backport() -> Subject:
    """This module is named `contextvars` too, and the standard library's comes first: load it from its file."""
    try:
        file = importlib.metadata.distribution("contextvars").locate_file("contextvars/__init__.py")
        module = run_file(Path(str(file)), "contextvars", contextvars)
    except ImportError as error:
        raise missing("backport", "contextvars", error) from error
    return variables(module, followed=False)


def extracontext() -> Subject:
    try:
        import extracontext
    except ImportError as error:
        raise missing("extracontext", "python-extracontext", error) from error
    local = extracontext.ContextLocal()
    subject = attributes(local, EXTRACONTEXT)
    subject.namespace["scoped"] = local(partial(setattr, local, "v0"))
    return subject


def missing(name: str, distribution: str, error: ImportError) -> BenchError:
    return BenchError(f"{name} needs the package {distribution}: {error}; run {INSTALL_GROUP}")


IMPLEMENTATIONS = {
    "stdlib": Implementation("Python", partial(variables, contextvars, followed=True)),
    "cython-thread": Implementation("contextvars_cy", partial(ours, "cython", "thread")),
    "cython-native": Implementation("contextvars_cy", partial(ours, "cython", "native")),
    "pure-thread": Implementation("contextvars_cy", partial(ours, "pure", "thread")),
    "pure-native": Implementation("contextvars_cy", partial(ours, "pure", "native")),
    "backport": Implementation("contextvars", backport),
    "extracontext": Implementation("python-extracontext", extracontext),
    "threading.local": Implementation("Python", lambda: attributes(threading.local(), ATTRIBUTES)),
}
