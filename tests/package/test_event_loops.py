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
