"""Random histories of a persistent map: every way there is to set keys and to remove them, on either backend's maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from hypothesis import strategies as st

from keys import Key

T = TypeVar("T")
# Of either twin, which a type checker takes for different types.
Map = Any
History = list[tuple[str, list[Any], object]]

# Few positions at each level, so that keys meet at every depth: equal hashes, hashes that differ in the last level
# only, and other hashes that fold to the same 32 bits.
PLACES = st.one_of(
    st.integers(0, 3),
    st.sampled_from([0, 1 << 30, 1 << 31, 3 << 30, -2, -1 << 31, 1 << 32, (1 << 61) - 2, -1 << 61, 0xFFFFFFFE]),
    st.builds(lambda low, high: low | high << 25, st.integers(0, 2), st.integers(0, 3)),
)
KEYS = st.builds(lambda name, place: Key((name, place), place), st.integers(0, 3), PLACES)


def of_any_length(elements: st.SearchStrategy[T], longest: int) -> st.SearchStrategy[list[T]]:
    """Lists that are as often long as short; left to itself, Hypothesis makes them five long on average."""
    return st.integers(0, longest).flatmap(lambda length: st.lists(elements, min_size=length, max_size=length))


def set_each(hamt: Map, keys: Iterable[object], value: object) -> Map:
    for key in keys:
        hamt = hamt.set(key, value)
    return hamt


def set_each_in_a_mutation(hamt: Map, keys: Iterable[Key], value: object) -> Map:
    with hamt.mutate() as mutation:
        for key in keys:
            mutation[key] = value
    return mutation.finish()


def set_each_on_detours(hamt: Map, keys: Iterable[Key], value: object) -> Map:
    mutation = hamt.mutate()
    for key in keys:
        mutation.set(key, None)
        len(mutation)
        mutation.pop(key)
        mutation.update([(key, value)])
    return mutation.finish()


def update_a_mutation(hamt: Map, keys: Iterable[Key], value: object) -> Map:
    mutation = hamt.mutate()
    mutation.update(hamt.fromkeys(keys, value))
    return mutation.finish()


def merge_others(hamt: Map, keys: Iterable[Key], value: object) -> Map:
    return hamt.merge(hamt.fromkeys(()), hamt.fromkeys(keys, value), lambda key, base, own, other: other)


def merge_into_others(hamt: Map, keys: Iterable[Key], value: object) -> Map:
    return hamt.fromkeys(keys, value).merge(hamt.fromkeys(()), hamt, lambda key, base, own, other: own)


# Each gives the map in which all the keys have the value.
SETTERS: dict[str, Callable[[Map, list[Key], object], Map]] = {
    "set": set_each,
    "mutation": set_each_in_a_mutation,
    "mutation with detours": set_each_on_detours,
    "update of a mutation": update_a_mutation,
    "merge": merge_others,
    "merge from the other side": merge_into_others,
    "constructor": lambda hamt, keys, value: type(hamt)([*hamt.items(), *((key, value) for key in keys)]),
    "update with a dict": lambda hamt, keys, value: hamt.update(dict.fromkeys(keys, value)),
    "update with pairs": lambda hamt, keys, value: hamt.update((key, value) for key in keys),
    "update with a map": lambda hamt, keys, value: hamt.update(hamt.fromkeys(keys, value)),
    "|": lambda hamt, keys, value: hamt | dict.fromkeys(keys, value),
    "| from the right": lambda hamt, keys, value: dict(hamt.items()) | hamt.fromkeys(keys, value),
}


def discard_each(hamt: Map, keys: Iterable[Key]) -> Map:
    for key in keys:
        hamt = hamt.discard(key)
    return hamt


def delete_each(hamt: Map, keys: Iterable[Key]) -> Map:
    for key in keys:
        if key in hamt:
            hamt = hamt.delete(key)
    return hamt


def pop_each(hamt: Map, keys: Iterable[Key]) -> Map:
    with hamt.mutate() as mutation:
        for key in keys:
            mutation.pop(key, None)
    return mutation.finish()


def delete_each_in_a_mutation(hamt: Map, keys: Iterable[Key]) -> Map:
    mutation = hamt.mutate()
    for key in keys:
        if key in mutation:
            del mutation[key]
    return mutation.finish()


def merge_a_removal(hamt: Map, keys: Iterable[Key]) -> Map:
    other = discard_each(hamt, keys)
    return hamt.merge(hamt, other)


# Each gives the map in which none of the keys is.
REMOVERS: dict[str, Callable[[Map, list[Key]], Map]] = {
    "discard": discard_each,
    "delete": delete_each,
    "mutation pop": pop_each,
    "mutation del": delete_each_in_a_mutation,
    "merge of a removal": merge_a_removal,
    "constructor without": lambda hamt, keys: type(hamt)({key: hamt[key] for key in hamt if key not in keys}),
}

STEPS = st.tuples(st.sampled_from([*SETTERS, *REMOVERS]), st.lists(KEYS, max_size=4), st.integers(0, 3))
HISTORIES = of_any_length(STEPS, 12)


def step(hamt: Map, name: str, keys: list[Key], value: object) -> Map:
    return SETTERS[name](hamt, keys, value) if name in SETTERS else REMOVERS[name](hamt, keys)


def step_of_a_dict(expected: dict[Key, object], name: str, keys: list[Key], value: object) -> None:
    """What `step` does, done to a dict."""
    for key in keys:
        if name in SETTERS:
            expected[key] = value
        else:
            expected.pop(key, None)


def without_order_in_collisions(dump: str) -> list[str]:
    """The dump's lines, the entries of each collision node sorted: the one thing that the content leaves open."""
    lines = dump.splitlines()
    for start, line in enumerate(lines, 1):
        if line.endswith("CollisionNode"):
            end = start
            while end < len(lines) and ": " in lines[end]:
                end += 1
            lines[start:end] = sorted(lines[start:end])
    return lines
