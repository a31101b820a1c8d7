"""What operations cost, counted: calls of `__hash__` and `__eq__`, nodes made and shared, and how both grow."""

from __future__ import annotations

import gc
import itertools
import operator
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import Hamt, HamtSet
from contextvars_cy._hamt.trie_py import fold, fold_by_halves, popcount_by_sums, unfold
from interpreters import CPYTHON
from keys import Key, Watch, WatchedKey

SIZES = (500, 8000)


def numbers(size: int) -> list[int]:
    """As far apart as hashes are."""
    return Random(size).sample(range(1 << 32), size)


def watched(places: list[int], watch: Watch) -> list[WatchedKey]:
    return [WatchedKey(place, place, watch) for place in places]


def nodes(hamt: Any) -> set[int]:
    """The addresses of a tree's nodes, on either twin."""
    found, stack = set[int](), [part for part in gc.get_referents(hamt) if is_node(part)]
    while stack:
        node = stack.pop()
        if id(node) not in found:
            found.add(id(node))
            parts = gc.get_referents(node)
            for part in parts:
                stack += [part] if is_node(part) else gc.get_referents(part) if type(part) is list else []
            stack = [part for part in stack if is_node(part)]
    return found


def is_node(part: object) -> bool:
    return type(part).__name__ == "_Node" or type(part) is tuple and len(part) == 3 and type(part[2]) is list


OPERATIONS: dict[str, Callable[[Any, Any], object]] = {
    "|": operator.or_,
    "&": operator.and_,
    "-": operator.sub,
    "^": operator.xor,
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "isdisjoint": lambda one, other: one.isdisjoint(other),
}


@pytest.mark.parametrize("kind", [HamtSet, frozenset])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_small_set_beside_a_big_one_costs_the_small_one(name: str, kind: Callable[[Any], Any]) -> None:
    counts = []
    for size in SIZES:
        watch = Watch()
        places = numbers(size)
        big = HamtSet(watched(places, watch))
        # Half of it is in the other.
        few = watched([*places[:4], *(place ^ 1 << 31 for place in places[4:8])], watch)
        for one, other in ((big, kind(few)), (HamtSet(few), kind(big) if kind is HamtSet else big)):
            watch.restart()
            OPERATIONS[name](one, other)
            counts.append(watch.calls)
    assert max(counts) < 150, counts


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "isdisjoint"])
def test_two_big_sets_cost_their_difference(name: str) -> None:
    counts = []
    for size in SIZES:
        watch = Watch()
        big = HamtSet(watched(numbers(size), watch))
        gone, more = next(iter(big)), WatchedKey("more", 5, watch)
        other = big.remove(gone).add(more)
        watch.restart()
        OPERATIONS[name](big, other)
        OPERATIONS[name](other, big)
        counts.append(watch.calls)
    assert max(counts) < 40, counts


@pytest.mark.skipif(not CPYTHON, reason="what it holds cannot be asked of PyPy's list")
@pytest.mark.parametrize("kind", [HamtSet, frozenset])
@pytest.mark.parametrize("name", ["|", "-", "^"])
def test_what_a_small_set_does_not_change_is_shared(name: str, kind: Callable[[Any], Any]) -> None:
    for size in SIZES:
        places = numbers(size)
        big = HamtSet(Key(place, place) for place in places)
        few = kind([Key(places[0], places[0]), Key("new", places[1] ^ 1 << 31)])
        result = OPERATIONS[name](big, few)
        assert len(nodes(result._hamt) - nodes(big._hamt)) < 16  # type: ignore[attr-defined]


@pytest.mark.skipif(not CPYTHON, reason="what it holds cannot be asked of PyPy's list")
def test_a_small_map_is_put_into_a_big_one_in_either_order() -> None:
    for size in SIZES:
        watch = Watch()
        places = numbers(size)
        big = Hamt.fromkeys(watched(places, watch), 1)
        small = Hamt.fromkeys(watched([places[0], places[1] ^ 1 << 31], watch), 2)
        for one, other in ((big, small), (small, big)):
            watch.restart()
            result = one | other
            assert watch.calls < 40
            assert len(result) == size + 1 and len(nodes(result) - nodes(big)) < 16
        # The other's values win, and this map's keys stay.
        assert (small | big)[next(iter(small))] in (1, 2) and set(map(id, small)) <= set(map(id, small | big))


