"""A pytest plugin: a test marked `isolated_context`, its fixtures and their teardown run in one fresh Context.

It stands outside of the package, because pytest loads it in every run of every project: nothing of contextvars_cy is
imported until a test asks for it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from contextvars_cy import Context

_NAME = "isolated_context"
# The Context of the test that runs, in the configuration's stash.
_isolated: pytest.StashKey[Context] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{_NAME}: run the test, the fixtures of its own scope, and their teardown in one fresh Context, a copy of "
        "the current one (contextvars_cy)",
    )


@pytest.fixture
def isolated_context(request: pytest.FixtureRequest) -> Context:
    """The fresh Context, a copy of the current one, in which the test, its fixtures and their teardown run."""
    return request.config.stash[_isolated]


# First of all, so that other plugins make their event loops, and copies of the current Context, within it.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    if fixturedef.scope == "function":
        _isolate(request.node)
        return (yield)
    # What serves other tests too is set up without this one's values, even where this one's fixtures ask for it.
    context = request.config.stash.get(_isolated, None)
    if context is None or not _is_current(context):
        return (yield)
    context.__exit__(None, None, None)
    try:
        return (yield)
    finally:
        context.__enter__()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    _isolate(item)
    return (yield)


def _isolate(item: pytest.Item) -> None:
    if _isolated in item.config.stash or not _is_asked_for(item):
        return
    from contextvars_cy import copy_context

    context = copy_context()
    context.__enter__()
    item.config.stash[_isolated] = context
    # Before any fixture of the test has a finalizer, and so the last to run; those of wider scopes follow.
    item.addfinalizer(lambda: _leave(item.config))


def _is_asked_for(item: pytest.Item) -> bool:
    if item.get_closest_marker(_NAME) is not None:
        return True
    # There is no public way to ask. A project may well have a fixture of that name itself.
    fixtures = getattr(item, "_fixtureinfo", None)
    definitions: Any = fixtures and fixtures.name2fixturedefs.get(_NAME)
    return bool(definitions) and definitions[-1].func.__module__ == __name__


def _leave(config: pytest.Config) -> None:
    context = config.stash[_isolated]
    del config.stash[_isolated]
    context.__exit__(None, None, None)


def _is_current(context: Context) -> bool:
    from contextvars_cy import current_context

    return current_context() is context
