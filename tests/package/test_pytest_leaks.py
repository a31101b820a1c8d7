"""The pytest plugin's --contextvars-leaks: who leaves a value behind is named, with the value and its place."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable

import pytest

pytest_plugins = "pytester"

# By name, as in test_pytest_plugin.py.
PLUGIN = ["-p", "pytest_contextvars_cy", "-p", "no:cacheprovider", "-W", "error"]
ALONE = ["-p", "no:anyio", "-p", "no:asyncio", "-p", "no:trio", "-p", "no:hypothesispytest"]
ANYIO = ["-p", "no:asyncio", "-p", "no:trio", "-p", "no:hypothesispytest"]
ASYNCIO = ["-p", "no:anyio", "-p", "no:trio", "-p", "no:hypothesispytest"]
ASYNCIO += ["-o", "asyncio_default_fixture_loop_scope=function"]

COMMON = """
import asyncio
import contextvars
import decimal
import pytest
from contextvars_cy import Context, ContextVar, assign, copy_context, fresh

USER = ContextVar("user", default="nobody")
ROLE = ContextVar("role", default="-")
THEIRS = contextvars.ContextVar("theirs", default="nothing")

def sign_in(name):
    USER.set(name)
"""

Leaks = Callable[..., list[str]]


def told(done: pytest.RunResult) -> list[str]:
    """The lines of the section at the end."""
    text = done.stdout.str()
    section = re.search(r"^=+ values left behind in context variables =+\n(.*?)\nReset what is set", text, re.M | re.S)
    return section[1].splitlines() if section else []


@pytest.fixture
def leaks(pytester: pytest.Pytester) -> Leaks:
    """Run tests, and return what is told, without the numbers of lines."""

    def leaks(source: str, *options: str, plugins: Iterable[str] = ALONE, **outcomes: int) -> list[str]:
        pytester.makepyfile(test_it=COMMON + source)
        done = pytester.runpytest_subprocess(*PLUGIN, *plugins, "--contextvars-leaks=report", *options)
        done.assert_outcomes(**outcomes)
        return [re.sub(r"\.py:\d+", ".py:N", line) for line in told(done)]

    return leaks


ONE = """
def test_one():
    sign_in("ada")

def test_two():
    assert USER.get() == "ada"
"""
ONE_TOLD = ["test_it.py::test_one: user = 'ada', set at test_it.py:N in sign_in"]


@pytest.mark.parametrize("host", ["native", "thread"])
@pytest.mark.parametrize("backend", ["pure", "cython"])
def test_a_test_on_each_backend_and_host(
    leaks: Leaks, monkeypatch: pytest.MonkeyPatch, backend: str, host: str
) -> None:
    monkeypatch.setenv("CONTEXTVARS_CY_BACKEND", backend)
    monkeypatch.setenv("CONTEXTVARS_CY_HOST", host)
    source = """
def test_theirs():
    THEIRS.set("left")
"""
    assert leaks(ONE + source, passed=3) == [
        *ONE_TOLD,
        "test_it.py::test_theirs: theirs = 'left' (a variable of the standard library)",
    ]


def test_the_line_is_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=COMMON + ONE)
    done = pytester.runpytest_subprocess(*PLUGIN, *ALONE, "--contextvars-leaks=report")
    line = (COMMON + ONE).splitlines().index("    USER.set(name)")
    assert told(done) == [f"test_it.py::test_one: user = 'ada', set at test_it.py:{line} in sign_in"]


def test_a_secret_is_not_told(leaks: Leaks) -> None:
    source = """
from contextvars_cy.tracing import secret

@pytest.fixture(autouse=True)
def kept_secret():
    secret(USER)

class Ends:
    def __repr__(self):
        raise SystemExit

def test_it():
    USER.set("hunter2")
    ROLE.set(Ends())
"""
    assert leaks(source, passed=1) == [
        "test_it.py::test_it: role = <Ends, whose repr raises SystemExit>, set at test_it.py:N in test_it",
        "test_it.py::test_it: user = <secret>, set at test_it.py:N in test_it",
    ]


def test_what_leaves_nothing_is_not_told(leaks: Leaks) -> None:
    source = """
