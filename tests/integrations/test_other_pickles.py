"""Bound functions in the pickles of other libraries, which take lambdas and local functions."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest

from contextvars_cy import ContextVar, bind, travel

USER = ContextVar("user", default="nobody")


def seen(*more: object) -> list[object]:
    return [USER.get(), *more]


@pytest.mark.usefixtures("nothing_registered", "context_of_its_own")
@pytest.mark.parametrize("name", ["cloudpickle", "dill"])
def test_bound_lambdas_and_local_functions(name: str) -> None:
    travel.register(USER, "user")
    library = importlib.import_module(name)

    def local(more: str) -> list[object]:
        return [get(), more]

    get: Callable[[], object] = USER.get
    with USER.set("ada"):
        data = library.dumps([bind(local), bind(lambda: USER.get().upper()), bind(seen), USER])
    with USER.set("of the other process"):
        arrived_local, arrived_lambda, arrived_seen, arrived_var = library.loads(data)
        assert arrived_local("more") == ["ada", "more"]
        assert arrived_lambda() == "ADA"
        assert arrived_seen(1) == ["ada", 1]
    assert arrived_var is USER
