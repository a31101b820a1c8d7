"""The pytest plugin: a test that asks for it runs, with its fixtures and their teardown, in one fresh Context."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

pytest_plugins = "pytester"

Run = Callable[..., pytest.RunResult]

EXAMPLE = Path(__file__).parents[2] / "examples" / "test_with_isolated_context.py"

# By name, which finds it where it is not installed, and does no harm where it is. Other plugins only where a test asks.
PLUGIN = ["-p", "pytest_contextvars_cy"]
ALONE = [*PLUGIN, "-p", "no:anyio", "-p", "no:asyncio", "-p", "no:trio", "-p", "no:hypothesispytest"]

COMMON = """
import asyncio
import contextvars
import pytest
from contextvars_cy import ContextVar, Context, copy_context, current_context

USER = ContextVar("user", default="nobody")
THEIRS = contextvars.ContextVar("theirs", default="nothing")
outside = current_context()
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    def run(source: str, *options: str, plugins: Iterable[str] = ALONE, **outcomes: int) -> pytest.RunResult:
        pytester.makepyfile(COMMON + source)
        done = pytester.runpytest_subprocess(*plugins, "-W", "error", "-p", "no:cacheprovider", *options)
        done.assert_outcomes(**outcomes)
        return done

    return run


def test_it_is_inert_until_a_test_asks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_without():
            assert "contextvars_cy" not in sys.modules
            assert "pytest_contextvars_cy" in sys.modules

        def test_with(isolated_context):
            assert "contextvars_cy" in sys.modules
        """
    )
    done = pytester.runpytest_subprocess(*ALONE, "-W", "error")
    done.assert_outcomes(passed=2)


def test_it_does_no_harm_where_the_package_cannot_be_imported(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTEXTVARS_CY_BACKEND", "nonsense")
    pytester.makepyfile("def test(): pass")
    pytester.runpytest_subprocess(*ALONE, "-W", "error").assert_outcomes(passed=1)


def test_pytest_does_not_warn_that_the_package_was_there_before(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = pytester.mkdir("installed-1.dist-info")
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1\n", encoding="utf-8")
    (installed / "RECORD").write_text("contextvars_cy/__init__.py,,\n", encoding="utf-8")
    plugin = "[pytest11]\npytest_contextvars_cy = pytest_contextvars_cy\n"
    (installed / "entry_points.txt").write_text(plugin, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=os.pathsep)
    pytester.makepyfile("def test(): pass")
    done = pytester.run(sys.executable, "-m", "contextvars_cy", "run", "-m", "pytest", *ALONE, "-W", "error")
    done.assert_outcomes(passed=1)


def test_the_mark_and_the_fixture_are_told(pytester: pytest.Pytester) -> None:
    assert "@pytest.mark.isolated_context:" in pytester.runpytest_subprocess(*ALONE, "--markers").stdout.str()
    fixtures = pytester.runpytest_subprocess(*ALONE, "--fixtures").stdout.str()
    assert "isolated_context -- " in fixtures
    assert "The fresh Context, a copy of the current one" in fixtures


def test_without_the_mark_values_leak_as_ever(run: Run) -> None:
    run(
        """
def test_one():
    USER.set("one")

def test_two():
    assert USER.get() == "one"
""",
        passed=2,
    )


@pytest.mark.parametrize(
    "how",
    [
        "pytestmark = pytest.mark.isolated_context",
        "pytestmark = pytest.mark.usefixtures('isolated_context')",
        "@pytest.fixture(autouse=True)\ndef all_tests(isolated_context): pass",
    ],
)
def test_values_do_not_leak(run: Run, how: str) -> None:
    run(
        how
        + """

class TestInAClass:
    def test_one(self):
        assert (USER.get(), THEIRS.get()) == ("nobody", "nothing")
        USER.set("one")
        THEIRS.set("one")

@pytest.mark.parametrize("name", ["a", "b"])
def test_two(name):
    assert (USER.get(), THEIRS.get()) == ("nobody", "nothing")
    USER.set(name)
    THEIRS.set("two")

def teardown_module():
    assert current_context() is outside
    assert USER.get() == "nobody"
""",
        passed=3,
    )


FIXTURES = """
seen = []

@pytest.fixture(autouse=True)
def before_all_others():
    seen.append(current_context())
    token = USER.set("autouse")
    yield
    seen.append(current_context())
    USER.reset(token)
    assert USER.get() == "nobody"

@pytest.fixture
def user(before_all_others):
    seen.append(current_context())
    token = USER.set("ada")
    yield
    seen.append(current_context())
    assert USER.get() == "set by the test"
    USER.set("by a teardown")
    USER.reset(token)
    assert USER.get() == "autouse"

def setup_function():
    seen.append(current_context())

def teardown_function():
    seen.append(current_context())