@pytest.fixture
def signed_in():
    token = USER.set("ada")
    yield
    USER.reset(token)

@pytest.fixture
def in_a_context():
    with copy_context():
        sign_in("ada")
        yield

@pytest.fixture
def native():
    token = THEIRS.set("ada")
    yield
    THEIRS.reset(token)

def test_reset(signed_in, native):
    with assign({USER: "eve", ROLE: "admin"}), ROLE.unset():
        pass

def test_context(in_a_context):
    sign_in("eve")

def test_fresh():
    with fresh():
        sign_in("eve")
        THEIRS.set("eve")

def test_decimals():
    decimal.Decimal(1) / 3
    with decimal.localcontext() as numbers:
        numbers.prec = 3

async def later():
    sign_in("eve")

def test_task():
    asyncio.run(later())

@pytest.mark.isolated_context
class TestIsolated:
    def test_one(self, signed_in):
        sign_in("eve")
        THEIRS.set("eve")

@pytest.mark.skip
def test_skipped(): pass
"""
    assert leaks(source, passed=6, skipped=1) == []


def test_decimals_that_are_changed(leaks: Leaks) -> None:
    source = """
def test_it():
    decimal.setcontext(decimal.Context(prec=3))
"""
    (line,) = leaks(source, passed=1)
    assert line.startswith("test_it.py::test_it: decimal_context = Context(prec=3, ")


def test_the_value_is_cut_and_in_one_line(leaks: Leaks) -> None:
    source = r"""
class Loud:
    def __repr__(self):
        return "a\n\x1b[31m" + "x" * 1000

def test_it():
    USER.set(Loud())
    ROLE.set(list(range(10 ** 6)))
"""
    role, user = leaks(source, passed=1)
    assert role.startswith("test_it.py::test_it: role = [0, 1, 2, 3, 4, 5, ...], set at")
    assert re.match(r"test_it.py::test_it: user = a \?\[31mx+\.\.\.x+, set at", user) and len(user) < 160


# ---- fixtures ----


def test_the_fixture_of_a_test_is_named(leaks: Leaks) -> None:
    source = """
@pytest.fixture
def signed_in():
    sign_in("ada")
    THEIRS.set("ada")

def test_it(signed_in): pass
"""
    by = "by function fixture 'signed_in' of test_it.py"
    assert leaks(source, passed=1) == [
        f"test_it.py::test_it: theirs = 'ada' (a variable of the standard library), {by}",
        f"test_it.py::test_it: user = 'ada', {by}, set at test_it.py:N in sign_in",
    ]


WIDE = """
@pytest.fixture(scope="SCOPE")
def tidy():
    token, theirs = USER.set("wide"), THEIRS.set("wide")
    yield
    USER.reset(token)
    THEIRS.reset(theirs)

@pytest.fixture(scope="SCOPE")
def untidy(tidy):
    ROLE.set("untidy")

@pytest.fixture
def asks_late(request):
    with ROLE.set("of the test"):
        request.getfixturevalue("tidy")
        yield

class TestThem:
    def test_late(self, asks_late): pass
    def test_one(self, tidy): pass
    def test_two(self, untidy): pass
    def test_three(self, untidy):
        with USER.set("three"): pass
"""


@pytest.mark.parametrize("scope", ["class", "module", "package", "session"])
def test_values_of_a_fixture_that_is_alive_are_no_leak(leaks: Leaks, scope: str) -> None:
    of = "test_it.py"
    assert leaks(WIDE.replace("SCOPE", scope), passed=4) == [
        f"{scope} fixture 'untidy' of {of}: role = 'untidy', set at test_it.py:N in untidy"
    ]


def test_isolated_tests_of_such_fixtures(leaks: Leaks) -> None:
    source = "pytestmark = pytest.mark.isolated_context\n" + WIDE.replace("SCOPE", "module")
    assert leaks(source, passed=4) == [
        "module fixture 'untidy' of test_it.py: role = 'untidy', set at test_it.py:N in untidy"
    ]


def test_a_test_that_replaces_a_fixtures_value(leaks: Leaks) -> None:
    source = """
@pytest.fixture(scope="module")
def wide():
    token = USER.set("wide")
    yield
    USER.reset(token)

