"""Keys and values that raise, act, collide and die in the middle of any operation do no harm."""

from __future__ import annotations

import gc
import itertools
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import Hamt, HamtMutation, HamtSet
from histories import HISTORIES, KEYS, REMOVERS, SETTERS, History, Map, of_any_length, set_each, step
from interpreters import needs_room_at_the_end, needs_the_usual_frames, too_long_to_trace
from keys import Key, Sabotage, Watch, WatchedKey
from scenes import OPERATIONS, PLACES, Objects, Scene, described, undisturbed

# ---- every operation, with a call of `__hash__` or `__eq__` that raises or acts ----


@pytest.mark.parametrize("name", OPERATIONS)
def test_whichever_call_raises_leaves_all_as_it_was_and_trying_again_works(name: str) -> None:
    objects = Objects()
    scene = Scene(objects)
    before = scene.state()
    for number in itertools.count(1):
        objects.watch.restart(fails_at=number)
        try:
            result = OPERATIONS[name](scene, objects)
        except Sabotage:
            assert scene.state() == before
        else:
            break
    assert number > 1, "this operation calls neither __hash__ nor __eq__, and proves nothing"
    assert objects.watch.calls < number, "an exception was swallowed"
    objects.watch.restart()
    assert (described(result), scene.state()) == undisturbed(name)


@pytest.mark.parametrize("name", OPERATIONS)
def test_calls_that_drop_the_maps_and_collect_garbage_do_no_harm(name: str) -> None:
    objects = Objects()
    scene = Scene(objects)
    strangers = [Key(*item) for item in PLACES.items()]
    churn = []

    def drop() -> None:
        vars(scene).clear()
        gc.collect(0)
        # A reader of freed memory would find these in it.
        churn.append(Hamt.fromkeys(strangers, "wrong"))

    objects.watch.restart(acts=drop)
    result = OPERATIONS[name](scene, objects)
    objects.watch.restart()
    assert vars(scene) == {}
    assert described(result) == undisturbed(name)[0]


@pytest.mark.parametrize("name", OPERATIONS)
def test_calls_that_use_the_maps_meanwhile_do_no_harm(name: str) -> None:
    objects = Objects()
    scene = Scene(objects)

    def use() -> None:
        scene.hamt = Hamt(scene.pairs).set(objects.twins["a"], None) | scene.related
        assert scene.related.diff(scene.stranger).removed and len(scene.set | scene.stranger_set) == 12
        assert len(scene.mutation) in (8, 9)
        scene.hamt = Hamt(scene.pairs)

    objects.watch.restart(acts=use)
    result = OPERATIONS[name](scene, objects)
    objects.watch.restart()
    assert (described(result), scene.state()) == undisturbed(name)


# ---- references and memory ----

PROGRAMS = of_any_length(st.tuples(st.sampled_from([*OPERATIONS]), st.integers(0, 12)), 20)


def run(program: Iterable[tuple[str, int]], objects: Objects) -> None:
    """Do each operation twice: with the call of a number raising, and undisturbed."""
    scene = Scene(objects)
    results = []
    for name, fails_at in program:
        for number in (fails_at, 0):
            objects.watch.restart(fails_at=number)
            try:
                results.append(OPERATIONS[name](scene, objects))
            except (Sabotage, ValueError):
                # As it was told to, or since the program has finished the mutation.
                pass


