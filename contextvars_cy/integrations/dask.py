"""Dask's tasks have the values of the Context that submitted them, on threads, processes and clusters.

- `Client` replaces `distributed.Client`, and `connect` does the same to a client that other code has made.
- Local schedulers need neither: give them a pool of `contextvars_cy.executors`, by `dask.config.set(pool=...)`.

The values are those of variables that are registered with `contextvars_cy.travel`, as they are when `submit`, `map`,
`compute`, `persist` or `get` is called. The workers need this package too.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import warnings
from collections.abc import Callable, Collection
from typing import Any, cast

from .. import Context, travel
from .._late import keep_builtins
from ..travel import Audience, Capsule
from ._needed import needed
from ._worker import context_of

with needed("dask", "dask", "distributed"):
    import distributed
    import distributed.worker
    from dask.base import get_name_from_key, normalize_token
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
    from dask.utils import ensure_dict, funcname
    from distributed.utils import iscoroutinefunction

try:
    from . import _dask_nodes as _graphs
except ImportError:
    from . import _dask_tuples as _graphs  # type: ignore[no-redef]

__all__ = ["Client", "connect"]

# After `install()` it is one of ours, and `get_worker` asks it.
_KEPT = (getattr(distributed.worker, "_worker_cvar", None),)


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]


# ---- in the worker ----


async def _await_in(context: Context, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return await context.run(lambda: asyncio.ensure_future(fn(*args, **kwargs)))


class _Carried:
    """A function and the values that it is called with; what dask asks of a function it says of that one."""

    __slots__ = ("_capsule", "_fn", "_is_coroutine_function")

    def __init__(self, capsule: Capsule, fn: Callable[..., Any], is_coroutine_function: bool) -> None:
        self._capsule, self._fn, self._is_coroutine_function = capsule, fn, is_coroutine_function

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        context = context_of(self._capsule, _KEPT)
        if self._is_coroutine_function:
            return _await_in(context, self._fn, args, kwargs)
        return context.run(self._fn, *args, **kwargs)

    def __reduce__(self) -> Any:
        return _Carried, (self._capsule, self._fn, self._is_coroutine_function)

    def __repr__(self) -> str:
        return f"<{self._fn!r} with {self._capsule!r}>"

    # The keys of tasks begin with it.
    @property
    def __name__(self) -> str:
        return cast(str, funcname(self._fn))

    # The mark that distributed looks for on every Python.
    @property
    def __tornado_coroutine__(self) -> bool:
        return self._is_coroutine_function

    def __dask_tokenize__(self) -> Any:
        """A pure function has one result for each of its values; without any, it is the same task as everybody's."""
        token = normalize_token(self._fn)
        return (token, _suffix_of(self._capsule)) if self._capsule else token


# ---- graphs: the same tasks under other keys ----


def _suffix_of(capsule: Capsule) -> str:
    return hashlib.blake2b(repr(sorted(capsule.items())).encode(), digest_size=16).hexdigest()


def _renamed(key: Any, suffix: str) -> Any:
    if isinstance(key, tuple):
        return (_renamed(key[0], suffix), *key[1:])
    return f"{key}-{suffix}"


def _carrying_graph(graph: Any, capsule: Capsule) -> tuple[dict[Any, Any], Any]:
    """The new keys by the old ones, and a graph that computes the same with the capsule's values.

    To dask a key is a result, and others may compute the same graph with other values.
    """
    tasks = dict(_graphs.tasks_of(graph))
    suffix = _suffix_of(capsule)
    keys = {key: _renamed(key, suffix) for key in tasks}
    carry = functools.partial(_Carried, capsule)
    layers = {}
    for number, (common, members) in enumerate([*_graphs.annotated_in(graph), (None, tuple(tasks))]):
        mapping = {
            keys[key]: _graphs.carrying_task(tasks.pop(key), keys[key], keys, carry) for key in members if key in tasks
        }
        layers[f"{suffix}-{number}"] = MaterializedLayer(mapping, annotations=common)
    return keys, _graphs.graph_of(HighLevelGraph(layers, {name: set() for name in layers}))


def _of_its_futures(collection: Any) -> Any:
    """A persisted collection whose keys are those of its futures, if it was made with a capsule's values.

    Under the old ones somebody may have computed it with other values.
    """
    # Asked of the class: a Delayed has every attribute.
    if hasattr(type(collection), "expr"):
        if "layer" not in collection.expr._parameters:
            return collection
        layer, keys = (collection.expr.operand(name) for name in ("layer", "keys"))
        new = {layer[key].key: layer[key] for key in keys}
        return type(collection)(collection.expr.substitute_parameters({"layer": new, "keys": list(new)}))
    futures = ensure_dict(collection.__dask_graph__()).items()
    if all(key == future.key for key, future in futures):
        return collection
    names = {get_name_from_key(key): get_name_from_key(future.key) for key, future in futures}
    rebuild, arguments = collection.__dask_postpersist__()
    return rebuild({future.key: future for _, future in futures}, *arguments, rename=names)


