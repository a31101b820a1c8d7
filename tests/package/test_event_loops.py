"""Programs on loops whose C code takes native Contexts alone: under `python -m contextvars_cy run`, and with ours
imported by name."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

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
def test_loops_that_take_native_contexts_alone(backend: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    flags = ["-W", "error", "-m", "contextvars_cy", "run", "--backend", backend, "--host", "native"]
    done = run_python([*flags, "program.py"], tmp_path, env={"CONTEXTVARS_CY_HOST": None})
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("backend", ["cython", "pure"])
def test_no_finder_is_left_once_its_module_is_imported(backend: str, tmp_path: Path) -> None:
    program = "import sys; before = sys.meta_path[:]; import contextvars_cy; contextvars_cy.install()\n"
    program += "contextvars_cy.uninstall(); import asyncio, ctypes, pprint; assert sys.meta_path == before\n"
    done = run_python(["-W", "error", "-c", program], tmp_path, env={"CONTEXTVARS_CY_BACKEND": backend})
    assert (done.returncode, done.stderr) == (0, "")


# Those that there are for this Python.
LOOPS = {"asyncio": "SelectorEventLoop"}
LOOPS.update({name: "new_event_loop" for name in ("uvloop", "rloop") if find_spec(name)})
# rloop leaves its sockets to the collector.
UNCLOSED = ["-W", "ignore::ResourceWarning"]
BASED = """
class Named(asyncio.Task):
    pass


class Initialised(asyncio.Task):
    def __init__(self, coro, **options):
        super().__init__(coro, **options)
"""
IMPORTS = {
    "ours first": f"import contextvars_cy\nimport asyncio, LOOP\n{BASED}",
    "ours last": f"import asyncio, LOOP\n{BASED}\nimport contextvars_cy",
}
PLAIN = """
import functools, inspect, sys
IMPORT
from contextvars_cy import Context, ContextVar

variable = ContextVar("variable", default="default")


def given():
    context = Context()
    context.run(variable.set, "given")
    return context


async def get_and_set():
    found = variable.get()
    await asyncio.sleep(0)
    variable.set("set")
    return found


async def main():
    loop = asyncio.get_running_loop()

    async def seen(schedule):
        done = loop.create_future()
        schedule(lambda *args: done.set_result(variable.get()))
        return await asyncio.wait_for(done, 60)

    assert await seen(lambda see: loop.call_soon(see, context=given())) == "given"
    assert await seen(lambda see: loop.call_soon_threadsafe(see, context=given())) == "given"
    assert await seen(lambda see: loop.call_later(0.001, see, context=given())) == "given"
    assert await seen(lambda see: loop.call_at(loop.time(), see, context=given())) == "given"
    future = loop.create_future()
    future.set_result(None)
    assert await seen(lambda see: future.add_done_callback(see, context=given())) == "given"
    if sys.version_info >= (3, 11):
        context = given()
        assert await loop.create_task(get_and_set(), context=context) == "given"
        assert context[variable] == "set"
        assert await asyncio.create_task(get_and_set(), name="named", context=given()) == "given"
        async with asyncio.TaskGroup() as group:
            task = group.create_task(get_and_set(), context=given())
        assert task.result() == "given"
    if sys.version_info >= (3, 12):
        for factory in (asyncio.eager_task_factory, asyncio.create_eager_task_factory(asyncio.Task)):
            assert await factory(loop, get_and_set(), context=given()) == "given"
            # uvloop says more than every Python's own factory takes.
            loop.set_task_factory(lambda loop, coro, eager_start=None, **options: factory(loop, coro, **options))
            assert await loop.create_task(get_and_set(), context=given()) == "given"
        for Task in (asyncio.Task, Named, Initialised):
            for eager in (False, True):
                task = Task(get_and_set(), loop=loop, context=given(), eager_start=eager)
                assert await task == "given"
                options = {"context": given(), "eager_start": eager}
                loop.set_task_factory(lambda loop, coro, **_: Task(coro, loop=loop, **options))
                assert await loop.create_task(get_and_set()) == "given"
                # What is given stays as it is.
                assert type(options["context"]) is Context
            try:
                Task(None, loop=loop, context=given(), eager_start=True)
            except TypeError as error:
                assert "coroutine" in str(error), error
            else:
                raise AssertionError
            loop.set_task_factory(None)
            assert await asyncio.create_task(get_and_set()) == "default"
            shown = str(inspect.signature(Task))
            assert shown.endswith("context=None, eager_start=False)") == (Task is not Initialised)
            loop.set_debug(True)
            task = Task(get_and_set(), loop=loop)
            # rloop has no debug mode.
            if loop.get_debug():
                assert task._source_traceback[-1].name == ("__init__" if Task is Initialised else "main")
            await task
            loop.set_debug(False)
    assert variable.get() == "default"