"""


@pytest.mark.parametrize("asked", ["@pytest.mark.isolated_context\ndef test(user", "def test(user, isolated_context"])
def test_fixtures_the_test_and_their_teardown_share_one_context(run: Run, asked: str) -> None:
    run(
        FIXTURES
        + asked
        + """):
    assert USER.get() == "ada"
    USER.set("set by the test")
    seen.append(current_context())

def teardown_module():
    assert len(seen) == 7
    assert all(context is seen[0] for context in seen)
    assert seen[0] is not outside
    assert current_context() is outside
""",
        passed=1,
    )


def test_the_fixture_s_value_is_the_context(run: Run) -> None:
    run(
        """
def test(isolated_context):
    assert type(isolated_context) is Context
    assert current_context() is isolated_context
    USER.set("ada")
    assert isolated_context[USER] == "ada"
""",
        passed=1,
    )


def test_the_fixture_cannot_be_asked_for_late(run: Run) -> None:
    done = run(
        """
def test(request):
    request.getfixturevalue("isolated_context")
""",
        failed=1,
    )
    assert "isolated_context comes too late here: mark the test, or name the fixture" in done.stdout.str()


WIDER = """
@pytest.fixture(scope="SCOPE")
def wide():
    assert current_context() is outside
    token = USER.set("wide")
    yield "wide"
    assert current_context() is outside
    USER.reset(token)

@pytest.fixture
def asks_late(request):
    USER.set("mine")
    assert request.getfixturevalue("wide") == "wide"
    assert USER.get() == "mine"
"""


@pytest.mark.parametrize("scope", ["class", "module", "package", "session"])
def test_fixtures_of_a_wider_scope_stay_outside_and_are_seen(run: Run, scope: str) -> None:
    run(
        WIDER.replace("SCOPE", scope)
        + """
@pytest.mark.isolated_context
class TestOne:
    def test_one(self, wide):
        assert USER.get() == "wide"
        USER.set("by one")

    def test_two(self, wide):
        assert USER.get() == "wide"

@pytest.mark.isolated_context
def test_three(wide):
    assert USER.get() == "wide"
""",
        passed=3,
    )


@pytest.mark.parametrize("scope", ["module", "session"])
def test_a_wider_fixture_that_a_test_asks_for_late(run: Run, scope: str) -> None:
    run(
        WIDER.replace("SCOPE", scope)
        + """
@pytest.mark.isolated_context
def test_one(asks_late):
    pass

@pytest.mark.isolated_context
def test_two(wide):
    assert USER.get() == "wide"
""",
        passed=2,
    )


def test_errors_and_skips_anywhere_leave_nothing_behind(run: Run) -> None:
    run(
        """
@pytest.fixture
def fails():
    USER.set("fails")
    raise ZeroDivisionError

@pytest.fixture
def skips():
    USER.set("skips")
    pytest.skip("now")

@pytest.fixture
def fails_late():
    yield
    USER.set("fails late")
    raise ZeroDivisionError

@pytest.mark.isolated_context
class TestThem:
    def test_fails(self, fails): pass
    def test_skips(self, skips): pass
    def test_fails_late(self, fails_late): pass
    def test_itself(self): 1 / 0

def test_afterwards():
    assert current_context() is outside
    assert USER.get() == "nobody"
""",
        passed=2,
        failed=1,
        errors=2,
        skipped=1,
    )


def test_a_context_that_a_test_leaves_entered_is_its_error(run: Run) -> None:
    done = run(
        """
@pytest.mark.isolated_context
def test():
    Context().__enter__()

@pytest.mark.isolated_context
def test_after():
    assert USER.get() == "nobody"

""",
        passed=2,
        errors=1,
    )
    assert "has entered a Context and not left it" in done.stdout.str()


def test_unittest(run: Run) -> None:
    run(
        """
import unittest

@pytest.mark.isolated_context
class Case(unittest.TestCase):
    def setUp(self):
        self.context = current_context()
        USER.set("set up")

    def tearDown(self):
        assert current_context() is self.context is not outside

    def test_one(self):
        assert USER.get() == "set up"

def test_afterwards():
    assert USER.get() == "nobody"
""",
        passed=2,
    )


def test_a_fixture_of_that_name_that_a_project_has_itself(run: Run) -> None:
    run(
        """
@pytest.fixture
def isolated_context():
    return "ours"

def test(isolated_context):
    assert isolated_context == "ours"
    assert current_context() is outside
""",
        passed=1,
    )


# ---- asynchronous fixtures and tests ----

ASYNC = """
pytestmark = [MARK, pytest.mark.isolated_context]

@pytest.fixture
def before():
    token = USER.set("before")
    yield
    USER.reset(token)
    assert USER.get() == "nobody"

