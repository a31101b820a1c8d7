"""What an interactive shell shows: the names to complete with, and the signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType

import pytest

import contextvars_cy
from contextvars_cy import (
    Context,
    ContextVar,
    HamtMutation,
    HamtSet,
    Local,
    Proxy,
    Watcher,
    assign,
    bind,
    executors,
    fresh,
    isolated,
    tracing,
)

MODULES = [contextvars_cy, executors, tracing]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_module_completes_its_public_names_alone(module: ModuleType) -> None:
    names = {name for name in dir(module) if not name.startswith("_")}
    assert names - {"executors"} == set(module.__all__)
    assert {"__doc__", "__file__", "__name__"} <= set(dir(module))
    # What is there for whoever asks by name stays.
    assert contextvars_cy._backend.backend == contextvars_cy.backend


def signature(function: Callable[..., object]) -> str:
    """Without annotations, which the compiled functions have none of."""
    found = inspect.signature(function)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in found.parameters.values()]
    return str(found.replace(parameters=bare, return_annotation=found.empty))


class Request(Local):
    def __init__(self, path: object, *, user: object = None) -> None:
        self.path, self.user = path, user


class Below(Request):
    pass


class Made(Local):
    def __new__(cls, size: int) -> Made:
        return super().__new__(cls)


SIGNATURES = [
    (Local, "()"),
    (Request, "(path, *, user=None)"),
    (Below, "(path, *, user=None)"),
    (Made, "(size)"),
    (Proxy, "(var, /)"),
    (Context, "()"),
    (ContextVar, "(name, /, *, default=..., default_factory=None)"),
    (ContextVar.get, "(self, default=..., /)"),
    (assign, "(values, /)"),
    (HamtSet, "(elements=(), /)"),
    (HamtMutation.pop, "(self, key, default=..., /)"),
    (Watcher, "(variable, callback)"),
    (bind, "(fn, /, only=None, *, returns=None)"),
    (isolated, "(target, /)"),
    (fresh, "(keep=())"),
    (fresh()(signature), "(function)"),
    (bind(Request), "(path, *, user=None)"),
    (isolated(signature), "(function)"),
    (executors.ThreadPoolExecutor.map, "(self, fn, *iterables, timeout=None, chunksize=1, **options)"),
]


@pytest.mark.parametrize("function, text", SIGNATURES, ids=[text for _, text in SIGNATURES])
def test_signatures(function: Callable[..., object], text: str) -> None:
    # A constant is all that a function of C can show as a default.
    assert signature(function).replace("=Ellipsis", "=...") == text