new_loop = getattr(LOOP, "NEW")
loop = new_loop()
loop.run_until_complete(main())
loop.close()
if sys.version_info >= (3, 11):
    context = given()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(get_and_set(), context=context) == "given"
    assert context[variable] == "set"
for method in (loop.create_task, asyncio.BaseEventLoop.create_task):
    assert "coro" in inspect.signature(method).parameters and method.__name__ == "create_task", method
print("done")
"""


@pytest.mark.parametrize("order", IMPORTS)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("backend", ["cython", "pure"])
def test_every_loop_takes_our_contexts(backend: str, loop: str, order: str, tmp_path: Path) -> None:
    program = PLAIN.replace("IMPORT", IMPORTS[order]).replace("LOOP", loop).replace("NEW", LOOPS[loop])
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": "native"}
    done = run_python(["-W", "error", *UNCLOSED, "-c", program], tmp_path, env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


CALLS_BACK = """
import asyncio, LOOP


async def main():
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0, lambda: done.set_result("called"))
    print(await asyncio.wait_for(done, 60))


loop = getattr(LOOP, "NEW")()
loop.run_until_complete(main())
loop.close()
"""


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("backend", ["cython", "pure"])
def test_on_the_thread_host_loops_call_back(backend: str, loop: str, tmp_path: Path) -> None:
    """In native Contexts, which that host does not follow."""
    program = CALLS_BACK.replace("LOOP", loop).replace("NEW", LOOPS[loop])
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    flags = ["-W", "error", *UNCLOSED, "-m", "contextvars_cy", "run", "--backend", backend, "--host", "thread"]
    done = run_python([*flags, "program.py"], tmp_path, env={"CONTEXTVARS_CY_HOST": None})
    assert (done.returncode, done.stdout, done.stderr) == (0, "called\n", "")


EAGER = """
import asyncio, sys
from contextvars_cy import Context


async def nothing():
    return "done"


async def main(create):
    try:
        print(await create(nothing(), asyncio.get_running_loop()))
    except (AttributeError, TypeError) as error:
        print(error)


def by_class(coroutine, loop):
    return asyncio.Task(coroutine, loop=loop, context=Context(), eager_start=True)


def by_factory(coroutine, loop):
    return asyncio.eager_task_factory(loop, coroutine, context=Context())


for create in CREATE:
    asyncio.run(main(create))
"""
REFUSED = "a Context of the thread host wraps no native one; set CONTEXTVARS_CY_HOST=native\n"

if sys.version_info >= (3, 12):

    def eager(creates: str, begin: str, backend: str, host: str, folder: Path) -> str:
        program = f"{begin}\n{EAGER.replace('CREATE', creates)}"
        env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
        # Where a task is refused, its coroutine was never awaited.
        done = run_python(["-W", "ignore::RuntimeWarning", "-c", program], folder, env)
        assert done.stderr == ""
        return done.stdout

    @pytest.mark.parametrize("backend", ["cython", "pure"])
    def test_on_the_thread_host_eager_tasks_refuse_our_contexts_and_the_loop_goes_on(
        backend: str, tmp_path: Path
    ) -> None:
        assert eager("(by_class, by_factory)", "", backend, "thread", tmp_path) == 2 * REFUSED

    def test_without_ctypes_the_factories_take_our_contexts(tmp_path: Path) -> None:
        begin = "import sys; sys.modules['_ctypes'] = None"
        assert eager("(by_factory,)", begin, "pure", "native", tmp_path) == "done\n"

    @pytest.mark.parametrize("other", ["asyncio.tasks._PyTask", "type('Task', (asyncio.Task,), {})", "print"])
    @pytest.mark.parametrize("backend", ["cython", "pure"])
    def test_the_class_of_tasks_may_have_been_replaced(backend: str, other: str, tmp_path: Path) -> None:
        begin = f"import asyncio; asyncio.Task = {other}"
        assert eager("(by_factory,)", begin, backend, "native", tmp_path) == "done\n"


UNCHANGED = """
import asyncio, contextvars, signal, sys, LOOP

variable = contextvars.ContextVar("variable", default="default")


