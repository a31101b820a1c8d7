"""Which test, fixture or module leaves values behind in context variables: `--contextvars-leaks` of the pytest plugin.

All run in one Context of pytest's, one after the other. What has changed there is compared at the beginning and the end
of each: a value of a fixture that is still alive is no leak of a test. Nothing is taken back.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import types
import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any

import pytest

from .. import MISSING, ContextVar, current_context
from .._context.debug import current_task
from .._context.standard_library import copy_native_context
from .._tracing.contexts import is_anchor
from ._left import Places, shown_of

# By variable, of ours or of the standard library.
_Values = dict[Any, Any]
# What travels in a report, from a worker of xdist too.
_Leak = dict[str, str]

_SETUP = re.compile(r"_(?:xunit|unittest)_(setup_\w+?|setUp\w*?)_fixture")
_TITLE = "values left behind in context variables"
_ADVICE = "Reset what is set, or give tests a Context of their own: @pytest.mark.isolated_context"


@dataclass
class _Lifetime:
    """What a fixture that outlives tests has changed."""

    changes: _Values = field(default_factory=dict)
    before: _Values = field(default_factory=dict)
    at_teardown: _Values = field(default_factory=dict)


class Leaks:
    """The hooks; `first`, another plugin, has those that have to come before all others."""

    def __init__(self, config: pytest.Config, is_error: bool) -> None:
        self.first = _First(self)
        self._root = str(config.rootpath)
        self._is_error = is_error
        self._context = current_context()
        self._places = Places()
        self._following = ExitStack()
        self._following.enter_context(self._places.following(None))
        self._following.enter_context(self._places.following(self._context))
        # Of the running test.
        self._item: pytest.Item | None = None
        self._expected = _values()
        self._by_fixture: dict[Any, tuple[str, Any]] = {}
        self._task = _SharedTask()
        self._is_in_teardown = False
        # The values at the beginning of each fixture that is being set up, without what inner ones have changed since.
        self._windows: list[_Values] = []
        self._pending: list[_Leak] = []
        self._told: dict[tuple[str, str, str], _Leak] = {}

    # ---- modules ----

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, Any, None]:
        before = _values()
        outcome = yield
        if not isinstance(collector, pytest.Module):
            return
        leaks = self._leaks(f"module {collector.nodeid}", _changed(before, _values()))
        if leaks and self._is_error:
            report: pytest.CollectReport = outcome.get_result()
            if report.passed:
                report.outcome = "failed"
                report.longrepr = _text(leaks)
                return
        self._pending += leaks

    # ---- fixtures ----

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, None]:
        is_wide = fixturedef.scope != "function"
        label = _label(fixturedef)
        lifetime = _Lifetime()
        if is_wide:
            # The first that is added is the last that is called.
            fixturedef.addfinalizer(lambda: self._end_fixture(label, lifetime))
        function = fixturedef.func
        if not is_wide and "anyio_backend" in request.fixturenames:
            fixturedef.func = self._task.noting(function)  # type: ignore[misc]
        before = _values()
        self._windows.append(before)
        yield
        self._windows.pop()
        fixturedef.func = function  # type: ignore[misc]
        now = _values()
        changes = {var: now.get(var, MISSING) for var in {**before, **now} if not _is_same(var, before, now)}
        for window in self._windows:
            _update(window, changes)
        for var, value in changes.items():
            self._by_fixture[var] = label, value
        if is_wide:
            _update(self._expected, changes)
            lifetime.changes, lifetime.before = changes, before
            fixturedef.addfinalizer(lambda: lifetime.at_teardown.update(_values()))

    def _end_fixture(self, label: str, lifetime: _Lifetime) -> None:
        now = _values()
        left = {}
        for var, value in _changed(lifetime.before, now).items():
            # What others have set meanwhile is theirs.
            if lifetime.changes.get(var, MISSING) is value or not _is_same(var, lifetime.at_teardown, now):
                left[var] = value
        self._found(label, left)

    # ---- tests ----

    @pytest.hookimpl(hookwrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, None]:
        # Whatever hooks of a project have set.
        self._expected = _values()
        self._by_fixture.clear()
        self._task.forget()
        self._item = None
        yield

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, None]:
        if "anyio_backend" not in getattr(item, "fixturenames", ()) or not isinstance(item, pytest.Function):
            yield
            return
        function = item.obj
        item.obj = self._task.noting(function)
        yield
        item.obj = function

    def begin_test(self, item: pytest.Item) -> None:
        """Have the end of the test noticed after its fixtures' end, and before the end of wider ones."""
        if self._item is not item:
            self._item = item
            item.addfinalizer(lambda: self._end_test(item))

    def _end_test(self, item: pytest.Item) -> None:
        now = _values()
        left = {**self._task.left(), **_changed(self._expected, now)}
        self._expected = now
        self._found(item.nodeid, left)

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, Any, None]:
        self._is_in_teardown = True
        yield
        self._is_in_teardown = False

    # ---- what is told ----

    def _leaks(self, owner: str, left: _Values) -> list[_Leak]:
        leaks = []
        for var, value in sorted(left.items(), key=lambda pair: str(pair[0].name)):
            leak = {"owner": owner, "text": f"{var.name} = {shown_of(var, value)}"}
            if type(var) is not ContextVar:
                leak["text"] += " (a variable of the standard library)"
            label, of_fixture = self._by_fixture.get(var, ("", MISSING))
            if of_fixture is value and label != owner:
                leak["text"] += f", by {label}"
            place = self._places.of(var, value, self._context) if type(var) is ContextVar else None
            if place is not None:
                leak["place"] = f"{self._relative(place.file)}:{place.line} in {place.function}"
            leaks.append(leak)
        return leaks

    def _found(self, owner: str, left: _Values) -> None:
        leaks = self._leaks(owner, left)
        if not leaks:
            return
        if self._is_error and self._is_in_teardown:
            pytest.fail(_text(leaks), pytrace=False)
        self._pending += leaks

    def _relative(self, file: str) -> str:
        return os.path.relpath(file, self._root) if file.startswith(self._root + os.sep) else file

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
        outcome = yield
        if call.when == "teardown" and self._pending:
            outcome.get_result().contextvars_leaks = self._pending
            self._pending = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._collect(getattr(report, "contextvars_leaks", ()))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["contextvars_leaks"] = self._pending

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._collect(getattr(node, "workeroutput", {}).get("contextvars_leaks", ()))

    def _collect(self, leaks: Iterable[_Leak]) -> None:
        for leak in leaks:
            # Each worker of xdist imports the modules.
            self._told.setdefault((leak["owner"], leak["text"], leak.get("place", "")), leak)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        self._collect(self._pending)
        if self._told:
            terminalreporter.section(_TITLE)
            for leak in self._told.values():
                terminalreporter.line(f"{leak['owner']}: {_in_words(leak)}")
            terminalreporter.line(_ADVICE)

    def pytest_unconfigure(self) -> None:
        self._following.close()