def test_one(wide): USER.set("one")
def test_two(wide): pass
"""
    assert leaks(source, passed=2) == ["test_it.py::test_one: user = 'one', set at test_it.py:N in test_one"]


def test_a_fixture_that_sets_in_its_teardown_or_fails(leaks: Leaks) -> None:
    source = """
@pytest.fixture(scope="module")
def late():
    yield
    USER.set("late")

@pytest.fixture(scope="module")
def fails():
    ROLE.set("failed")
    raise ZeroDivisionError

def test_one(late): pass
def test_two(fails): pass
"""
    assert sorted(leaks(source, passed=1, errors=1)) == [
        "module fixture 'fails' of test_it.py: role = 'failed', set at test_it.py:N in fails",
        "module fixture 'late' of test_it.py: user = 'late', set at test_it.py:N in late",
    ]


def test_a_fixture_with_parameters(leaks: Leaks) -> None:
    source = """
@pytest.fixture(scope="module", params=["a", "b"])
def wide(request):
    token = USER.set(request.param)
    ROLE.set(request.param)
    yield
    USER.reset(token)

def test_one(wide): pass
def test_two(wide): pass
"""
    assert leaks(source, passed=4) == [
        f"module fixture 'wide' of test_it.py: role = {name!r}, set at test_it.py:N in wide" for name in "ab"
    ]


def test_setups_of_modules_and_classes(leaks: Leaks) -> None:
    source = """
import unittest

def setup_module(): USER.set("of the module")

class TestIt:
    @classmethod
    def setup_class(cls): cls.token = ROLE.set("of the class")
    @classmethod
    def teardown_class(cls): ROLE.reset(cls.token)
    def test_one(self): pass

class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls): ROLE.set("of the case")
    def setUp(self): THEIRS.set("of the case's test")
    def test_one(self): pass
"""
    assert leaks(source, passed=2) == [
        'test_it.py::Case::test_one: theirs = "of the case\'s test" (a variable of the standard library)',
        "setUpClass of test_it.py::Case: role = 'of the case', set at test_it.py:N in setUpClass",
        "setup_module of test_it.py: user = 'of the module', set at test_it.py:N in setup_module",
    ]


def test_hooks_of_a_project_that_surround_tests(pytester: pytest.Pytester, leaks: Leaks) -> None:
    hooks = """
import pytest
from test_it import ROLE, THEIRS, USER

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol():
    with ROLE.set("of a hook"):
        yield

def pytest_runtest_setup(item):
    item.token = THEIRS.set("of a hook")

def pytest_runtest_teardown(item):
    THEIRS.reset(item.token)
"""
    pytester.makeconftest(hooks)
    assert leaks("def test_it(): pass", passed=1) == []


# ---- modules ----


def test_a_module(pytester: pytest.Pytester, leaks: Leaks) -> None:
    pytester.makepyfile(application="from contextvars_cy import ContextVar\nContextVar('theme').set('dark')")
    source = """
import application
def test_it(): pass
"""
    assert leaks(source, passed=1) == ["module test_it.py: theme = 'dark', set at application.py:N in <module>"]
    assert leaks("USER.set('ada')") == ["module test_it.py: user = 'ada', set at test_it.py:N in <module>"]


# ---- errors ----


@pytest.mark.parametrize("option", ["--contextvars-leaks=error", "ini"])
def test_an_error_is_the_teardowns(pytester: pytest.Pytester, option: str) -> None:
    source = """
@pytest.fixture(scope="module")
def untidy():
    ROLE.set("untidy")
    yield