# ---- clients ----


class _Carrying(distributed.Client):
    """What a client does here, whatever its class."""

    _audience: Audience | None = None

    def _capture(self) -> Capsule:
        own = "trusted" if self.cluster is None else "process"
        return travel.capture(audience=self._audience or own)  # type: ignore[arg-type]

    def _carrying(self, fn: Any) -> Any:
        # What is no function dask complains of; and it calls `map` for each batch with what `map` was given.
        if not callable(fn) or isinstance(fn, _Carried):
            return fn
        return _Carried(self._capture(), fn, iscoroutinefunction(fn))

    def submit(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Submit `func(*args, **kwargs)` with the values that are registered, and return its Future.

        As with `distributed.Client`, equal calls share one result, unless `pure=False`; here calls with other values
        are not equal. A `key=` of your own says that they are.
        """
        return super().submit(self._carrying(func), *args, **kwargs)

    def map(self, func: Callable[..., Any], *iterables: Collection[Any], **kwargs: Any) -> Any:
        """Submit `func` for each element, with the values of the call of `map`, and return the Futures."""
        return super().map(self._carrying(func), *iterables, **kwargs)

    def persist(self, collections: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute collections in the background with the values of now; return collections of the results."""
        persisted = super().persist(collections, *args, **kwargs)
        return [*map(_of_its_futures, persisted)] if isinstance(persisted, list) else _of_its_futures(persisted)

    # Where `compute`, `persist` and `get` end.
    def _graph_to_futures(self, *args: Any, **options: Any) -> Any:
        # Only `submit` and `map`, whose function carries the values, order their tasks themselves.
        capsule = Capsule() if "internal_priority" in options else self._capture()
        if not capsule:
            return super()._graph_to_futures(*args, **options)
        graph, given_keys = *args, *(options.pop(name) for name in ("expr", "dsk", "keys") if name in options)
        keys, carrying = _carrying_graph(graph, capsule)
        if any(isinstance(key, str) and key.startswith("shuffle-barrier-") for key in keys):
            warnings.warn(
                f"values do not travel with a peer-to-peer shuffle: {', '.join(capsule)}; "
                'to take them along, choose dask.config.set({"dataframe.shuffle.method": "tasks", '
                '"array.rechunk.method": "tasks"})',
                travel.TravelWarning,
                stacklevel=4,
            )
            return super()._graph_to_futures(graph, given_keys, **options)
        given_keys = list(given_keys)
        if isinstance(options.get("actors"), (list, tuple, set)):
            options["actors"] = [keys.get(key, key) for key in options["actors"]]
        futures = super()._graph_to_futures(carrying, [keys.get(key, key) for key in given_keys], **options)
        return {key: futures[keys.get(key, key)] for key in given_keys}


class Client(_Carrying):
    """A `distributed.Client` whose tasks have the registered values of the Context that submitted them.

    The arguments are those of `distributed.Client`, and `audience`: who the workers are. Unless you say it, that is
    `"process"` if the client was given a cluster or makes one, and `"trusted"` if it was given a scheduler's address.

    Each task has a Context of its own, in which the capsule's values alone are set: it sees nothing of the tasks before
    it, and a task that is tried again sees its submitter's values again. `run` and the methods of an actor are left as
    they are. A value that cannot travel stays here, with a `TravelWarning`.

    `submit` and `map` cost some microseconds a task; a graph of collections with values is made in the client, not in
    the scheduler.
    """

    def __init__(self, *args: Any, audience: Audience | None = None, **kwargs: Any) -> None:
        self._audience = audience
        super().__init__(*args, **kwargs)


def connect(client: distributed.Client, *, audience: Audience | None = None) -> Client:
    """Let a client that other code has made carry values from now on, as `Client` does, and return it. O(1).

    In a task that is `connect(distributed.get_client(), audience="process")`, for the tasks that it submits.

    TypeError if it is no `distributed.Client`.
    """
    if not isinstance(client, distributed.Client):
        raise TypeError(f"connect() takes a distributed.Client, not {client!r}")
    kind = type(client)
    if not isinstance(client, _Carrying):
        client.__class__ = Client if kind is distributed.Client else type(kind.__name__, (_Carrying, kind), {})
    carrying = cast(Client, client)
    carrying._audience = audience
    return carrying


keep_builtins()