class _First:
    """What has to come before a test enters its own Context, so that its end comes after that is left."""

    def __init__(self, leaks: Leaks) -> None:
        self._leaks = leaks

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, None]:
        if fixturedef.scope == "function":
            self._leaks.begin_test(request.node)
        yield

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, None]:
        self._leaks.begin_test(item)
        yield


class _SharedTask:
    """The task, and the Context, that anyio may run the asynchronous parts of many tests in."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._before: _Values | None = None
        self._after: _Values = {}
        self._coroutine: Callable[[], Any] = lambda: None

    def noting(self, function: Any) -> Any:
        """The function, with the values in its task noted at its beginning and end; unchanged if it is synchronous."""
        if isinstance(function, types.MethodType):
            return types.MethodType(self.noting(function.__func__), function.__self__)
        if iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                self._note()
                try:
                    return await function(*args, **kwargs)
                finally:
                    self._note()

            return coroutine
        if isasyncgenfunction(function):

            @functools.wraps(function)
            async def generator(*args: Any, **kwargs: Any) -> Any:
                self._note()
                inner = function(*args, **kwargs)
                try:
                    value = await inner.__anext__()
                finally:
                    self._note()
                yield value
                try:
                    await inner.__anext__()
                except StopAsyncIteration:
                    return
                finally:
                    self._note()
                # The other plugin refuses more than one value.
                yield

            return generator
        return function

    def _note(self) -> None:
        values = _values()
        if self._before is None:
            self._before = values
            task = current_task()
            if task is not None:
                self._coroutine = weakref.ref(task.get_coro() if hasattr(task, "get_coro") else task.coro)
        self._after = values

    def left(self) -> _Values:
        """What the test has left to the next one in its task; nothing if the task has ended with the test."""
        if self._before is None or getattr(self._coroutine(), "cr_frame", None) is None:
            return {}
        return _changed(self._before, self._after)


def _values() -> _Values:
    """All values in the current Context, and in the interpreter's."""
    values: _Values = {var: value for var, value in current_context().copy().items() if type(var) is ContextVar}
    for var, value in copy_native_context().items():
        if not (is_anchor(var, value) or var.name == "warnings_context" or _is_new_decimal_context(value)):
            values[var] = value
    return values


def _is_new_decimal_context(value: object) -> bool:
    """Whether it is what `decimal` makes by itself when it is used for the first time."""
    decimal = sys.modules.get("decimal")
    if decimal is None or type(value) is not decimal.Context:
        return False
    settings = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp", "traps")
    return all(getattr(value, name) == getattr(decimal.DefaultContext, name) for name in settings)


def _is_same(var: Any, before: _Values, now: _Values) -> bool:
    return before.get(var, MISSING) is now.get(var, MISSING)


def _changed(before: _Values, now: _Values) -> _Values:
    return {var: value for var, value in now.items() if not _is_same(var, before, now)}


def _update(values: _Values, changes: _Values) -> None:
    for var, value in changes.items():
        if value is MISSING:
            values.pop(var, None)
        else:
            values[var] = value


def _label(fixturedef: Any) -> str:
    setup = _SETUP.match(fixturedef.argname)
    name = setup[1] if setup else f"{fixturedef.scope} fixture {fixturedef.argname!r}"
    return f"{name} of {fixturedef.baseid}" if fixturedef.baseid else name


def _in_words(leak: _Leak) -> str:
    return f"{leak['text']}, set at {leak['place']}" if "place" in leak else leak["text"]


def _text(leaks: list[_Leak]) -> str:
    lines = [
        f"{leaks[0]['owner']} left values behind in context variables:",
        *(f"  {_in_words(leak)}" for leak in leaks),
    ]
    return "\n".join([*lines, _ADVICE])
