"""HamtMutation: many changes to one map, as a dict would take them, and the one map that comes of them."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import MISSING, Hamt, HamtMutation
from histories import KEYS, PLACES, of_any_length
from interpreters import counts_on_the_gil
from keys import Key, Watch, WatchedKey

T = TypeVar("T")
Pairs = list[tuple[Key, int]]

VALUES = st.integers(0, 3)
PAIRS = st.lists(st.tuples(KEYS, VALUES), max_size=4)


# ---- a history in lockstep with a dict ----


class Model(dict[Key, int]):
    """A dict with what a mutation has by other names."""

    set = dict.__setitem__

    def update(self, source: Iterable[tuple[Key, int]]) -> None:  # type: ignore[override]
        super().update(source)


# Each takes a mutation, a key, a value and pairs.
CALLS: dict[str, Callable[[Any, Key, int, Pairs], object]] = {
    "set": lambda mutation, key, value, pairs: mutation.set(key, value),
    "[]=": lambda mutation, key, value, pairs: mutation.__setitem__(key, value),
    "del": lambda mutation, key, value, pairs: mutation.__delitem__(key),
    "pop": lambda mutation, key, value, pairs: mutation.pop(key),
    "pop with a default": lambda mutation, key, value, pairs: mutation.pop(key, value),
    "get": lambda mutation, key, value, pairs: mutation.get(key),
    "get with a default": lambda mutation, key, value, pairs: mutation.get(key, value),
    "[]": lambda mutation, key, value, pairs: mutation[key],
    "in": lambda mutation, key, value, pairs: key in mutation,
    "len": lambda mutation, key, value, pairs: len(mutation),
    "update with a dict": lambda mutation, key, value, pairs: mutation.update(dict(pairs)),
    "update with pairs": lambda mutation, key, value, pairs: mutation.update(pairs),
    "update with a bad pair": lambda mutation, key, value, pairs: mutation.update([*pairs, "bad"]),
}
PROGRAMS = of_any_length(st.tuples(st.sampled_from([*CALLS, "share", "go on"]), KEYS, VALUES, PAIRS), 25)


def outcome(call: Callable[..., object], *args: object) -> object:
    try:
        return call(*args)
    except (KeyError, TypeError, ValueError) as error:
        return type(error), error.args


@given(PAIRS, PROGRAMS)
def test_a_mutation_does_as_a_dict_and_writes_to_no_map(
    pairs: Pairs, program: list[tuple[str, Key, int, Pairs]]
) -> None:
    kept = [Hamt(pairs)]
    model = Model(pairs)
    mutation = kept[0].mutate()
    dumps = [kept[0]._dump()]
    for name, key, value, more_pairs in program:
        if name == "share":
            # Its nodes are the mutation's too from now on, and must not be written to.
            kept.append(Hamt(more_pairs))
            mutation.update(kept[-1])
            model.update(more_pairs)
        elif name == "go on":
            kept.append(mutation.finish())
            mutation = kept[-1].mutate()
        elif name == "update with a bad pair":
            # Where a dict takes the good pairs, a mutation takes none.
            assert outcome(CALLS[name], mutation, key, value, more_pairs) == outcome(dict, [*more_pairs, "bad"])
        else:
            expected = outcome(CALLS[name], model, key, value, more_pairs)
            assert outcome(CALLS[name], mutation, key, value, more_pairs) == expected
        dumps += [hamt._dump() for hamt in kept[len(dumps) :]]
    hamt = mutation.finish()
    hamt._check()
    # By identity: the first of equal keys stays, as in a dict.
    assert {id(key): value for key, value in hamt.items()} == {id(key): value for key, value in model.items()}
    assert len(hamt) == len(mutation) == len(model)
    assert [hamt._dump() for hamt in kept] == dumps


@given(PAIRS, PAIRS, PAIRS)
def test_mutations_of_one_map_know_nothing_of_each_other(pairs: Pairs, one_pairs: Pairs, two_pairs: Pairs) -> None:
    hamt = Hamt(pairs)
    one, two = hamt.mutate(), hamt.mutate()
    for key, value in one_pairs:
        one[key] = value
        for other_key, other_value in two_pairs:
            two[other_key] = other_value
            two.pop(key, None)
    for key, _ in two_pairs:
        one.pop(key, None)
    assert hamt == Hamt(pairs)
    expected = {**dict(pairs), **dict(one_pairs)}
    for key, _ in two_pairs:
        expected.pop(key, None)
    assert one.finish() == Hamt(expected)
    two.finish()._check()


@given(PAIRS, PAIRS)
def test_equal_mutations(pairs: Pairs, other_pairs: Pairs) -> None:
    hamt, other = Hamt(pairs), Hamt(other_pairs)
    mutation: HamtMutation[Key, int] = Hamt().mutate()
    mutation.update(pairs)
    assert (mutation == other.mutate()) is (hamt == other) is not (mutation != other.mutate())
    assert mutation == hamt.mutate() and mutation == mutation
    assert mutation != hamt and mutation != dict(pairs)


# ---- which objects are kept ----


@pytest.mark.parametrize("settle", [len, repr, lambda mutation: None], ids=["after len", "after repr", "at once"])
def test_a_key_set_after_its_removal_is_the_new_one(settle: Callable[[HamtMutation[Key, int]], object]) -> None:
    old, new = Key("a", 1), Key("a", 1)
    for mutation in (Hamt({old: 1, Key("b", 1): 2}).mutate(), Hamt({old: 1}).mutate(), Hamt().mutate()):
        mutation.set(old, 1)
        settle(mutation)
        del mutation[old]
        settle(mutation)
        mutation[new] = 2
        hamt = mutation.finish()
        assert any(key is new for key in hamt) and not any(key is old for key in hamt)
        assert hamt[old] == 2


def test_a_key_set_again_is_the_old_one() -> None:
    old, new = Key("a", 1), Key("a", 1)
    mutation = Hamt({old: 1}).mutate()
    mutation[new] = 2
    mutation.update({new: 3})
    hamt = mutation.finish()
    assert list(hamt)[0] is old and hamt[new] == 3


def test_what_changes_nothing_gives_the_map_back() -> None:
    value: list[int] = []
    hamt: Hamt[str, list[int]] = Hamt(a=value)
    mutation = hamt.mutate()
    mutation["a"] = value
    mutation.pop("b", None)
    mutation.update(hamt)
    mutation.update()
    assert mutation.finish() is hamt
    mutation = hamt.mutate()
    mutation["a"] = []
    assert mutation.finish() is not hamt


@pytest.mark.parametrize("value", [None, MISSING, mock.ANY])
def test_any_value_may_be_stored(value: object) -> None:
    mutation = Hamt[str, object](a=1).mutate()
    mutation["a"] = mutation["b"] = value
    assert mutation["a"] is value and mutation.get("b", 1) is value and "b" in mutation
    assert mutation.pop("a") is value and mutation.get("a", 1) == 1
    mutation["a"] = value
    assert len(mutation) == 2
    assert mutation.finish().get("a", 1) is value


def test_the_default_of_pop_may_be_anything() -> None:
    for default in (None, KeyError, MISSING, mock.ANY):
        assert Hamt[str, int]().mutate().pop("a", default) is default


@pytest.mark.parametrize(
    "access", [HamtMutation.pop, HamtMutation.__getitem__, HamtMutation.__delitem__], ids=["pop", "[]", "del"]
)
def test_a_missing_key_is_a_key_error_with_the_key(access: Callable[[HamtMutation[Any, int], object], object]) -> None:
    mutation = Hamt({"a": 1, (1, 2): 3}).mutate()
    del mutation[1, 2]
    for key in ((1, 2), "b"):
        with pytest.raises(KeyError) as caught:
            access(mutation, key)
        assert caught.value.args == (key,)


@pytest.mark.parametrize(
    "call",
    [
        lambda mutation: mutation.set([], 1),
        lambda mutation: mutation.pop([], 1),
        lambda mutation: mutation.get([]),
        lambda mutation: [] in mutation,
        lambda mutation: mutation.update([("b", 2), ([], 1)]),
    ],
)
def test_an_unhashable_key_is_a_type_error(call: Callable[[HamtMutation[str, int]], object]) -> None:
    mutation: HamtMutation[str, int] = Hamt(a=1).mutate()
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        call(mutation)
    assert mutation.finish() == Hamt(a=1)


# ---- the end of a mutation ----

CHANGES: dict[str, Callable[[HamtMutation[Any, int]], object]] = {
    "set": lambda mutation: mutation.set("a", 2),
    "[]=": lambda mutation: mutation.__setitem__("a", 2),
    "del": lambda mutation: mutation.__delitem__("a"),
    "del of a missing key": lambda mutation: mutation.__delitem__("b"),
    "pop": lambda mutation: mutation.pop("a"),
    "pop of a missing key": lambda mutation: mutation.pop("b", None),
    "update": lambda mutation: mutation.update(a=2),
    "update with nothing": lambda mutation: mutation.update(),
    "with": lambda mutation: mutation.__enter__(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_finished_mutation_takes_no_change(name: str) -> None:
    mutation: HamtMutation[str, int] = Hamt(a=1).mutate()
    hamt = mutation.finish()
    with pytest.raises(ValueError, match="the mutation has been finished"):
        CHANGES[name](mutation)
    assert mutation.finish() is hamt and hamt == Hamt(a=1)


def test_a_finished_mutation_can_be_read() -> None:
    mutation: HamtMutation[str, int] = Hamt(a=1).mutate()
    mutation["b"] = 2
    hamt = mutation.finish()
    assert mutation["a"] == 1 and mutation.get("b") == 2 and mutation.get("c", 3) == 3
    assert "a" in mutation and "c" not in mutation and len(mutation) == 2
    assert mutation == hamt.mutate()
    assert repr(mutation) == "HamtMutation(" + repr(hamt)[len("Hamt(") :]


def test_with_finishes_the_mutation() -> None:
    with Hamt[str, int](a=1).mutate() as mutation:
        mutation["b"] = 2
    with pytest.raises(ValueError, match="finished"):
        mutation["b"] = 3
    assert mutation.finish() == Hamt(a=1, b=2)


def test_with_finishes_the_mutation_also_when_its_body_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        with Hamt[str, int](a=1).mutate() as mutation:
            mutation["b"] = 2
            1 / 0
    with pytest.raises(ValueError, match="finished"):
        mutation["b"] = 3
    assert mutation.finish() == Hamt(a=1, b=2)


def test_with_may_hold_a_finish() -> None:
    with Hamt[str, int]().mutate() as mutation:
        mutation["a"] = 1
        hamt = mutation.finish()
    assert mutation.finish() is hamt == Hamt(a=1)


@given(PAIRS, PAIRS)
def test_the_map_goes_its_own_way_meanwhile(pairs: Pairs, more_pairs: Pairs) -> None:
    hamt = before = Hamt(pairs)
    mutation = hamt.mutate()
    for key, value in more_pairs:
        hamt = hamt.set(key, value)
        mutation.pop(key, None)
    assert before == Hamt(pairs)
    assert hamt == Hamt([*pairs, *more_pairs])
    removed = [key for key, _ in more_pairs]
    assert mutation.finish() == Hamt((key, value) for key, value in pairs if key not in removed)


# ---- what a mutation is not ----


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: hash(Hamt().mutate()), "unhashable type: '.*HamtMutation'"),
        (lambda: copy.copy(Hamt().mutate()), "cannot pickle 'contextvars_cy.HamtMutation' object"),
        (lambda: copy.deepcopy(Hamt().mutate()), "cannot pickle 'contextvars_cy.HamtMutation' object"),
        (lambda: Hamt().mutate() < Hamt().mutate(), "not supported between instances"),  # type: ignore[operator]
        (lambda: Hamt().mutate() | {}, "unsupported operand"),  # type: ignore[operator]
        (lambda: Hamt[str, int]().mutate().set("a"), "argument"),  # type: ignore[call-arg]
        (lambda: Hamt().mutate().pop("a", 1, 2), "argument"),  # type: ignore[call-overload]
        (lambda: Hamt().mutate().update({}, {}), "argument"),  # type: ignore[call-overload]
    ],
)
def test_refusals(call: Callable[[], object], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        call()


def test_iterators_and_views_show_what_there_was_when_they_began() -> None:
    mutation = Hamt(a=1, b=2).mutate()
    mutation["c"] = 3
    views: list[Any] = [mutation.keys(), mutation.values(), mutation.items(), iter(mutation)]
    hamt = mutation.keys().mapping
    mutation["a"] = 4
    del mutation["b"]
    mutation["d"] = 5
    assert [sorted(view) for view in views] == [
        ["a", "b", "c"],
        [1, 2, 3],
        [("a", 1), ("b", 2), ("c", 3)],
        ["a", "b", "c"],
    ]
    assert hamt == Hamt(a=1, b=2, c=3) and mutation.finish() == Hamt(a=4, c=3, d=5)


def test_a_mutation_can_be_a_source() -> None:
    mutation = Hamt(a=1).mutate()
    mutation["b"] = 2
    other = Hamt(b=1).mutate()
    other.update(mutation)
    assert Hamt(mutation) == dict(mutation) == other.finish() == Hamt(a=1, b=2)


@pytest.mark.parametrize("size", [1, 3, 40, 2000])
def test_no_reference_to_a_map_shows_a_later_change(size: int) -> None:
    """The compiled twin changes in place what nothing else holds, and has to find out that something does."""
    items = {str(number): [number] for number in range(size)}
    mutation = Hamt(items).mutate()
    mutation["0"] = items["0"] = [0]

    def change() -> None:
        mutation["0"] = []
        mutation["new"] = []
        mutation.pop(str(size - 1))
        mutation.update(items)

    taken: list[Any] = [mutation.keys().mapping, iter(mutation), mutation.items(), weakref.ref(mutation.keys().mapping)]
    change()
    assert taken[0] == items and list(taken[1]) == list(taken[0])
    assert dict(taken[2]) == items
    # Only weakly held meanwhile.
    reference, taken = taken[3], []
    mutation = Hamt(items).mutate()
    mutation["0"] = items["0"]
    reference = weakref.ref(mutation.keys().mapping)
    change()
    seen = reference()
    assert seen is None or seen == items
    hamt = mutation.finish()
    hamt._check()
    assert hamt == {**items, "new": []}


def test_a_mutation_takes_no_attributes() -> None:
    with pytest.raises(AttributeError):
        Hamt().mutate().other = 1  # type: ignore[attr-defined]


def test_repr() -> None:
    mutation: HamtMutation[str, int] = Hamt(a=1).mutate()
    mutation["b"] = 2
    del mutation["a"]
    assert repr(mutation) == "HamtMutation({'b': 2})"
    del mutation["b"]
    assert repr(mutation) == "HamtMutation({})"


def test_a_mutation_within_itself_shows_that() -> None:
    mutation: HamtMutation[str, object] = Hamt().mutate()
    mutation["a"] = mutation
    assert repr(mutation) == "HamtMutation({'a': HamtMutation({...})})"


# ---- several at once ----


@pytest.mark.parametrize("outer", ["set", "[]=", "del", "pop", "update"])
@pytest.mark.parametrize("name", [name for name in CHANGES if name != "with"])
def test_a_change_from_within_a_change_is_made_and_neither_is_lost(outer: str, name: str) -> None:
    watch = Watch()
    # Several keys of one hash, so that a key is compared whatever the operation.
    keys = [WatchedKey(number, 7, watch) for number in range(4)]
    mutation = Hamt[Any, int]({"a": 1, keys[0]: 0, keys[1]: 1}).mutate()
    mutation[keys[2]] = 2

    def change() -> None:
        try:
            CHANGES[name](mutation)
        except KeyError:
            # It was removed by an earlier call.
            assert "a" not in mutation or "missing" in name

    probe = WatchedKey(0, 7, watch)
    watch.restart(acts=change)
    if outer == "update":
        mutation.update([(probe, 5)])
    elif outer == "del":
        del mutation[probe]
    elif outer == "pop":
        assert mutation.pop(probe) == 0
    elif outer == "set":
        mutation.set(probe, 5)
    else:
        mutation[probe] = 5
    # Once in `__hash__` and once in `__eq__` at least.
    assert watch.calls > 1
    watch.restart()
    mutation["z"] = 26
    expected = {"a": 1, keys[0]: 5, keys[1]: 1, keys[2]: 2, "z": 26}
    if outer in ("del", "pop"):
        del expected[keys[0]]
    if name in ("set", "[]=", "update"):
        expected["a"] = 2
    elif name in ("del", "pop"):
        del expected["a"]
    hamt = mutation.finish()
    hamt._check()
    assert hamt == Hamt(expected)


@pytest.mark.parametrize("outer", ["set", "pop", "update"])
def test_a_mutation_that_is_finished_from_within_a_change_does_not_take_it(outer: str) -> None:
    watch = Watch()
    mutation = Hamt({WatchedKey(number, 7, watch): number for number in range(2)}).mutate()
    finished: list[Hamt[WatchedKey, int]] = []
    watch.restart(acts=lambda: finished.append(mutation.finish()))
    probe = WatchedKey(0, 7, watch)
    with pytest.raises(ValueError, match="finished"):
        if outer == "update":
            mutation.update({probe: 5})
        elif outer == "pop":
            mutation.pop(probe)
        else:
            mutation[probe] = 5
    watch.restart()
    assert sorted(finished[0].values()) == [0, 1] and all(
        hamt is finished[0] for hamt in [*finished, mutation.finish()]
    )


@pytest.mark.parametrize("read", [HamtMutation.get, HamtMutation.__getitem__, HamtMutation.__contains__])
def test_reading_from_within_a_change_sees_what_was_there(
    read: Callable[[HamtMutation[WatchedKey, int], WatchedKey], object],
) -> None:
    watch = Watch()
    keys = [WatchedKey(number, 7, watch) for number in range(3)]
    mutation = Hamt.fromkeys(keys[:2], 1).mutate()
    seen: list[object] = []
    watch.restart(acts=lambda: seen.append(read(mutation, keys[1])))
    mutation[keys[2]] = 1
    mutation.pop(keys[0])
    watch.restart()
    assert len(seen) > 1 and set(seen) == {1}


@pytest.mark.parametrize("read", [HamtMutation.get, HamtMutation.__getitem__, HamtMutation.__contains__])
@pytest.mark.parametrize("settle", [len, repr, HamtMutation.update, HamtMutation.finish])
@pytest.mark.parametrize("pending", [False, True], ids=["in the map", "pending"])
def test_a_change_from_within_reading_does_not_disturb_it(
    read: Callable[[HamtMutation[Key, int], Key], object],
    settle: Callable[[HamtMutation[Key, int]], object],
    pending: bool,
) -> None:
    watch = Watch()
    keys: list[Key] = [WatchedKey(number, 7, watch) for number in range(8)]
    mutation = Hamt.fromkeys([] if pending else keys, 1).mutate()
    if pending:
        for key in keys:
            mutation[key] = 1
    strangers = [Key(number, 7) for number in range(8)]
    churn: list[object] = []

    def change() -> None:
        try:
            mutation[strangers[0]] = 2
            settle(mutation)
        except ValueError:
            # Once it is finished.
            pass
        # A reader of freed memory would find these in it.
        churn.extend((Hamt.fromkeys(strangers, "wrong"), dict.fromkeys(strangers, "wrong")) for _ in range(20))

    watch.restart(acts=change)
    assert read(mutation, strangers[7]) == 1
    watch.restart()
    hamt = mutation.finish()
    hamt._check()
    assert set(hamt) == set(keys) and hamt[keys[0]] in (1, 2) and hamt[keys[7]] == 1


R = TypeVar("R")


def in_threads(count: int, work: Callable[[int], R]) -> list[R]:
    """The results of the work, begun in all threads at the same time."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> R:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as executor:
        return list(executor.map(begin, range(count)))


