"""An asyncio program under `python -m contextvars_cy run`, on loops whose C code takes native Contexts alone."""

from __future__ import annotations

import pytest

from helpers import run_python

PROGRAM = """
import asyncio, contextvars, contextvars_cy

Native = type(contextvars_cy.current_context().native)
variable = contextvars.ContextVar("variable", default="default")


class Strict(asyncio.SelectorEventLoop):
    # As uvloop has it, and from Python 3.15 on asyncio itself.
    def call_soon(self, callback, *args, context=None):
        assert context is None or type(context) is Native, context
        return super().call_soon(callback, *args, context=context)

    def create_task(self, coroutine, **options):
        assert type(options.get("context") or Native()) is Native, options
        return super().create_task(coroutine, **options)


async def step(name):
    variable.set(name)
    await asyncio.sleep(0)
    return variable.get()


async def main():
    variable.set("main")
    assert await asyncio.gather(*(asyncio.create_task(step(name)) for name in "abc")) == ["a", "b", "c"]
    return variable.get()


for eager in [False] + [True] * hasattr(asyncio, "eager_task_factory"):

    def make_loop():
        loop = Strict()
        if eager:
            loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    if hasattr(asyncio, "Runner"):
        with asyncio.Runner(loop_factory=make_loop) as runner:
            assert runner.run(main()) == "main"
    else:
        loop = make_loop()
        assert loop.run_until_complete(main()) == "main"
        loop.close()
    assert variable.get() == "default"
assert contextvars.ContextVar is contextvars_cy.ContextVar
assert asyncio.events.contextvars.Context is Native
assert asyncio.__spec__.loader is asyncio.__loader__ and asyncio.__loader__.__class__.__name__ == "SourceFileLoader"
print("done")
"""


@pytest.mark.parametrize("backend", ["cython", "pure"])
def test_loops_that_take_native_contexts_alone(backend, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    flags = ["-W", "error", "-m", "contextvars_cy", "run", "--backend", backend, "--host", "native"]
    done = run_python([*flags, "program.py"], tmp_path, env={"CONTEXTVARS_CY_HOST": None})
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("backend", ["cython", "pure"])
def test_asyncio_is_imported_as_ever_after_uninstall(backend, tmp_path):
    program = "import sys, contextvars_cy; before = sys.meta_path[:]; contextvars_cy.install()\n"
    program += "contextvars_cy.uninstall(); import asyncio; assert sys.meta_path == before\n"
    done = run_python(["-W", "error", "-c", program], tmp_path, env={"CONTEXTVARS_CY_BACKEND": backend})
    assert (done.returncode, done.stderr) == (0, "")


UVLOOP = """
import asyncio
from contextlib import suppress
from contextvars_cy import Context


class Base(asyncio.SelectorEventLoop):
    pass


def strict(name):
    def method(loop, *args, context=None, **options):
        assert type(context) is not Context, name
        return getattr(asyncio.SelectorEventLoop, name)(loop, *args, context=context, **options)

    return method


for name in ("call_soon", "call_soon_threadsafe", "call_later", "call_at"):
    setattr(Base, name, strict(name))


class Loop(Base):
    pass
"""

GIVEN = """
import asyncio, contextvars, contextvars_cy
IMPORT

variable = contextvars.ContextVar("variable", default="default")


async def main():
    loop, context, seen = asyncio.get_running_loop(), contextvars.Context(), []
    context.run(variable.set, "given")

    def see():
        seen.append(variable.get())

    loop.call_soon(see, context=context)
    loop.call_soon_threadsafe(see, context=context)
    loop.call_later(0, see, context=context)
    loop.call_at(loop.time(), see, context=context)
    done = loop.create_future()
    done.add_done_callback(lambda future: see(), context=context)
    done.set_result(None)
    while len(seen) < 5:
        await asyncio.sleep(0)
    return seen


loop = uvloop.Loop()
assert loop.run_until_complete(main()) == ["given"] * 5
loop.close()
contextvars_cy.uninstall()
assert not {"call_soon", "create_task"} & vars(uvloop.Loop).keys()
print("done")
"""


@pytest.mark.parametrize(
    "order", ["import uvloop", "contextvars_cy.uninstall(); import uvloop; contextvars_cy.install()"]
)
@pytest.mark.parametrize("backend", ["cython", "pure"])
def test_a_loop_in_c_is_given_our_contexts(backend, order, tmp_path):
    (tmp_path / "uvloop.py").write_text(UVLOOP, encoding="utf-8")
    (tmp_path / "program.py").write_text(GIVEN.replace("IMPORT", order), encoding="utf-8")
    flags = ["-W", "error", "-m", "contextvars_cy", "run", "--backend", backend, "--host", "native"]
    done = run_python([*flags, "program.py"], tmp_path, env={"CONTEXTVARS_CY_HOST": None})
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
