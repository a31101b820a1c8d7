"""Processes and their pools: registered values arrive with each call, and no call sees anything of another."""

from __future__ import annotations

import asyncio
import concurrent.futures
import decimal
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contextvars_cy import ContextVar, apply, assign, bind, host, travel
from contextvars_cy.executors import Process, ProcessPoolExecutor, run_in_executor
from helpers import run_python

# Registered by the import of this module, which the processes import too.
USER: ContextVar[Any] = ContextVar("user", default="nobody")
ROWS: ContextVar[int] = ContextVar("rows", default=0)
SECRET: ContextVar[Any] = ContextVar("secret", default="unset")
travel.register(USER, "pool-user")
travel.register(ROWS, "pool-rows", codec=int)

pytestmark = [
    pytest.mark.usefixtures("context_of_its_own"),
    # Other tests of this process have left threads, as the tools of tests do.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]
METHODS = [name for name in ("spawn", "forkserver", "fork") if name in multiprocessing.get_all_start_methods()]


def seen(*more: object) -> list[object]:
    return [USER.get(), ROWS.get(), SECRET.get(), *more]


def seen_and_changed(value: object) -> list[object]:
    before = seen()
    USER.set(f"left by {value}")
    SECRET.set(f"left by {value}")
    return before


def add_rows(number: int) -> str:
    ROWS.set(ROWS.get() + number)
    return "added"


@pytest.fixture(params=METHODS, scope="module")
def pool(request: pytest.FixtureRequest) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, multiprocessing.get_context(request.param)) as pool:
        # What a forked process inherits.
        with SECRET.set("of the code that made the pool"), USER.set("of the code that made the pool"):
            pool.submit(int).result()
        yield pool


def test_a_call_has_the_registered_values_and_no_others(pool: ProcessPoolExecutor) -> None:
    with assign({USER: "ada", ROWS: 3, SECRET: "password"}):
        future = pool.submit(seen, "more")
    assert future.result() == ["ada", 3, "unset", "more"]


def test_no_call_sees_another_or_what_the_process_inherited(pool: ProcessPoolExecutor) -> None:
    calls = []
    for number in range(20):
        with USER.set(f"caller {number}"):
            calls.append(pool.submit(seen_and_changed, number))
    assert [call.result()[0] for call in calls] == [f"caller {number}" for number in range(20)]
    assert {call.result()[2] for call in calls} == {"unset"}


def test_map_gives_each_element_a_context_of_its_own(pool: ProcessPoolExecutor) -> None:
    with USER.set("ada"):
        results = pool.map(seen_and_changed, range(6), chunksize=3)
    assert list(results) == [["ada", 0, "unset"]] * 6


def test_changes_come_back_where_they_are_asked_for(pool: ProcessPoolExecutor) -> None:
    with ROWS.set(1):
        value, changes = pool.submit(bind(add_rows, returns=[ROWS]), 2).result()
    assert (value, ROWS.get()) == ("added", 0)
    with apply(changes):
        assert ROWS.get() == 3


def test_an_error_comes_back_as_usual(pool: ProcessPoolExecutor) -> None:
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result()


def initialize(shown: Any) -> None:
    shown.append(seen())
    USER.set("set by the initializer")


@pytest.mark.parametrize("method", METHODS)
def test_an_initializer_has_the_values_of_the_code_that_made_the_pool(method: str) -> None:
    context = multiprocessing.get_context(method)
    with multiprocessing.get_context("spawn").Manager() as manager:
        shown = manager.list()
        with USER.set("maker"):
            pool = ProcessPoolExecutor(1, context, initialize, (shown,))
        with pool:
            assert pool.submit(seen).result() == ["nobody", 0, "unset"]
        assert shown[0][:2] == ["maker", 0]


def test_a_value_that_does_not_travel_stays_with_a_warning_where_it_is_submitted() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool, USER.set(["not", "text"]):
        with pytest.warns(travel.TravelWarning, match="pool-user: its value is a list"):
            future = pool.submit(seen)
        assert future.result()[0] == "nobody"


def test_run_in_executor_takes_registered_values_to_any_pool_of_processes() -> None:
    async def main() -> list[Any]:
        results = []
        for kind in (ProcessPoolExecutor, concurrent.futures.ProcessPoolExecutor):
            with kind(1, multiprocessing.get_context("spawn")) as pool, USER.set("ada"):
                results.append(await run_in_executor(pool, seen, "more"))
        return results

    assert asyncio.run(main()) == [["ada", 0, "unset", "more"]] * 2


def put(queue: Any, *more: object) -> None:
    queue.put(seen(*more))


class Subclass(Process):
    def __init__(self, queue: Any) -> None:
        super().__init__()
        self.queue = queue

    def run(self) -> None:
        put(self.queue, "in a subclass")


@pytest.fixture(params=METHODS)
def start_method(request: pytest.FixtureRequest) -> Iterator[str]:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


def test_a_process_has_the_registered_values(start_method: str) -> None:
    queue: Any = multiprocessing.SimpleQueue()
    processes: list[Process] = [Process(target=put, args=(queue, "in a process")), Subclass(queue)]
    for process, more in zip(processes, ("in a process", "in a subclass")):
        with assign({USER: "ada", ROWS: 3, SECRET: "password"}):
            process.start()
        arrived = queue.get()
        process.join()
        # A forked one has a copy of everything, as the standard library's.
        assert arrived == ["ada", 3, "password" if start_method == "fork" else "unset", more]
        assert process.exitcode == 0 and "run" not in vars(process)


def test_a_second_start_is_refused_as_usual(start_method: str) -> None:
    process = Process(target=int)
    process.start()
    with pytest.raises(AssertionError, match="cannot start a process twice"):
        process.start()
    process.join()
    assert "run" not in vars(process)


def precision() -> int:
    return decimal.getcontext().prec


def test_the_precision_of_decimal_does_not_leak_from_call_to_call() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(decimal.setcontext, decimal.Context(prec=5)).result()
        # On the thread host it belongs to the thread.
        assert pool.submit(precision).result() == (decimal.Context().prec if host == "native" else 5)


PROGRAM = """
import multiprocessing
import sys
from contextvars_cy import ContextVar, travel
from contextvars_cy.executors import ProcessPoolExecutor

user = ContextVar("user", default="nobody")
travel.register(user, "user")


def greet(greeting):
    return f"{greeting}, {user.get()}"


if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context(sys.argv[1])) as pool:
        with user.set("ada"):
            print(pool.submit(greet, "hello").result())
"""


@pytest.mark.parametrize("method", METHODS)
def test_variables_of_the_main_module_are_found_in_the_processes(method: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    done = run_python(["-W", "error", "program.py", method], tmp_path)
    assert (done.stdout, done.stderr) == ("hello, ada\n", "")


def test_where_there_are_no_interpreters_there_are_processes(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["_interpreters"] = None
from contextvars_cy.executors import *
print(Process.__name__, ProcessPoolExecutor.__name__, "InterpreterPoolExecutor" in dir())
"""
    done = run_python(["-W", "error", "-c", program], tmp_path)
    assert (done.stdout, done.stderr) == ("Process ProcessPoolExecutor False\n", "")