@counts_on_the_gil
@pytest.mark.usefixtures("quick_switches")
def test_two_threads_lose_no_change() -> None:
    mutation = Hamt[Key, object]({Key(("old", index), index): "old" for index in range(64)}).mutate()

    def work(number: int) -> tuple[dict[Key, Any], set[Key]]:
        stored, removed = dict[Key, Any](), set[Key]()
        for index in range(500):
            key = Key((number, index), index % 64)
            mutation[key] = index
            stored[key] = index
            if index % 3 == 0:
                assert mutation.pop(key) == index
                del stored[key]
                removed.add(key)
            assert mutation.get(key) == stored.get(key)
        return stored, removed

    (stored, removed), (more_stored, more_removed) = in_threads(2, work)
    hamt = mutation.finish()
    hamt._check()
    expected = {**stored, **more_stored, **{Key(("old", index), index): "old" for index in range(64)}}
    assert dict(hamt.items()) == expected
    assert not any(key in hamt for key in removed | more_removed)


@counts_on_the_gil
@pytest.mark.usefixtures("quick_switches")
def test_four_threads_lose_no_set() -> None:
    mutation = Hamt[str, int]().mutate()

    def work(number: int) -> None:
        for index in range(2000):
            mutation[f"{number} {index}"] = index

    in_threads(4, work)
    hamt = mutation.finish()
    hamt._check()
    assert hamt == Hamt({f"{number} {index}": index for number in range(4) for index in range(2000)})


