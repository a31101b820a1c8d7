"""joblib with each of its backends: every task sees the values of whoever called Parallel, and of nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import joblib
import pytest

from contextvars_cy import ContextVar, assign, travel
from contextvars_cy.integrations.joblib import Parallel

# Registered by the import of this module, which the workers import too.
USER: ContextVar[Any] = ContextVar("user", default="nobody")
LEFT: ContextVar[Any] = ContextVar("left", default="nothing")
SECRET: ContextVar[Any] = ContextVar("secret", default="unset")
travel.register(USER, "joblib-user")
travel.register(LEFT, "joblib-left")

pytestmark = [
    pytest.mark.usefixtures("context_of_its_own"),
    # Other tests of this process have left threads, as the tools of tests do.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]
PROCESSES = ["loky", "multiprocessing"]
BACKENDS = [*PROCESSES, "threading", "sequential"]


def seen_and_left(number: int) -> tuple[int, object, object]:
    found = number, USER.get(), LEFT.get()
    LEFT.set(f"left by {number}")
    USER.set(f"left by {number}")
    return found


def secret() -> object:
    return SECRET.get()


def tasks(count: int) -> Iterator[Any]:
    return (joblib.delayed(seen_and_left)(number) for number in range(count))


@pytest.fixture(scope="module", autouse=True)
def workers_that_end() -> Iterator[None]:
    yield
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_task_has_the_values_of_the_call_in_a_context_of_its_own(backend: str) -> None:
    with Parallel(n_jobs=2, backend=backend) as parallel:
        for user in ["ada", "grace"]:
            with USER.set(user):
                assert parallel(tasks(200)) == [(number, user, "nothing") for number in range(200)]
        assert parallel(tasks(20)) == [(number, "nobody", "nothing") for number in range(20)]
    assert USER.get() == "nobody"


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_registered_stays_in_its_process(backend: str) -> None:
    with SECRET.set("password"):
        found = Parallel(n_jobs=2, backend=backend)([joblib.delayed(secret)()])
    assert found == ["unset" if backend in PROCESSES else "password"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["generator", "generator_unordered"])
def test_results_that_come_one_by_one(backend: str, kind: str) -> None:
    if (backend, kind) == ("multiprocessing", kind):
        with pytest.raises(ValueError, match="return_as"):
            Parallel(n_jobs=2, backend=backend, return_as=kind)
        return
    parallel = Parallel(n_jobs=2, backend=backend, return_as=kind, pre_dispatch=2)
    with USER.set("ada"):
        results = parallel(tasks(30))
    # The rest is dispatched while others are set here.
    with USER.set("grace"):
        assert sorted(results) == [(number, "ada", "nothing") for number in range(30)]


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_generator_that_joblibs_threads_go_on_with(backend: str) -> None:
    threads = set()

    def made_late() -> Iterator[Any]:
        for task in tasks(60):
            threads.add(threading.current_thread())
            yield task

    with USER.set("ada"):
        found = Parallel(n_jobs=2, backend=backend, pre_dispatch=2, batch_size=1)(made_late())
    assert found == [(number, "ada", "nothing") for number in range(60)]
    assert len(threads) > 1


def nested(backend: str) -> list[Any]:
    with LEFT.set("set by the outer task"):
        found: list[Any] = Parallel(n_jobs=2, backend=backend)(tasks(4))
    return found


@pytest.mark.parametrize(("outer", "inner"), [("loky", "loky"), ("loky", "threading"), ("threading", "threading")])
def test_nested_calls(outer: str, inner: str) -> None:
    with USER.set("ada"):
        found = Parallel(n_jobs=2, backend=outer)(joblib.delayed(nested)(inner) for _ in range(2))
    assert found == [[(number, "ada", "set by the outer task") for number in range(4)]] * 2


def test_functions_and_arguments_of_any_kind() -> None:
    def local(*args: object, fn: str, self: int) -> tuple[object, ...]:
        return (*args, fn, self, USER.get())

    with USER.set("ada"):
        found = Parallel(n_jobs=2)([joblib.delayed(local)(1, fn="two", self=3), (len, ([],), {})])
    assert found == [(1, "two", 3, "ada"), 0]


def test_progress_still_knows_how_many_tasks_there_are(capfd: pytest.CaptureFixture[str]) -> None:
    Parallel(n_jobs=2, backend="threading", verbose=50)(list(tasks(3)))
    shown = "".join(capfd.readouterr())
    assert "3 out of 3" in " ".join(shown.split())


def test_tasks_come_in_the_same_batches() -> None:
    sizes: dict[type, list[int]] = {}
    for kind in (joblib.Parallel, Parallel):
        parallel = kind(n_jobs=2, batch_size=50, pre_dispatch="all")
        register = parallel._register_new_job
        sizes[kind] = []

        def counted(batch: Any, register: Any = register, found: list[int] = sizes[kind]) -> None:
            found.append(batch.batch_size)
            register(batch)

        parallel._register_new_job = counted
        parallel(tasks(100))
    assert sizes[Parallel] == sizes[joblib.Parallel]
    assert len(sizes[Parallel]) < 100


def test_errors_come_back_as_usual() -> None:
    with USER.set("ada"), pytest.raises(ZeroDivisionError):
        Parallel(n_jobs=2)([joblib.delayed(divmod)(1, 0)])


@pytest.mark.parametrize("backend", PROCESSES)
def test_a_value_that_cannot_be_encoded_stays_with_a_warning_and_the_task_runs(backend: str) -> None:
    with assign({USER: ["not", "text"], LEFT: "left"}):
        with pytest.warns(travel.TravelWarning, match="joblib-user: its value is a list") as caught:
            found = Parallel(n_jobs=2, backend=backend)(tasks(10))
    assert found == [(number, "nobody", "left") for number in range(10)]
    assert len([warning for warning in caught if warning.category is travel.TravelWarning]) == 1


def test_ten_thousand_tasks() -> None:
    with USER.set("ada"):
        found = Parallel(n_jobs=2)(tasks(10000))
    assert found == [(number, "ada", "nothing") for number in range(10000)]