def test_views_begin_with_the_smaller_one() -> None:
    for size in SIZES:
        watch = Watch()
        places = numbers(size)
        big = Hamt.fromkeys(watched(places, watch), 1)
        small = Hamt.fromkeys(watched(places[:3], watch), 1)
        for one, other in itertools.permutations([big, small]):
            watch.restart()
            assert len(one.keys() & other.keys()) == len(one.items() & other.items()) == 3
            assert not one.keys().isdisjoint(other.keys())
            assert watch.calls < 60


@pytest.mark.parametrize("size", SIZES)
def test_views_of_near_maps_cost_the_difference(size: int) -> None:
    watch = Watch()
    keys = watched(numbers(size), watch)
    hamt = Hamt.fromkeys(keys, 1)
    near, smaller = hamt.set(keys[0], 2), hamt.delete(keys[1])
    watch.restart()
    assert hamt.keys() == near.keys() >= smaller.keys() < hamt.keys() and hamt.items() != near.items()
    assert hamt.items() == near.set(keys[0], 1).items()
    assert hamt.items() > smaller.items() <= hamt.items() and not hamt.items() >= near.items()
    few = Hamt.fromkeys(keys[:3], 1)
    assert few.items() < hamt.items() > few.items() and not few.items() >= hamt.items()
    assert watch.calls < 200


@pytest.mark.parametrize("size", SIZES)
def test_names_beside_a_map_are_set_in_it(size: int) -> None:
    watch = Watch()
    hamt: Any = Hamt.fromkeys(watched(numbers(size), watch), 1)
    few = Hamt[Any, int](a=1, b=2)
    watch.restart()
    changed = [Hamt(hamt, a=1, b=2), hamt.update(hamt.set("a", 1), b=2), hamt.update(few), few | hamt]
    with hamt.mutate() as mutation:
        mutation.update(hamt, a=1, b=2)
    assert all(other == changed[0] and len(nodes(other) - nodes(hamt)) < 20 for other in [*changed, mutation.finish()])
    assert watch.calls < 100


def test_a_set_that_is_not_equal_shows_it_early() -> None:
    watch = Watch()
    keys = watched(numbers(1000), watch)
    others = frozenset(watched(numbers(1001)[:1000], watch))
    elements = HamtSet(keys)
    watch.restart()
    assert elements != others and others != elements
    assert watch.calls < 10


@pytest.mark.skipif(not CPYTHON, reason="only CPython tells how much memory is in use")
def test_a_mutation_that_deletes_needs_about_the_memory_of_the_map() -> None:
    import tracemalloc

    keys = numbers(10_000)
    tracemalloc.start()
    try:
        hamt = Hamt.fromkeys(keys)
        size = tracemalloc.get_traced_memory()[0]
        mutation = hamt.mutate()
        tracemalloc.reset_peak()
        for key in keys:
            del mutation[key]
        assert tracemalloc.get_traced_memory()[1] <= 2.5 * size
    finally:
        tracemalloc.stop()
    assert len(mutation) == 0 and len(hamt) == len(keys)


# ---- hashes ----


def test_maps_of_permuted_values_have_different_hashes() -> None:
    maps = [Hamt(zip("abcdefg", values)) for values in itertools.permutations(range(7))]
    assert len(set(map(hash, maps))) == len(maps)
    grid = [Hamt(x=x, y=y) for x in range(100) for y in range(100)]
    assert len(set(map(hash, grid))) == len(grid)


def test_a_hash_is_computed_once() -> None:
    watch = Watch()
    keys = watched(list(range(1, 40)), watch)
    for thing in (Hamt.fromkeys(keys, 1), HamtSet(keys)):
        first = hash(thing)
        watch.restart()
        assert hash(thing) == first and watch.calls == 0
    # Whatever the number.
    assert all(hash(Hamt(a=number)) == hash(frozenset({("a", number)})) for number in range(2000))


