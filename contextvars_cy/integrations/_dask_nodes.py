"""Dask's graphs whose tasks are nodes, since 2024.12; `_dask_tuples` does the same for the older ones.

A graph is an expression here; before 2025.4 it was layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dask._task_spec import Alias, DataNode, Task, TaskRef, convert_legacy_graph
from dask.utils import ensure_dict

try:
    from dask._expr import HLGExpr
except ImportError:
    HLGExpr = None


def tasks_of(graph: Any) -> dict[Any, Any]:
    tasks = ensure_dict(graph) if HLGExpr is None else graph.__dask_graph__()
    converted: dict[Any, Any] = convert_legacy_graph(tasks)
    return converted


def annotated_in(graph: Any) -> Iterable[tuple[dict[str, Any], Iterable[Any]]]:
    """Annotations, and the keys of the tasks that have just these."""
    if HLGExpr is None:
        return [(layer.annotations, layer) for layer in getattr(graph, "layers", {}).values()]
    by_key: dict[Any, dict[str, Any]] = {}
    for kind, values in graph.__dask_annotations__().items():
        for key, value in values.items():
            by_key.setdefault(key, {})[kind] = value
    groups: dict[str, tuple[dict[str, Any], list[Any]]] = {}
    for key, own in by_key.items():
        groups.setdefault(repr(own), (own, []))[1].append(key)
    return groups.values()


def carrying_task(node: Any, key: Any, keys: dict[Any, Any], carry: Callable[..., Any]) -> Any:
    """The task under another key, as `carry` wraps it, with the results of the tasks under their other keys."""
    if isinstance(node, (Alias, DataNode)):
        return node.substitute(keys, key=key)
    needs = tuple(node.dependencies)
    results = (TaskRef(keys.get(each, each)) for each in needs)
    carried = carry(functools.partial(_compute, node, needs), node.is_coro)
    # A hint to the scheduler, since 2025.1.
    hint: dict[str, Any] = {"_data_producer": True} if getattr(node, "data_producer", False) else {}
    return Task(key, carried, *results, **hint)


def _compute(node: Callable[[Mapping[Any, Any]], Any], needs: Iterable[Any], *results: Any) -> Any:
    return node(dict(zip(needs, results)))


def graph_of(layers: Any) -> Any:
    return layers if HLGExpr is None else HLGExpr(layers, output_keys=[])