# PyPy counts no references, and traces and schedules no allocations.
if sys.implementation.name == "cpython":
    import tracemalloc

    @given(PROGRAMS)
    def test_every_reference_is_given_back(program: list[tuple[str, int]]) -> None:
        objects = Objects()
        before = objects.reference_counts()
        run(program, objects)
        assert objects.reference_counts() == before

    @given(HISTORIES)
    def test_every_reference_is_given_back_after_any_history(history: History) -> None:
        def live() -> None:
            hamts: list[Map] = [Hamt()]
            for name, keys, value in history:
                hamts.append(step(hamts[-1], name, keys, value))

        keys = [key for _, keys, _ in history for key in keys]
        before = list(map(sys.getrefcount, keys))
        live()
        assert list(map(sys.getrefcount, keys)) == before

    @too_long_to_trace
    def test_memory_stays_flat() -> None:
        objects = Objects()

        def rounds(number: int) -> int:
            for _ in range(number):
                run(program, objects)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        program = [(name, number % 5) for number, name in enumerate(OPERATIONS)]
        tracemalloc.start()
        try:
            levels = [rounds(20) for _ in range(8)]
            # Less than the smallest object that one operation could leave behind in each round, once the interpreter's
            # own caches are full.
            assert min(abs(after - before) for before, after in zip(levels, levels[1:])) < 20 * sys.getsizeof(object())
        finally:
            tracemalloc.stop()

    @pytest.fixture
    def collector_at_every_allocation() -> Iterator[None]:
        threshold = gc.get_threshold()
        gc.set_threshold(1, 1_000_000, 1_000_000)
        yield
        gc.set_threshold(*threshold)

    @pytest.mark.usefixtures("collector_at_every_allocation")
    def test_the_collector_may_run_at_every_allocation() -> None:
        program = [(name, 0) for name in OPERATIONS]
        run(program, Objects())
        hamt: Map = Hamt()
        for name in [*SETTERS, *REMOVERS]:
            hamt = step(hamt, name, [Key(number, number % 3 << 31 | number) for number in range(40)], name)
            hamt._check()


@pytest.mark.parametrize("places", [[1], [1, 1], [1, 33]], ids=["root", "collision", "child"])
@pytest.mark.parametrize(
    "tie",
    [
        lambda value, hamt: hamt,
        lambda value, hamt: hamt.keys(),
        lambda value, hamt: hamt.values(),
        lambda value, hamt: hamt.items(),
        lambda value, hamt: iter(hamt),
        lambda value, hamt: iter(hamt.items()),
        lambda value, hamt: begun(iter(hamt.values())),
        lambda value, hamt: HamtSet(hamt).add(value),
        lambda value, hamt: Hamt.fromkeys([value]).update(hamt),
        lambda value, hamt: hamt.mutate(),
        lambda value, hamt: changed(hamt.mutate(), value),
        lambda value, hamt: (changed(hamt.mutate(), value), changed(hamt.mutate(), value)),
        lambda value, hamt: finished(changed(hamt.mutate(), value)),
    ],
    ids=[
        *("map", "keys", "values", "items", "iterator", "items' iterator", "begun iterator", "set", "key"),
        *("mutation", "changed mutation", "two mutations", "finished mutation"),
    ],
)
def test_cycles_are_collected(tie: Callable[[object, Map], object], places: list[int]) -> None:
    class Value:
        tie: object

    value = Value()
    hamt = Hamt((Key(number, place), value) for number, place in enumerate(places))
    value.tie = tie(value, hamt)
    reference = weakref.ref(value)
    del value, hamt
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    "finish", [lambda mutation: None, lambda mutation: mutation.finish()], ids=["open", "finished"]
)
def test_a_mutation_that_holds_itself_is_collected(finish: Callable[[HamtMutation[str, object]], object]) -> None:
    mutation: HamtMutation[str, object] = Hamt().mutate()
    mutation["itself"] = mutation
    finish(mutation)
    reference = weakref.ref(mutation)
    del mutation
    gc.collect()
    assert reference() is None


def begun(iterator: Iterator[object]) -> Iterator[object]:
    next(iterator)
    return iterator


def changed(mutation: HamtMutation[Any, Any], value: object) -> HamtMutation[Any, Any]:
    mutation["value"] = value
    mutation[Key("new", 1)] = value
    return mutation


def finished(mutation: HamtMutation[Any, Any]) -> HamtMutation[Any, Any]:
    len(mutation)
    mutation.finish()
    return mutation


def chain(length: int) -> Hamt[str, object]:
    hamt: Hamt[str, object] = Hamt()
    for _ in range(length):
        hamt = Hamt[str, object]().set("a", hamt)
    return hamt


