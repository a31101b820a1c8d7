"""Dask with a real cluster of processes: every task sees the values of whoever submitted it, and of nobody else."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.array
import dask.bag
import dask.dataframe
import distributed
import numpy
import pandas
import pytest

from contextvars_cy import ContextVar, assign, bind, executors, travel
from contextvars_cy.integrations.dask import Client, connect

# Registered by the import of this module, which the workers import too.
USER: ContextVar[Any] = ContextVar("user", default="nobody")
LEFT: ContextVar[Any] = ContextVar("left", default="nothing")
TRUSTED: ContextVar[Any] = ContextVar("trusted", default="nothing")
SECRET: ContextVar[Any] = ContextVar("secret", default="unset")
travel.register(USER, "dask-user")
travel.register(LEFT, "dask-left")
travel.register(TRUSTED, "dask-trusted", audience="trusted")

pytestmark = [
    pytest.mark.usefixtures("context_of_its_own"),
    # Of dask's own, and of the tools of tests, whose threads are there when it forks.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]
QUIET = {
    "distributed.scheduler.allowed-failures": 20,
    "distributed.worker.profile.enabled": False,
    "distributed.diagnostics.computations.nframes": 0,
    # Messages cost more than these tasks.
    "distributed.scheduler.worker-saturation": "inf",
    "distributed.scheduler.work-stealing": False,
}


def seen(*more: object) -> tuple[object, ...]:
    return (USER.get(), SECRET.get(), *more)


async def seen_after_waiting(*more: object) -> tuple[object, ...]:
    await asyncio.sleep(0)
    assert distributed.get_worker()
    found = seen(*more)
    USER.set("left by a coroutine")
    return found


def seen_and_left(number: int) -> tuple[int, object, object]:
    found = number, USER.get(), LEFT.get()
    LEFT.set(f"left by {number}")
    USER.set(f"left by {number}")
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[distributed.LocalCluster]:
    with dask.config.set(QUIET):
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0", silence_logs=50
        ) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def client(cluster: distributed.LocalCluster) -> Iterator[Client]:
    with dask.config.set(QUIET), Client(cluster) as client:
        yield client


# ---- each way to the workers ----


def by_submit(client: Client) -> object:
    return client.submit(seen, "more")


def by_submit_of_a_coroutine_function(client: Client) -> object:
    return client.submit(seen_after_waiting, "more")


def by_submit_with_keywords(client: Client) -> object:
    return client.submit(with_keywords, more="more")


def with_keywords(*, more: str) -> object:
    return seen(more)


def by_map(client: Client) -> object:
    return client.map(seen, ["more"] * 3, batch_size=2)[2]


def by_get_executor(client: Client) -> object:
    return client.get_executor().submit(seen, "more").result()


def by_compute(client: Client) -> object:
    return dask.delayed(seen)("more").compute()


def by_compute_of_a_coroutine_function(client: Client) -> object:
    return dask.delayed(seen_after_waiting)("more").compute()


def by_compute_in_the_background(client: Client) -> object:
    return client.compute(dask.delayed(seen)("more"))


def by_persist(client: Client) -> object:
    return dask.delayed(seen)("more").persist()


def by_get(client: Client) -> object:
    return client.get({"x": "more", ("y", 0): (seen, "x")}, ("y", 0))


def by_a_call_within_a_call(client: Client) -> object:
    return client.get({"z": [(tuple, (list, (seen, "more")))]}, "z")[0]


def by_a_bag(client: Client) -> object:
    return dask.bag.from_sequence(["more"] * 4, npartitions=2).map(seen).map(tuple).compute()[3]


WAYS = [value for name, value in list(globals().items()) if name.startswith("by_")]


def result_of(found: Any) -> Any:
    if isinstance(found, distributed.Future):
        found = found.result()
    return found.compute() if dask.is_dask_collection(found) else found


@pytest.mark.parametrize("way", WAYS)
def test_a_task_has_the_values_of_whoever_submits_it_and_no_others(
    client: Client, way: Callable[[Client], object]
) -> None:
    with assign({USER: "ada", SECRET: "password"}):
        found = way(client)
    assert result_of(found) == ("ada", "unset", "more")
    with USER.set("grace"):
        found = way(client)
    assert result_of(found) == ("grace", "unset", "more")
    assert result_of(way(client)) == ("nobody", "unset", "more")


# ---- keys ----


def test_equal_calls_share_a_result_if_their_values_are_equal(client: Client) -> None:
    with USER.set("ada"):
        futures = [client.submit(seen, "shared"), client.submit(seen, "shared")]
    with USER.set("grace"):
        futures += [client.submit(seen, "shared")]
    without = client.submit(seen, "shared")
    assert futures[0].key == futures[1].key
    assert len({future.key for future in [*futures, without]}) == 3
    assert all(future.key.startswith("seen-") for future in futures)
    with distributed.Client(client.cluster, set_as_default=False) as theirs:
        assert theirs.submit(seen, "shared").key == without.key


def test_a_collection_that_several_compute_at_once_has_each_ones_values(client: Client) -> None:
    first = dask.delayed(seen)("several")
    collection = dask.delayed(list)([first, dask.delayed(seen)(first)])
    futures = []
    for user in ["ada", "grace", "ada"]:
        with USER.set(user):
            futures.append(client.compute(collection))
    futures.append(client.compute(collection))
    found = [(result[0][0], result[1][0], result[1][2][0]) for result in client.gather(futures)]
    assert found == [(user,) * 3 for user in ["ada", "grace", "ada", "nobody"]]


def test_what_is_persisted_keeps_the_values_of_then_whoever_goes_on_with_it(client: Client) -> None:
    collection = dask.delayed(seen)("persisted")
    with USER.set("ada"):
        persisted = collection.persist()
        both = client.persist([collection, dask.bag.range(2, npartitions=2).map(seen)])
    with USER.set("grace"):
        assert dask.delayed(seen)(persisted).compute() == ("grace", "unset", ("ada", "unset", "persisted"))
        assert collection.compute()[0] == "grace"
        assert dask.compute(*both) == (("ada", "unset", "persisted"), [("ada", "unset", 0), ("ada", "unset", 1)])
    # Both at once, in one graph.
    assert dask.compute(collection, persisted)[0][0] == "nobody"
    assert dask.compute(collection, persisted)[1][0] == "ada"


def test_futures_within_a_graph(client: Client) -> None:
    with USER.set("ada"):
        future = client.submit(seen, "a future")
        assert dask.delayed(seen)([future], {"key": future}).compute()[2:] == (
            [("ada", "unset", "a future")],
            {"key": ("ada", "unset", "a future")},
        )
        assert client.get({"alias": future, "x": (seen, "alias")}, ["x", "alias"])[0][2] == future.result()


def test_annotations_stay_with_their_tasks(client: Client, cluster: distributed.LocalCluster) -> None:
    address = sorted(client.scheduler_info()["workers"])[0]
    with dask.annotate(workers=[address], allow_other_workers=False):
        chosen = [dask.delayed(where)(number) for number in range(4)]
    with USER.set("ada"):
        found = dask.compute(*chosen, optimize_graph=False)
    assert found == ((address, "ada"),) * 4


def test_arrays(client: Client) -> None:
    array = dask.array.ones((8, 8), chunks=4).map_blocks(times_the_length_of_the_user, dtype=float)
    total = (array + array.T).sum()
    with USER.set("ada"):
        persisted = array.persist()
        assert total.compute() == 128 * 3
    with USER.set("grace"):
        assert total.compute() == 128 * 5
    assert (total.compute(), persisted.sum().compute()) == (128 * 6, 64 * 3)


def times_the_length_of_the_user(block: Any) -> Any:
    return numpy.full(block.shape, float(len(USER.get())))


def test_data_frames(client: Client) -> None:
    frame = dask.dataframe.from_pandas(pandas.DataFrame({"number": range(6)}), npartitions=2)
    users = frame.map_partitions(with_user, meta={"number": int, "user": object})
    persisted = []
    for user in ["ada", "grace"]:
        with USER.set(user):
            persisted.append(users.persist())
            assert set(users.compute().user) == {user}
    with USER.set("barbara"), dask.config.set({"dataframe.shuffle.method": "tasks"}):
        assert set(users.shuffle("number").compute().user) == {"barbara"}
        found = dask.compute(*persisted, users)
    assert [set(each.user) for each in found] == [{"ada"}, {"grace"}, {"barbara"}]
    assert [set(each.user) for each in dask.compute(*persisted, users)] == [{"ada"}, {"grace"}, {"nobody"}]


def with_user(part: Any) -> Any:
    return part.assign(user=USER.get())


def test_a_peer_to_peer_shuffle_runs_without_values_and_says_so(client: Client) -> None:
    array = dask.array.ones((8, 8), chunks=(8, 4)).map_blocks(times_the_length_of_the_user, dtype=float)
    with USER.set("ada"):
        with pytest.warns(travel.TravelWarning, match="peer-to-peer shuffle: dask-user"):
            assert array.rechunk((4, 8), method="p2p").sum().compute() == 64 * 6
        assert array.rechunk((4, 8), method="tasks").sum().compute() == 64 * 3


def test_no_tasks_at_all(client: Client) -> None:
    with USER.set("ada"):
        assert client.map(seen, []) == []
        assert client.compute([]) == []


def test_results_are_released_as_ever(client: Client) -> None:
    with USER.set("ada"):
        future = client.submit(seen, "released")
        persisted = dask.delayed(seen)(future).persist()
        distributed.wait(persisted)
    keys = {future.key, persisted.key}
    assert keys <= set(client.run_on_scheduler(keys_of))
    del future, persisted
    while keys & set(client.run_on_scheduler(keys_of)):
        pass


def keys_of(dask_scheduler: Any) -> list[Any]:
    return list(dask_scheduler.tasks)


def where(number: int) -> tuple[str, object]:
    return distributed.get_worker().address, USER.get()


# ---- many tasks, few threads ----


def test_ten_thousand_tasks_of_different_values_and_a_worker_killed_in_the_middle(
    client: Client, cluster: distributed.LocalCluster
) -> None:
    def submitted(users: range) -> list[Any]:
        futures = []
        for user in users:
            with USER.set(f"user {user}"):
                futures += client.map(seen_and_left, range(10 * user, 10 * user + 10), pure=False)
        return futures

    futures = submitted(range(500))
    # Some are done, whose results the worker holds, and others wait for it.
    futures[1000].result()
    process = cluster.workers[0].process.pid
    os.kill(process, signal.SIGKILL)
    futures += submitted(range(500, 1000))
    results = client.gather(futures)
    assert results == [(number, f"user {number // 10}", "nothing") for number in range(10000)]
    assert cluster.workers[0].process.pid != process


def test_a_task_that_is_tried_again_has_the_values_of_its_submitter(client: Client) -> None:
    with USER.set("ada"):
        future = client.submit(fails_at_first, time.time(), retries=5)
    assert future.result() == "ada"


def fails_at_first(started: float) -> object:
    worker = distributed.get_worker()
    tried = worker.__dict__.setdefault("tried", set())
    if started not in tried:
        tried.add(started)
        raise RuntimeError("try again")
    return USER.get()


# ---- tasks that go on ----


def test_tasks_that_submit_tasks(client: Client) -> None:
    with USER.set("ada"):
        futures = [client.submit(fn, pure=False) for fn in (by_get_client, by_worker_client, by_compute_inside)]
    assert [future.result() for future in futures] == [("ada", "unset", "inner")] * 3


def by_get_client() -> object:
    client = connect(distributed.get_client(), audience="process")
    return client.submit(seen, "inner", pure=False).result()


def by_worker_client() -> object:
    with distributed.worker_client() as client:
        return connect(client, audience="process").submit(seen, "inner", pure=False).result()


def by_compute_inside() -> object:
    connect(distributed.get_client(), audience="process")
    return dask.delayed(seen)("inner").compute()


def test_secede_and_rejoin(client: Client) -> None:
    with USER.set("ada"):
        assert client.submit(secedes, pure=False).result() == ("ada", "ada")


def secedes() -> tuple[object, object]:
    before = USER.get()
    distributed.secede()
    distributed.rejoin()
    return before, USER.get()


class Counter:
    def __init__(self) -> None:
        self.made_by = USER.get()

    def maker(self) -> object:
        return self.made_by

    def user(self) -> object:
        return USER.get()


def test_an_actor_is_made_with_the_values_and_its_methods_are_as_ever(client: Client) -> None:
    with USER.set("ada"):
        actor = client.submit(Counter, actor=True).result()
        assert actor.maker().result() == "ada"
        assert actor.user().result() == "nobody"


def test_run_is_as_ever_and_takes_bound_functions(client: Client) -> None:
    with USER.set("ada"):
        assert set(client.run(seen).values()) == {("nobody", "unset")}
        assert set(client.run(bind(seen)).values()) == {("ada", "unset")}


def test_errors_come_back_as_usual(client: Client) -> None:
    with USER.set("ada"):
        with pytest.raises(ZeroDivisionError):
            client.submit(divmod, 1, 0).result()
        with pytest.raises(ZeroDivisionError):
            dask.delayed(divmod)(1, 0).compute()
        with pytest.raises(TypeError, match="callable"):
            client.submit("no function")  # type: ignore[arg-type]


# ---- bad values, other audiences, other clients ----


def test_a_value_that_cannot_be_encoded_stays_with_a_warning_and_the_task_runs(client: Client) -> None:
    with assign({USER: ["not", "text"], TRUSTED: "t"}):
        with pytest.warns(travel.TravelWarning, match="dask-user: its value is a list"):
            future = client.submit(seen, "bad")
        with pytest.warns(travel.TravelWarning, match="dask-user: its value is a list"):
            assert dask.delayed(seen)("bad").compute() == ("nobody", "unset", "bad")
    assert future.result() == ("nobody", "unset", "bad")


def test_who_the_workers_are_decides_what_they_see(cluster: distributed.LocalCluster) -> None:
    def found(client: Client) -> object:
        with client, assign({USER: "ada", TRUSTED: "yes"}):
            return client.submit(both).result()

    assert found(Client(cluster, set_as_default=False)) == ("ada", "yes")
    assert found(Client(cluster.scheduler_address, set_as_default=False)) == ("nobody", "yes")
    assert found(Client(cluster.scheduler_address, set_as_default=False, audience="process")) == ("ada", "yes")
    assert found(Client(cluster, set_as_default=False, audience="public")) == ("nobody", "nothing")


def both() -> tuple[object, object]:
    return USER.get(), TRUSTED.get()


class TheirClient(distributed.Client):  # type: ignore[misc]
    pass


@pytest.mark.parametrize("kind", [distributed.Client, TheirClient])
def test_connect_lets_any_client_carry(cluster: distributed.LocalCluster, kind: type[distributed.Client]) -> None:
    with kind(cluster, set_as_default=False) as theirs:
        with USER.set("ada"):
            assert theirs.submit(seen, "connected").result()[0] == "nobody"
            client = connect(theirs)
            assert client is theirs and isinstance(client, kind) and connect(client) is client
            assert client.submit(seen, "connected").result()[0] == "ada"


def test_connect_takes_a_client() -> None:
    with pytest.raises(TypeError, match="connect\\(\\) takes a distributed.Client, not 'tcp://scheduler:8786'"):
        connect("tcp://scheduler:8786")


def test_workers_in_this_process_see_nothing_of_whoever_started_them() -> None:
    async def main() -> Any:
        with assign({USER: "the starter", SECRET: "the starter's"}):
            cluster = await distributed.LocalCluster(
                n_workers=1, processes=False, asynchronous=True, dashboard_address=":0", silence_logs=50
            )
        async with cluster, Client(cluster, asynchronous=True, set_as_default=False) as client:
            with USER.set("ada"):
                futures = [client.submit(seen, 1), client.submit(seen_after_waiting, 2)]
            return await client.gather([*futures, client.submit(seen, 3), client.submit(seen_after_waiting, 4)])

    found = asyncio.run(main())
    assert found == [("ada", "unset", 1), ("ada", "unset", 2), ("nobody", "unset", 3), ("nobody", "unset", 4)]


# ---- without a cluster ----


@pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler")
@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_local_schedulers_take_a_pool_that_carries(scheduler: str) -> None:
    kind = executors.ThreadPoolExecutor if scheduler == "threads" else executors.ProcessPoolExecutor
    tasks = [dask.delayed(seen_and_left)(number) for number in range(8)]
    # Else "processes" runs several tasks in one call of the pool's.
    with kind(2) as pool, dask.config.set(scheduler=scheduler, pool=pool, chunksize=1):
        for user in ["ada", "grace"]:
            with USER.set(user):
                assert dask.compute(*tasks) == tuple((number, user, "nothing") for number in range(8))
