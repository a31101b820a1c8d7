"""A pytest plugin: a test marked `isolated_context`, its fixtures and their teardown run in one fresh Context.

`--contextvars-leaks` names the tests that leave values behind. This lies outside of the package, because pytest loads
it in every run of every project: nothing of contextvars_cy is imported until a test or the option needs it.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Generator
from dataclasses import dataclass
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pytest

if TYPE_CHECKING:
    from contextvars_cy import Context

_NAME = "isolated_context"
_LEAKS = "contextvars_leaks"
_MODES = ("report", "error", "off")


@dataclass
class _Isolation:
    context: Context
    # The values it had at first, and where the test's coroutines run under anyio.
    before: Context
    of_coroutines: Context | None = None


# The running test's, by configuration, because a test of a plugin may run pytest within pytest.
_isolations: WeakKeyDictionary[pytest.Config, _Isolation] = WeakKeyDictionary()


def pytest_addoption(parser: pytest.Parser) -> None:
    said = (
        "name the tests, fixtures and modules that leave values behind in context variables: at the end of the run "
        "(report), or as an error of their teardown (error); off, the default"
    )
    parser.getgroup("contextvars_cy", "context variables").addoption(
        "--contextvars-leaks", choices=_MODES, default=None, dest=_LEAKS, help=said
    )
    parser.addini(_LEAKS, f"{said} (contextvars_cy)", default="off")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{_NAME}: run the test, the fixtures of its own scope, and their teardown in one fresh Context, a copy of "
        "the current one (contextvars_cy)",
    )
    mode = config.getoption(_LEAKS) or config.getini(_LEAKS)
    if mode not in _MODES:
        raise pytest.UsageError(f"{_LEAKS} = {mode}: choose one of {', '.join(_MODES)}")
    if mode != "off":
        from contextvars_cy.integrations._pytest_leaks import Leaks

        leaks = Leaks(config, mode == "error")
        for plugin, name in ((leaks, _LEAKS), (leaks.first, f"{_LEAKS}_first")):
            config.pluginmanager.register(plugin, f"contextvars_cy_{name}")


@pytest.fixture
def isolated_context(request: pytest.FixtureRequest) -> Context:
    """The fresh Context, a copy of the current one, in which the test, its fixtures and their teardown run."""
    isolation = _isolations.get(request.config)
    if isolation is None:
        pytest.fail(f"{_NAME} comes too late here: mark the test, or name the fixture as an argument or in usefixtures")
    return isolation.context


# First of all, so that other plugins make their event loops, and copies of the current Context, within it. Old-style
# wrappers, which every pytest and pluggy takes: wrapped hooks raise nothing in them.
@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, None]:
    if fixturedef.scope == "function":
        _isolate(request.node)
        function = fixturedef.func
        if request.config in _isolations and "anyio_backend" in request.fixturenames:
            fixturedef.func = _in_steps(function, request.config)  # type: ignore[misc]
        yield
        fixturedef.func = function  # type: ignore[misc]
        return
    # Fixtures that other tests share are set up without this test's values, even if its fixtures request them.
    isolation = _isolations.get(request.config)
    if isolation is None or not _is_current(isolation.context):
        yield
        return
    isolation.context.__exit__(None, None, None)
    yield
    isolation.context.__enter__()


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    _isolate(item)
    if item.config not in _isolations or "anyio_backend" not in getattr(item, "fixturenames", ()):
        yield
        return
    assert isinstance(item, pytest.Function)
    function = item.obj
    item.obj = _in_steps(function, item.config)
    yield
    item.obj = function


def _isolate(item: pytest.Item) -> None:
    if item.config in _isolations or not _is_asked_for(item):
        return
    from contextvars_cy import copy_context

    context = copy_context()
    context.__enter__()
    _isolations[item.config] = _Isolation(context, context.copy())
    # Added before the finalizers of the test's fixtures, so it runs after them, and before those of wider scopes.
    item.addfinalizer(lambda: _leave(item.config))


def _is_asked_for(item: pytest.Item) -> bool:
    if item.get_closest_marker(_NAME) is not None:
        return True
    # There is no public way to ask. A project may have its own fixture of that name.
    fixtures = getattr(item, "_fixtureinfo", None)
    definitions: Any = fixtures and fixtures.name2fixturedefs.get(_NAME)
    return bool(definitions) and definitions[-1].func.__module__ == __name__


def _leave(config: pytest.Config) -> None:
    from contextvars_cy import thread_state

    context = _isolations.pop(config).context
    state, left_entered = thread_state(), 0
    # Else all later tests would run in there.
    while not _is_current(context):
        state.exit(state.context)
        left_entered += 1
    context.__exit__(None, None, None)
    if left_entered:
        contexts = "a Context and not left it" if left_entered == 1 else f"{left_entered} Contexts and not left them"
        pytest.fail(f"the test, or a fixture of it, has entered {contexts}")


def _is_current(context: Context) -> bool:
    from contextvars_cy import current_context

    return current_context() is context


# Under anyio the asynchronous fixtures and tests of a module or session may share one task and its Context, so values
# would leak from test to test. (pytest-asyncio and pytest-trio run each test in a copy of the current Context.)


def _in_steps(function: Any, config: pytest.Config) -> Any:
    """The function with every step run in the Context of the test's coroutines; unchanged if it is synchronous."""
    if isinstance(function, types.MethodType):
        return types.MethodType(_in_steps(function.__func__, config), function.__self__)
    if iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            return await _steps(_context_of_coroutines(config), function(*args, **kwargs))

        return coroutine
    if isasyncgenfunction(function):

        @functools.wraps(function)
        async def generator(*args: Any, **kwargs: Any) -> Any:
            context, inner = _context_of_coroutines(config), function(*args, **kwargs)
            yield await _steps(context, inner.__anext__())
            try:
                await _steps(context, inner.__anext__())
            except StopAsyncIteration:
                return
            # The other plugin refuses more than one value.
            yield

        return generator
    return function


def _context_of_coroutines(config: pytest.Config) -> Context:
    """A copy of the Context of anyio's task, with the values of wider fixtures, plus those set in the test's own."""
    isolation = _isolations[config]
    if isolation.of_coroutines is None:
        from contextvars_cy import MISSING, assign, copy_context

        own, before = isolation.context, isolation.before
        isolation.of_coroutines = copy_context()
        changed = {var: value for var, value in own.items() if before.get(var, MISSING) is not value}
        isolation.of_coroutines.run(assign, changed)
    return isolation.of_coroutines


@types.coroutine
def _steps(context: Context, coroutine: Any) -> Generator[Any, Any, Any]:
    step: Callable[[Any], Any] = coroutine.send
    argument = None
    while True:
        try:
            paused = context.run(step, argument)
        except StopIteration as end:
            return end.value
        try:
            step, argument = coroutine.send, (yield paused)
        except BaseException as error:
            step, argument = coroutine.throw, error