@counts_on_the_gil
@pytest.mark.usefixtures("quick_switches")
def test_a_thread_that_reads_sees_what_the_other_does_not_touch() -> None:
    keys = [Key(number, number % 8) for number in range(64)]
    mutation = Hamt.fromkeys(keys, 1).mutate()

    def work(number: int) -> None:
        for index in range(1500):
            if number:
                assert mutation.get(keys[index % 32]) == 1
            else:
                mutation.pop(keys[32 + index % 32], None)
                mutation[keys[32 + index * 5 % 32]] = index

    in_threads(2, work)
    hamt = mutation.finish()
    hamt._check()
    assert all(hamt[key] == 1 for key in keys[:32])


@counts_on_the_gil
@pytest.mark.usefixtures("quick_switches")
def test_of_two_threads_that_finish_both_get_the_one_map() -> None:
    for _ in range(50):
        mutation = Hamt[Key, int]().mutate()
        mutation.update((Key(number, number % 4), number) for number in range(20))
        one, two = in_threads(2, lambda number, mutation=mutation: mutation.finish())  # type: ignore[misc]
        assert one is two is mutation.finish() and len(one) == 20


@given(st.lists(st.tuples(PLACES, st.booleans()), max_size=40))
def test_a_long_mutation_keeps_the_invariants(steps: list[tuple[int, bool]]) -> None:
    mutation: HamtMutation[Key, int] = Hamt().mutate()
    present: set[int] = set()
    for place, is_set in steps:
        key = Key(place, place)
        if is_set:
            mutation[key] = place
        else:
            mutation.pop(key, None)
        (present.add if is_set else present.discard)(place)
        assert len(mutation) == len(present)
    hamt = mutation.finish()
    hamt._check()
    assert set(hamt.values()) == present