def test_three(untidy): pass
"""
    pytester.makepyfile(test_it=COMMON + ONE + source)
    options = ["-o", "contextvars_leaks=error"] if option == "ini" else [option]
    done = pytester.runpytest_subprocess(*PLUGIN, *ALONE, *options)
    done.assert_outcomes(passed=3, errors=2)
    done.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_one*",
            "test_it.py::test_one left values behind in context variables:",
            "  user = 'ada', set at test_it.py:* in sign_in",
            "*ERROR at teardown of test_three*",
            "module fixture 'untidy' of test_it.py left values behind in context variables:",
            "  role = 'untidy', set at test_it.py:* in untidy",
            "Reset what is set, or give tests a Context of their own: @pytest.mark.isolated_context",
        ]
    )
    assert told(done) == []


def test_a_module_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=COMMON + "USER.set('ada')\ndef test_it(): pass", test_other="def test_it(): pass")
    options = [*PLUGIN, *ALONE, "--contextvars-leaks=error"]
    done = pytester.runpytest_subprocess(*options)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*ERROR collecting test_it.py*", "  user = 'ada', set at test_it.py:* in <module>"])
    pytester.runpytest_subprocess(*options, "--continue-on-collection-errors").assert_outcomes(passed=1, errors=1)


def test_what_a_test_or_fixture_raises_itself_is_told_too(pytester: pytest.Pytester) -> None:
    source = """
@pytest.fixture
def fails_late():
    yield
    1 / 0

def test_one(fails_late):
    sign_in("ada")
    assert not "mine"
"""
    pytester.makepyfile(test_it=COMMON + source)
    done = pytester.runpytest_subprocess(*PLUGIN, *ALONE, "--contextvars-leaks=error")
    done.assert_outcomes(failed=1, errors=1)
    for text in ("ZeroDivisionError", "user = 'ada'", "mine"):
        assert text in done.stdout.str()


@pytest.mark.parametrize("mode", ["report", "error"])
def test_a_run_that_is_stopped_tears_wider_fixtures_down_later(pytester: pytest.Pytester, mode: str) -> None:
    source = """
@pytest.fixture(scope="session")
def untidy():
    ROLE.set("untidy")
    yield

def test_one(untidy): 1 / 0
def test_two(untidy): pass
"""
    pytester.makepyfile(test_it=COMMON + source)
    done = pytester.runpytest_subprocess(*PLUGIN, *ALONE, "-x", f"--contextvars-leaks={mode}")
    assert "INTERNALERROR" not in done.stdout.str()
    assert "role = 'untidy', set at test_it.py:" in done.stdout.str()


# ---- the option ----


def test_without_it_nothing_is_told_or_imported(pytester: pytest.Pytester) -> None:
    source = """
import sys
def test_it(): assert not any(name.startswith("contextvars_cy") for name in sys.modules)
"""
    pytester.makepyfile(test_it=source)
    for options in ([], ["--contextvars-leaks=off", "-o", "contextvars_leaks=error"]):
        pytester.runpytest_subprocess(*PLUGIN, *ALONE, *options).assert_outcomes(passed=1)


def test_a_wrong_setting_is_an_error(pytester: pytest.Pytester) -> None:
    for options in (["--contextvars-leaks=all"], ["-o", "contextvars_leaks=all"]):
        done = pytester.runpytest_subprocess(*PLUGIN, *ALONE, *options)
        assert done.ret == pytest.ExitCode.USAGE_ERROR
        assert "report" in done.stderr.str() and "error" in done.stderr.str()
    assert "contextvars_leaks = all: choose one of report, error, off" in done.stderr.str()


def test_it_is_told_by_help(pytester: pytest.Pytester) -> None:
    text = pytester.runpytest_subprocess(*PLUGIN, *ALONE, "--help").stdout.str()
    assert "--contextvars-leaks={report,error,off}" in text and "contextvars_leaks (string)" in text


def test_a_program_that_runs_on_ours(pytester: pytest.Pytester) -> None:
    source = """
import contextvars
VAR = contextvars.ContextVar("var")
def test_it(): VAR.set("left")
"""
    pytester.makepyfile(test_it=source)
    command = [sys.executable, "-m", "contextvars_cy", "run", "-m", "pytest"]
    done = pytester.run(*command, *PLUGIN, *ALONE, "--contextvars-leaks=report")
    (line,) = told(done)
    assert re.fullmatch(r"test_it.py::test_it: var = 'left', set at test_it.py:\d+ in test_it", line)


# ---- beside other plugins ----


@pytest.mark.parametrize("mode", ["report", "error"])
def test_xdist(pytester: pytest.Pytester, mode: str) -> None:
    pytester.makepyfile(test_it=COMMON + ONE, test_other=COMMON + "ROLE.set('module')\ndef test_it(): sign_in('eve')")
    done = pytester.runpytest_subprocess(*PLUGIN, *ALONE, "-n2", "--dist=loadfile", f"--contextvars-leaks={mode}")
    text = done.stdout.str()
    if mode == "report":
        done.assert_outcomes(passed=3)
        assert [re.sub(r"\.py:\d+", ".py:N", line) for line in sorted(told(done))] == [
            "module test_other.py: role = 'module', set at test_other.py:N in <module>",
            *ONE_TOLD,
            "test_other.py::test_it: user = 'eve', set at test_other.py:N in sign_in",
        ]
    else:
        assert "ERROR collecting test_other.py" in text and "role = 'module', set at test_other.py:" in text


ASYNC = """
pytestmark = MARK