@FIXTURE
async def user(before):
    assert USER.get() == "before"
    token = USER.set("ada")
    await PAUSE(0)
    yield
    assert USER.get() in ("ada", "by the test")
    USER.reset(token)
    assert USER.get() == "before"

async def read():
    await PAUSE(0)
    return USER.get()

async def test_it_sees_its_fixtures(user):
    assert await read() == "ada"
    USER.set("by the test")
    assert await read() == "by the test"

async def test_it_sees_nothing_of_another():
    assert await read() == "nobody"
    USER.set("by the other")

async def test_a_token_is_used_where_it_was_made(user):
    token = USER.set("for a while")
    await PAUSE(0)
    USER.reset(token)
    assert USER.get() == "ada"

def test_sync():
    assert USER.get() == "nobody"
    USER.set("sync")

def teardown_module():
    assert current_context() is outside
    assert USER.get() == "nobody"
"""


def write(mark: str, fixture: str, pause: str) -> str:
    return ASYNC.replace("MARK", mark).replace("FIXTURE", fixture).replace("PAUSE", pause)


ASYNCIO = [*PLUGIN, "-p", "no:anyio", "-p", "no:trio", "-o", "asyncio_default_fixture_loop_scope=function"]


@pytest.mark.parametrize("loop_scope", ["function", "session"])
def test_pytest_asyncio(run: Run, loop_scope: str) -> None:
    mark = f"pytest.mark.asyncio(loop_scope={loop_scope!r})"
    fixture = f"pytest_asyncio.fixture(loop_scope={loop_scope!r})"
    source = "import pytest_asyncio\n" + write(mark, fixture, "asyncio.sleep")
    source = source.replace("def test_sync", "@pytest.mark.filterwarnings('ignore:.*is not an async')\ndef test_sync")
    run(source, plugins=ASYNCIO, passed=4)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(run: Run, backend: str) -> None:
    source = "import anyio\n" + write("pytest.mark.anyio", "pytest.fixture", "anyio.sleep")
    source += f"\n@pytest.fixture\ndef anyio_backend():\n    return {backend!r}\n"
    run(source, plugins=[*PLUGIN, "-p", "no:asyncio", "-p", "no:trio"], passed=4)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_where_tests_share_a_task(run: Run, backend: str) -> None:
    run(
        f"""
import anyio

pytestmark = [pytest.mark.anyio, pytest.mark.isolated_context]
PATH = ContextVar("path", default="no path")

@pytest.fixture(scope="module")
def anyio_backend():
    return {backend!r}

@pytest.fixture(scope="module")
async def engine():
    token = USER.set("engine")
    yield
    assert USER.get() == "engine"
    USER.reset(token)

@pytest.fixture
def path():
    PATH.set("/")

@pytest.fixture
async def number():
    USER.set("of an async fixture")
    return 1

class TestThem:
    @pytest.fixture
    async def of_the_class(self, engine, path):
        assert type(self) is TestThem
        token = USER.set("of a method")
        await anyio.sleep(0)
        yield self
        USER.reset(token)
        assert (USER.get(), PATH.get()) == ("engine", "by the test")

    async def test_one(self, of_the_class):
        assert of_the_class is self
        assert (USER.get(), PATH.get()) == ("of a method", "/")
        PATH.set("by the test")

async def test_two(engine, number):
    assert (USER.get(), PATH.get(), number) == ("of an async fixture", "no path", 1)

async def test_three(engine):
    assert USER.get() == "engine"

async def test_what_is_thrown_in(engine):
    USER.set("mine")
    with anyio.move_on_after(0.001) as scope:
        try:
            await anyio.sleep(10)
        finally:
            assert USER.get() == "mine"
    assert scope.cancelled_caught

    async def child():
        assert USER.get() == "mine"
        USER.set("child")

    async with anyio.create_task_group() as group:
        group.start_soon(child)
    assert USER.get() == "mine"
    with pytest.raises(TimeoutError), anyio.fail_after(0.001):
        await anyio.sleep(10)
    assert USER.get() == "mine"

async def test_that_fails(engine):
    USER.set("failed")
    raise LookupError("as it should")

async def test_last(engine):
    assert USER.get() == "engine"

def teardown_module():
    assert current_context() is outside
""",
        plugins=[*PLUGIN, "-p", "no:asyncio", "-p", "no:trio"],
        passed=5,
        failed=1,
    ).stdout.fnmatch_lines("*LookupError: as it should")


def test_the_example(pytester: pytest.Pytester) -> None:
    source = EXAMPLE.read_text(encoding="utf-8")
    pytester.makepyfile(source)
    pytester.runpytest_subprocess(*ALONE, "-W", "error").assert_outcomes(passed=3)
    pytester.makepyfile(source.replace("pytestmark = pytest.mark.isolated_context\n", ""))
    pytester.runpytest_subprocess(*ALONE, "-W", "error").assert_outcomes(passed=2, failed=1)