@needs_the_usual_frames
@too_long_to_trace
def test_a_long_chain_of_maps_dies() -> None:
    chain(200_000)


@needs_the_usual_frames
@too_long_to_trace
def test_a_long_chain_of_mutations_dies() -> None:
    mutation: HamtMutation[str, object] = Hamt().mutate()
    for _ in range(200_000):
        mutation, inner = Hamt[str, object]().mutate(), mutation
        mutation["inner"] = inner
    del mutation, inner


@needs_the_usual_frames
@needs_room_at_the_end
@pytest.mark.parametrize(
    "call",
    [repr, hash, lambda hamt: hamt == chain(100_000), lambda hamt: hamt.diff(chain(100_000))],
    ids=["repr", "hash", "==", "diff"],
)
def test_a_chain_too_long_for_the_stack_is_a_recursion_error(call: Callable[[Hamt[str, object]], object]) -> None:
    with pytest.raises(RecursionError):
        call(chain(100_000))


def test_a_finaliser_that_goes_on_with_the_iterator_does_no_harm() -> None:
    iterators: list[Iterator[Key]] = []

    class Value:
        def __del__(self) -> None:
            if iterators:
                next(iterators[0], None)

    hamt = Hamt((Key(number, number), Value()) for number in range(31))
    hamt = hamt.set(Key("a", 31), Value()).set(Key("b", 63), Value())
    iterators.append(iter(hamt))
    del hamt
    assert 0 < len(list(iterators[0])) <= 33
    iterators.clear()


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda mutation: mutation.set("a", 1), {"a"}),
        (lambda mutation: mutation.update(a=1), {"a"}),
        (lambda mutation: mutation.pop("a"), set()),
        (lambda mutation: mutation.__delitem__("a"), set()),
    ],
    ids=["set", "update", "pop", "del"],
)
def test_a_finaliser_that_changes_the_mutation_whose_change_called_it_does_no_harm(
    change: Callable[[HamtMutation[str, object]], object], left: set[str]
) -> None:
    outcomes: list[set[str]] = []

    class Value:
        def __del__(self) -> None:
            try:
                mutation["from the finaliser"] = 1
                outcomes.append({"from the finaliser"})
            except (RuntimeError, ValueError):
                outcomes.append(set())

    mutation: HamtMutation[str, object] = Hamt().mutate()
    mutation["a"] = Value()
    change(mutation)
    hamt = mutation.finish()
    gc.collect()
    hamt._check()
    assert len(outcomes) == 1
    assert set(hamt) == left | outcomes[0]


# ---- hashes ----


@too_long_to_trace
def test_thousands_of_keys_with_one_hash() -> None:
    class Same(str):
        def __hash__(self) -> int:
            return 7

    keys = [Same(number) for number in range(2000)]
    hamt = Hamt.fromkeys(keys[:1000], 1)
    for key in keys[1000:]:
        hamt = hamt.set(key, 1)
    hamt._check()
    assert len(hamt) == len(hamt.update(dict.fromkeys(keys, 2))) == 2000
    assert all(hamt[Same(number)] == 1 for number in range(2000)) and Same("missing") not in hamt
    assert hamt == Hamt.fromkeys(reversed(keys), 1)
    with hamt.mutate() as mutation:
        for key in keys[::2]:
            del mutation[key]
    hamt = mutation.finish()
    assert not hamt.diff(Hamt.fromkeys(keys[1::2], 1)).changed and set(hamt) == set(keys[1::2])
    for key in keys[1::2]:
        hamt = hamt.delete(key)
    assert hamt == Hamt() and hamt._dump() == Hamt()._dump()


def test_hashes_that_differ_in_the_last_level_only() -> None:
    first, *others = keys = [Key(position, position << 30) for position in range(4)]
    hamt = Hamt.fromkeys(keys)
    hamt._check()
    assert [line.strip() for line in hamt._dump().splitlines()[1:8]] == [
        *["Node entries=0b0 children=0b1"] * 6,
        "Node entries=0b1111 children=0b0",
    ]
    assert all(key in hamt for key in keys)
    for key in others:
        hamt = hamt.delete(key)
    assert hamt._dump() == Hamt.fromkeys([first])._dump()