def factory(loop, coro, context=None, name=None, **options):
    context = context or contextvars.copy_context()
    context.run(variable.set, "marked")
    return asyncio.eager_task_factory(loop, coro, context=context, name=name)


async def get():
    return variable.get()


async def main():
    variable.set("main")
    loop, seen = asyncio.get_running_loop(), []

    def see():
        seen.append(variable.get())

    loop.add_signal_handler(signal.SIGUSR1, see)
    loop.call_soon(see)
    loop.call_soon_threadsafe(see)
    loop.call_later(0.001, see)
    loop.call_later(0, see)
    loop.call_at(loop.time(), see)
    loop.call_later(0.01, signal.raise_signal, signal.SIGUSR1)
    while len(seen) < 6:
        await asyncio.sleep(0.001)
    seen.append(await asyncio.to_thread(variable.get))
    if sys.version_info >= (3, 12):
        loop.set_task_factory(factory)
        seen.append(await asyncio.create_task(get()))
        loop.set_task_factory(None)
    print(sorted(seen))


loop = getattr(LOOP, "NEW")()
loop.run_until_complete(main())
loop.close()
"""


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("backend", ["cython", "pure"])
def test_an_unchanged_program_on_every_loop(backend: str, loop: str, tmp_path: Path) -> None:
    program = UNCHANGED.replace("LOOP", loop).replace("NEW", LOOPS[loop])
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": "native"}
    # Not with warnings as errors: of the loops' own code.
    as_it_is = run_python(["program.py"], tmp_path, env)
    on_ours = run_python(["-m", "contextvars_cy", "run", "program.py"], tmp_path, env)
    assert (as_it_is.returncode, as_it_is.stderr, as_it_is.stdout.count("main") >= 6) == (0, "", True)
    assert (on_ours.returncode, on_ours.stderr, on_ours.stdout) == (0, "", as_it_is.stdout)


SUBCLASSED = """
import asyncio, contextvars, contextvars_cy
from contextvars import copy_context


class Loop(asyncio.AbstractEventLoop):
    # A loop of the program's own, in Python.
    def __init_subclass__(cls, /, option=None, **options):
        super().__init_subclass__(**options)
        cls.option = option

    def call_soon(self, callback, *args, context=None):
        return callback, args, context


class Further(Loop, option="taken"):
    def call_soon(self, callback, *args, context=None):
        return super().call_soon(callback, *args, context=context)


context = contextvars.Context()
assert Further.option == "taken"
for kind in (Loop, Further):
    assert kind().call_soon(print, 1, context=context) == (print, (1,), context.native)
    assert kind().call_soon(print, 1) == (print, (1,), None)
    assert kind().call_soon(callback=print, context=context) == (print, (), context.native)
    assert kind.call_soon(kind(), print, context=None) == (print, (), None)
    try:
        kind().call_soon()
    except TypeError as error:
        assert "call_soon() missing 1 required positional argument: 'callback'" in str(error)
try:
    Loop().call_later(1, print)
except NotImplementedError:
    print("done")
assert copy_context is contextvars.copy_context is contextvars_cy.copy_context
"""


@pytest.mark.parametrize("backend", ["cython", "pure"])
def test_a_loop_of_the_programs_own(backend: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SUBCLASSED, encoding="utf-8")
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": "native"}
    done = run_python(["-W", "error", "-m", "contextvars_cy", "run", "program.py"], tmp_path, env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


CTYPES = """
import ctypes, contextvars

enter, leave, copy = (getattr(ctypes.pythonapi, f"PyContext_{name}") for name in ("Enter", "Exit", "Copy"))
copy.restype = ctypes.py_object
variable, context = contextvars.ContextVar("variable", default="default"), contextvars.Context()
for types, given in ([ctypes.py_object], context), (None, ctypes.py_object(context)):
    enter.argtypes = leave.argtypes = copy.argtypes = types
    assert enter(given) == 0
    variable.set("inside")
    assert leave(given) == 0
    assert variable.get() == "default" and context[variable] == copy(given).run(variable.get) == "inside"
assert ctypes.pythonapi.PyContext_Enter is enter
try:
    enter(ctypes.py_object(1))
except TypeError:
    print("done")
"""


@pytest.mark.parametrize("command", [[], ["-m", "contextvars_cy", "run"]], ids=["as it is", "on ours"])
@pytest.mark.parametrize("backend", ["cython", "pure"])
def test_the_c_api_by_way_of_ctypes(backend: str, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(CTYPES, encoding="utf-8")
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": "native"}
    done = run_python(["-W", "error", *command, "program.py"], tmp_path, env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