KINDS: dict[str, Callable[[int], object]] = {
    "from 0 up": lambda number: number,
    "negative and positive": lambda number: number - 5000,
    "even": lambda number: 2 * number,
    "thousands": lambda number: 1000 * number,
    "powers of two apart": lambda number: number << 20,
    "far apart": lambda number: number << 45,
    "packed pairs": lambda number: number << 32 | number,
    "a packed grid": lambda number: number // 100 << 32 | number % 100,
    "halves": lambda number: number / 2,
    "tenths": lambda number: number / 10,
    "negative quarters": lambda number: -number / 4,
    "pairs": lambda number: (number // 100, number % 100),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [100, 1000, 10_000])
def test_keys_of_every_kind_spread_alike(kind: str, size: int) -> None:
    hamt = Hamt.fromkeys(map(KINDS[kind], range(size)))
    random = Hamt.fromkeys(Key(place, place) for place in numbers(size))
    assert hamt._dump().count("Node ") <= 1.2 * random._dump().count("Node ") + 10
    # Python gives -1 and -2 one hash.
    assert hamt._dump().count("CollisionNode") <= 1


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_both_ways_to_fold_a_hash_give_the_same(key_hash: int) -> None:
    assert fold_by_halves(key_hash) == fold(key_hash)


@given(st.integers(0, (1 << 32) - 1))
def test_both_ways_to_count_bits_give_the_same(bitmap: int) -> None:
    assert popcount_by_sums(bitmap) == bin(bitmap).count("1")


CHANGES: dict[str, Callable[[Any, Any], object]] = {
    "set": lambda hamt, key: hamt.set(key, "new"),
    "delete": lambda hamt, key: hamt.delete(key),
    "discard": lambda hamt, key: hamt.discard(key),
    "mutation.set": lambda hamt, key: hamt.mutate().set(key, "new"),
    "mutation.pop": lambda hamt, key: hamt.mutate().pop(key),
    "del mutation": lambda hamt, key: operator.delitem(hamt.mutate(), key),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_compares_its_key_once(name: str) -> None:
    watch = Watch()
    hamt = Hamt.fromkeys(watched([5, 5 + 32, 6], watch), "old")
    key = WatchedKey(5, 5, watch)
    watch.restart()
    CHANGES[name](hamt, key)
    # The hashes of both, and one comparison.
    assert watch.calls == 3


@given(st.integers(0, (1 << 32) - 1))
def test_a_hash_can_be_found_for_every_place(place: int) -> None:
    assert fold(unfold(place)) == place


@given(st.integers(0, (1 << 31) - 1))
def test_a_hash_that_was_found_is_that_of_an_object_that_returns_it(place: int) -> None:
    class Placed:
        # As ContextVar's: in an attribute without a slot PyPy would store the number in another way.
        __slots__ = ("_hash",)
        _hash: int

        def __hash__(self) -> int:
            return self._hash

    placed = Placed()
    placed._hash = unfold(place)
    assert hash(placed) == placed._hash


def test_keys_of_different_hashes_are_not_compared() -> None:
    class Condition(Key):
        """Like a column of a query builder: `==` makes a condition, which is always true."""

        __hash__ = Key.__hash__

        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

    keys = [Condition(number, number % 3 | number << 20) for number in range(300)]
    hamt = Hamt[Condition, int]()
    for number, key in enumerate(keys):
        hamt = hamt.set(key, number)
    hamt._check()
    more = Condition("more", 1 << 32)
    assert more not in hamt and len(hamt) == 300 and hamt.discard(more) is hamt
    assert len(hamt.set(more, 1)) == 301
    assert len(hamt | Hamt.fromkeys([more], 1)) == len(hamt.update({more: 1})) == 301
    assert HamtSet(keys).isdisjoint({more}) and not hamt.diff(hamt.set(more, 1)).removed
    with hamt.mutate() as mutation:
        mutation[more] = 1
        assert mutation.pop(keys[0]) == 0
    assert len(mutation.finish()) == 300
