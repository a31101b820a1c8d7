"""Dask's graphs before 2024.12: a task is a tuple, a key stands for a result. `_dask_nodes` is for the newer ones."""

from __future__ import annotations

import functools
from collections import ChainMap
from collections.abc import Callable, Iterable
from typing import Any

from dask.core import _execute_task, istask, keys_in_tasks  # pyright: ignore[reportAttributeAccessIssue]
from dask.utils import ensure_dict
from distributed import Future
from distributed.utils import iscoroutinefunction
from distributed.utils_comm import unpack_remotedata


def tasks_of(graph: Any) -> dict[Any, Any]:
    tasks: dict[Any, Any] = ensure_dict(graph)
    return tasks


def annotated_in(graph: Any) -> Iterable[tuple[dict[str, Any], Iterable[Any]]]:
    return [(layer.annotations, layer) for layer in getattr(graph, "layers", {}).values()]


def carrying_task(given: Any, key: Any, keys: dict[Any, Any], carry: Callable[..., Any]) -> Any:
    if isinstance(given, Future):
        return given
    # Inside of a function the scheduler would not find them.
    task, futures = unpack_remotedata(given)
    known = ChainMap({future.key: future for future in futures}, keys)
    needs = tuple(keys_in_tasks(known, [task]))
    if needs == (task,):
        return known[task]
    if not needs and not istask(task) and not isinstance(task, list):
        return task
    carried = carry(functools.partial(_compute, task, needs), istask(task) and iscoroutinefunction(task[0]))
    return (carried, *(known[each] for each in needs))


def _compute(task: Any, needs: Iterable[Any], *results: Any) -> Any:
    return _execute_task(task, dict(zip(needs, results)))


def graph_of(layers: Any) -> Any:
    return layers