def test_everything_is_walked_down_to_the_eighth_level() -> None:
    """CPython issue 93065: a walk whose stack had one level too few."""
    keys = [Key(number, place) for number, place in enumerate([0, 0, 0, 1 << 30, 1 << 25, 1 << 32 | 1, 0])]
    hamt: Hamt[Key, Any] = Hamt((key, key.name) for key in keys)
    hamt._check()
    assert set(hamt) == set(hamt.keys()) == set(keys)
    assert sorted(hamt.values()) == list(range(7))
    assert dict(hamt.items()) == dict(zip(keys, range(7)))
    assert hamt == Hamt.fromkeys(keys).update(zip(keys, range(7)))
    assert Hamt[Key, Any]().diff(hamt).added == Hamt(hamt).diff(Hamt()).removed == dict(hamt)


@pytest.mark.parametrize(
    "numbers",
    [[-1, -2], [0, -1, -2, -3], [-1 << 60, 1 << 60], [5, 1 << 32 | 4, 2 << 32 | 7], [sys.maxsize, -sys.maxsize - 1]],
)
def test_numbers_whose_hashes_are_negative_or_alike(numbers: list[int]) -> None:
    hamt = Hamt((number, str(number)) for number in numbers)
    hamt._check()
    assert {number: hamt[number] for number in numbers} == {number: str(number) for number in numbers}
    for number in numbers:
        smaller = hamt.delete(number)
        smaller._check()
        assert number not in smaller and set(smaller) == set(numbers) - {number}


def test_keys_of_one_folded_hash_share_a_collision_node() -> None:
    keys = [Key("a", 5), Key("b", 1 << 32 | 5)]
    assert len(set(map(hash, keys))) == 2
    assert Hamt.fromkeys(keys)._dump().splitlines()[8:] == [
        " " * 16 + "CollisionNode",
        *(" " * 18 + f"{key!r}: None" for key in keys),
    ]


@given(st.lists(KEYS), KEYS)
def test_a_hash_that_is_no_number_is_a_type_error(keys: list[Key], victim: Key) -> None:
    hamt = Hamt.fromkeys(keys)
    victim.key_hash = "text"  # type: ignore[assignment]
    with pytest.raises(TypeError, match="__hash__ method should return an integer"):
        hamt.set(victim, 1)


def test_an_old_key_that_no_longer_hashes_leaves_the_map_as_it_was() -> None:
    watch = Watch()
    hamt = Hamt[Key, int]().set(WatchedKey("old", 3, watch), 1)
    before = hamt._dump()
    watch.restart(fails_at=1)
    with pytest.raises(Sabotage):
        hamt.set(Key("new", 3 | 1 << 5), 2)
    watch.restart()
    assert hamt._dump() == before


def test_an_answer_of_equality_that_has_no_truth_passes_through() -> None:
    class Doubtful:
        def __bool__(self) -> None:
            raise ZeroDivisionError

    class Vague(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other: object) -> Any:
            return Doubtful()

    hamt = set_each(Hamt(), [Vague("a", 1)], Vague("value", 0))
    before = hamt._dump()
    for call in (
        lambda: hamt.set(Vague("a", 1), 1),
        lambda: hamt.get(Vague("a", 1)),
        lambda: hamt.delete(Vague("a", 1)),
        lambda: hamt.update([(Vague("a", 1), 1)]),
        lambda: hamt == Hamt.fromkeys(hamt, Vague("value", 0)),
        lambda: hamt.diff(Hamt.fromkeys(hamt, Vague("value", 0))),
        lambda: Vague("value", 0) in hamt.values(),
        lambda: hamt.mutate().pop(Vague("a", 1)),
    ):
        with pytest.raises(ZeroDivisionError):
            call()
    assert hamt._dump() == before