@FIXTURE
async def tidy():
    token = USER.set("tidy")
    await PAUSE(0)
    yield
    USER.reset(token)

async def test_tidy(tidy):
    assert USER.get() == "tidy"
    with ROLE.set("admin"):
        await PAUSE(0)

async def test_in_a_task_of_its_own():
    await PAUSE(0)
    ROLE.set("gone with the task")
"""


def write(mark: str, fixture: str, pause: str) -> str:
    return ASYNC.replace("MARK", mark).replace("FIXTURE", fixture).replace("PAUSE", pause)


@pytest.mark.parametrize("scope", ["function", "session"])
def test_pytest_asyncio(leaks: Leaks, scope: str) -> None:
    source = "import pytest_asyncio\n" + write(
        f"pytest.mark.asyncio(loop_scope={scope!r})", f"pytest_asyncio.fixture(loop_scope={scope!r})", "asyncio.sleep"
    )
    source += """
@pytest.mark.filterwarnings("ignore:.*is not an async")
def test_sync():
    sign_in("ada")
"""
    assert leaks(source, plugins=ASYNCIO, passed=3) == [
        "test_it.py::test_sync: user = 'ada', set at test_it.py:N in sign_in"
    ]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(leaks: Leaks, backend: str) -> None:
    source = "import anyio\n" + write("pytest.mark.anyio", "pytest.fixture", "anyio.sleep")
    source += f"\n@pytest.fixture\ndef anyio_backend():\n    return {backend!r}\n"
    source += "\ndef test_sync():\n    sign_in('ada')\n"
    assert leaks(source, plugins=ANYIO, passed=3) == [
        "test_it.py::test_sync: user = 'ada', set at test_it.py:N in sign_in"
    ]


SHARED = """
import anyio

pytestmark = pytest.mark.anyio

@pytest.fixture(scope="module")
def anyio_backend():
    return BACKEND

@pytest.fixture(scope="module")
async def engine():
    token = USER.set("engine")
    yield
    USER.reset(token)

@pytest.fixture
async def tidy(engine):
    token = ROLE.set("tidy")
    yield
    ROLE.reset(token)

async def test_tidy(tidy):
    assert (USER.get(), ROLE.get()) == ("engine", "tidy")

class TestLeaving:
    @pytest.fixture
    async def untidy(self, engine):
        ROLE.set("untidy")

    async def test_by_a_fixture(self, untidy):
        await anyio.sleep(0)

    async def test_itself(self, engine):
        assert ROLE.get() == "untidy"
        await anyio.sleep(0)
        THEIRS.set("left")
        sign_in("ada")

async def test_last(engine):
    assert (USER.get(), ROLE.get()) == ("ada", "untidy")
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_where_tests_share_a_task(leaks: Leaks, backend: str) -> None:
    source = SHARED.replace("BACKEND", repr(backend))
    assert leaks(source, plugins=ANYIO, passed=4) == [
        "test_it.py::TestLeaving::test_by_a_fixture: role = 'untidy', set at test_it.py:N in untidy",
        "test_it.py::TestLeaving::test_itself: theirs = 'left' (a variable of the standard library)",
        "test_it.py::TestLeaving::test_itself: user = 'ada', set at test_it.py:N in sign_in",
    ]
    marks = "[pytest.mark.anyio, pytest.mark.isolated_context]"
    isolated = source.partition("    async def test_itself")[0].replace("pytest.mark.anyio", marks)
    assert leaks(isolated, plugins=ANYIO, passed=2) == []
