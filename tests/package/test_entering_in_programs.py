"""`with context:` in steps that others run: unittest's asynchronous tests, notebooks, uvloop."""

from __future__ import annotations

import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from helpers import run_python

ON_ALL = pytest.mark.parametrize(
    "env",
    [
        {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
        for backend in ("cython", "pure")
        for host in ("native", "thread")
    ],
    ids=lambda env: " ".join(env.values()),
)
ON_NATIVE = pytest.mark.parametrize("backend", ["cython", "pure"])
STILL_ENTERED = "was still entered when the event loop went on"

AWAITS = """
import asyncio, unittest
from contextvars_cy import ContextVar, copy_context

user = ContextVar("user", default="nobody")


class Test(unittest.IsolatedAsyncioTestCase):
    async def test_1(self):
        with copy_context():
            await asyncio.sleep(60)

    async def test_2(self):
        await asyncio.sleep(0)
        self.assertEqual(user.get(), "nobody")


class TestAfterwards(unittest.TestCase):
    def test(self):
        self.assertEqual(user.get(), "nobody")


unittest.main()
"""
ENTERS = """
import unittest
from contextvars_cy import ContextVar, assign, copy_context

user, tenant = ContextVar("user", default="nobody"), ContextVar("tenant", default="-")


class TestSetUp(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.enterContext(copy_context())

    async def test(self):
        pass


class TestAsyncSetUp(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.enterContext(copy_context())

    async def test(self):
        pass


class TestTest(unittest.IsolatedAsyncioTestCase):
    async def test(self):
        self.enterContext(copy_context())


class TestAsItIsRight(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.enterContext(user.set("ada"))

    async def asyncSetUp(self):
        self.enterContext(assign({tenant: "acme"}))

    async def test_1(self):
        self.assertEqual((user.get(), tenant.get()), ("ada", "acme"))
        user.set("grace")

    async def test_2(self):
        self.assertEqual((user.get(), tenant.get()), ("ada", "acme"))


class TestSynchronous(unittest.TestCase):
    def setUp(self):
        self.enterContext(copy_context())
        user.set("ada")

    def test(self):
        self.assertEqual(user.get(), "ada")


class TestTheLast(unittest.TestCase):
    def test(self):
        self.assertEqual((user.get(), tenant.get()), ("nobody", "-"))


unittest.main()
"""


@ON_ALL
def test_a_test_that_awaits_within_is_an_error_and_the_others_run(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tests.py").write_text(AWAITS, encoding="utf-8")
    done = run_python(["tests.py"], tmp_path, env=env)
    assert "FAILED (errors=1)" in done.stderr
    assert "RuntimeError: the Context that was entered at" in done.stderr
    assert "tests.py:10 in test_1 " + STILL_ENTERED in done.stderr


if sys.version_info >= (3, 11):

    @ON_NATIVE
    def test_enter_context_of_an_asynchronous_test_is_refused_at_the_line(backend: str, tmp_path: Path) -> None:
        (tmp_path / "tests.py").write_text(ENTERS, encoding="utf-8")
        done = run_python(["tests.py"], tmp_path, env={"CONTEXTVARS_CY_BACKEND": backend})
        assert "FAILED (errors=3)" in done.stderr
        assert done.stderr.count("\nRuntimeError: an IsolatedAsyncioTestCase cannot enter a Context") == 3
        assert done.stderr.count("    self.enterContext(copy_context())\n") == 3


PROGRAM_ON_UVLOOP = """
import asyncio, uvloop
from contextvars_cy import Context, current_context, copy_context


async def main():
    with copy_context():
        await asyncio.sleep(60)


def program():
    outside = current_context()
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main())
    except RuntimeError as error:
        print(error)
    print(current_context() is outside)
    print(loop.run_until_complete(asyncio.sleep(0, "goes on")))
    loop.close()


Context().run(program)
"""

if find_spec("uvloop"):

    @ON_NATIVE
    def test_uvloop_ends_with_an_error(backend: str, tmp_path: Path) -> None:
        """It cannot go on by itself after a step whose Context it could not leave."""
        (tmp_path / "program.py").write_text(PROGRAM_ON_UVLOOP, encoding="utf-8")
        done = run_python(["program.py"], tmp_path, env={"CONTEXTVARS_CY_BACKEND": backend})
        refusal = "cannot exit context: thread state references a different context object"
        assert done.stdout == f"{refusal}\nTrue\ngoes on\n"
        assert "program.py:7 in main " + STILL_ENTERED in done.stderr


PROGRAM_ON_RLOOP = """
import asyncio, rloop
from contextvars_cy import Context, current_context, copy_context


async def within():
    with copy_context():
        await asyncio.sleep(60)


async def main():
    for _ in range(3):
        try:
            await within()
        except RuntimeError as error:
            print(error)
    return await asyncio.create_task(asyncio.sleep(0, "goes on"))


def program():
    outside = current_context()
    loop = rloop.new_event_loop()
    print(loop.run_until_complete(main()))
    print(current_context() is outside)


Context().run(program)
"""

if find_spec("rloop"):

    @ON_NATIVE
    def test_rloop_goes_on(backend: str, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text(PROGRAM_ON_RLOOP, encoding="utf-8")
        done = run_python(["program.py"], tmp_path, env={"CONTEXTVARS_CY_BACKEND": backend})
        assert done.stdout.count("program.py:7 in within " + STILL_ENTERED) == 3
        assert done.stdout.endswith("\ngoes on\nTrue\n")


NOTEBOOK = """
from jupyter_client.manager import start_new_kernel


def run(cell):
    shown = []

    def show(message):
        content = message["content"]
        if message["msg_type"] == "error":
            shown.append(f"{content['ename']}: {content['evalue']}")
        elif message["msg_type"] == "execute_result":
            shown.append(content["data"]["text/plain"])

    client.execute_interactive(cell, output_hook=show, timeout=60)
    print(*shown)


kernel, client = start_new_kernel(kernel_name="python3")
try:
    run("import asyncio; from contextvars_cy import Context, ContextVar, copy_context")
    run("user = ContextVar('user', default='nobody')")
    run("context = copy_context(); context.__enter__(); user.set('ada'); user.get()")
    run("user.get()")
    run("context.__exit__(None, None, None)")
    run("'goes on'")
    run("with copy_context():\\n    await asyncio.sleep(60)")
    run("with Context():\\n    user.set('grace')\\nuser.get()")
    run("await asyncio.create_task(asyncio.sleep(0, 'goes on'))")
finally:
    client.stop_channels()
    kernel.shutdown_kernel(now=True)
"""

if find_spec("ipykernel") and find_spec("jupyter_client"):

    @ON_ALL
    def test_a_notebook(env: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "notebook.py").write_text(NOTEBOOK, encoding="utf-8")
        env = {**env, "IPYTHONDIR": str(tmp_path), "JUPYTER_PLATFORM_DIRS": "1", "HOME": str(tmp_path)}
        done = run_python(["notebook.py"], tmp_path, env=env)
        _, _, entered, later, left, after, awaited, synchronous, task = done.stdout.splitlines()
        # Before Python 3.11, ipykernel 7 brings to the next cell what the native Context holds that one has entered.
        brings_back = sys.version_info < (3, 11) and int(version("ipykernel").partition(".")[0]) >= 7
        kept = "'ada'" if brings_back and env["CONTEXTVARS_CY_HOST"] == "native" else "'nobody'"
        assert (entered, later, after, synchronous, task) == ("'ada'", kept, "'goes on'", kept, "'goes on'")
        for error in (left, awaited):
            assert error.startswith("RuntimeError: the Context that was entered at ")
            assert ":1 in " in error
            assert STILL_ENTERED in error
