"""diff and merge: what they say is right, and they look at nothing that two maps share."""

from __future__ import annotations

import itertools
import operator
import pickle
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import MISSING, Hamt, HamtDiff, HamtSet
from histories import KEYS, STEPS, History, Map, of_any_length, step
from keys import Key, Unequal, Watch, WatchedKey

PAIRS = st.lists(st.tuples(KEYS, st.integers(0, 2)), max_size=12)


def after(hamt: Map, history: History) -> Map:
    for name, keys, value in history:
        hamt = step(hamt, name, keys, value)
    return hamt


# Maps that share much with each other, and maps that share nothing.
RELATED = st.builds(
    lambda pairs, histories: [after(Hamt(pairs), history) for history in histories],
    PAIRS,
    st.lists(of_any_length(STEPS, 6), min_size=3, max_size=3),
)
UNRELATED = st.lists(st.builds(Hamt[Any, Any], PAIRS), min_size=3, max_size=3)
THREE_MAPS = RELATED | UNRELATED


def applied(hamt: Map, diff: HamtDiff[Any, Any]) -> Map:
    mutation = hamt.mutate()
    for key, value in diff.removed.items():
        assert mutation.pop(key) is value
    for key, value in diff.added.items():
        assert key not in mutation
        mutation[key] = value
    for key, (old, new) in diff.changed.items():
        assert mutation[key] is old
        mutation[key] = new
    return mutation.finish()


@given(THREE_MAPS)
def test_a_diff_is_what_a_dict_would_tell(hamts: list[Map]) -> None:
    one, two, _ = hamts
    first, second = dict(one.items()), dict(two.items())
    assert one.diff(two) == (
        {key: second[key] for key in second.keys() - first.keys()},
        {key: first[key] for key in first.keys() - second.keys()},
        {key: (first[key], second[key]) for key in first.keys() & second.keys() if first[key] != second[key]},
    )


@given(THREE_MAPS)
def test_a_diff_applied_gives_the_other_map(hamts: list[Map]) -> None:
    one, two, _ = hamts
    diff = one.diff(two)
    assert any(diff) is (one != two)
    result = applied(one, diff)
    result._check()
    assert result == two
    added, removed, changed = two.diff(one)
    assert (added, removed) == (diff.removed, diff.added)
    assert changed == {key: (new, old) for key, (old, new) in diff.changed.items()}


def test_a_diff_is_a_named_tuple_of_dicts() -> None:
    diff = Hamt(a=1, b=2).diff(Hamt(b=3, c=4))
    assert type(diff) is HamtDiff and isinstance(diff, tuple)
    assert diff.added == {"c": 4} and diff.removed == {"a": 1} and diff.changed == {"b": (2, 3)}
    assert repr(diff) == "HamtDiff(added={'c': 4}, removed={'a': 1}, changed={'b': (2, 3)})"
    assert pickle.loads(pickle.dumps(diff)) == diff


def test_values_are_compared_by_identity_first() -> None:
    value = Unequal()
    assert not any(Hamt(a=value).diff(Hamt(a=value)))
    assert Hamt(a=value).diff(Hamt(a=Unequal())).changed.keys() == {"a"}
    assert not any(Hamt[str, float](a=1).diff(Hamt(a=1.0)))


def test_equal_keys_are_one_key_whichever_the_object() -> None:
    one, two = Key("a", 1), Key("a", 1)
    added, removed, changed = Hamt({one: 1}).diff(Hamt({two: 2}))
    assert not added and not removed
    assert next(iter(changed)) is one


@pytest.mark.parametrize("other", [{}, None, HamtSet(), Hamt().mutate()])
def test_a_diff_is_between_maps(other: Any) -> None:
    with pytest.raises(TypeError, match=f"takes a Hamt.*, not {type(other).__name__}"):
        Hamt().diff(other)
    with pytest.raises(TypeError, match=f"takes a Hamt.*, not {type(other).__name__}"):
        Hamt().merge(Hamt(), other)
    with pytest.raises(TypeError, match=f"takes a Hamt.*, not {type(other).__name__}"):
        Hamt().merge(other, Hamt())


# ---- merge ----

Resolver = Callable[[Any, Any, Any, Any], object]


def merged_by_rule(own: Map, base: Map, other: Map, resolve: Resolver) -> dict[Any, object]:
    """What a three-way merge is, key by key."""
    result = {}
    for key in [*base, *own, *other]:
        old, mine, theirs = base.get(key, MISSING), own.get(key, MISSING), other.get(key, MISSING)
        if theirs == old or theirs == mine:
            value = mine
        elif mine == old:
            value = theirs
        else:
            value = resolve(key, old, mine, theirs)
        if value is not MISSING:
            result[key] = value
    return result


RESOLVERS: list[Resolver] = [
    lambda key, old, mine, theirs: mine,
    lambda key, old, mine, theirs: theirs,
    lambda key, old, mine, theirs: old,
    lambda key, old, mine, theirs: MISSING,
    lambda key, old, mine, theirs: (old, mine, theirs),
]


@given(THREE_MAPS, st.sampled_from(RESOLVERS))
def test_a_merge_follows_the_rule(hamts: list[Map], resolve: Resolver) -> None:
    own, base, other = hamts
    result = own.merge(base, other, resolve)
    result._check()
    assert dict(result.items()) == merged_by_rule(own, base, other, resolve)


@given(THREE_MAPS)
def test_merging_nothing_gives_the_map_itself(hamts: list[Map]) -> None:
    own, base, _ = hamts
    assert own.merge(base, base) is own
    assert own.merge(base, own) is own
    assert base.merge(base, own) == own


@given(THREE_MAPS)
def test_a_merge_without_conflict_is_the_same_from_either_side(hamts: list[Map]) -> None:
    own, base, other = hamts
    try:
        result = own.merge(base, other)
    except ValueError:
        with pytest.raises(ValueError):
            other.merge(base, own)
    else:
        assert result == other.merge(base, own)
        assert result == own.merge(base, other, pytest.fail)


ABSENT_OR_NUMBER = [MISSING, 1, 2, 3]


@pytest.mark.parametrize(("old", "mine", "theirs"), list(itertools.product(ABSENT_OR_NUMBER, repeat=3)))
def test_the_resolver_is_asked_where_both_changed_a_key_differently(old: object, mine: object, theirs: object) -> None:
    base, own, other = (Hamt[str, object]() if value is MISSING else Hamt(a=value) for value in (old, mine, theirs))
    asked: list[tuple[object, ...]] = []
    result = own.merge(base, other, resolve=lambda *args: asked.append(args) or "resolved")  # type: ignore[func-returns-value]
    if len({old, mine, theirs}) == 3 or (old is not mine is not theirs is not old):
        assert asked == [("a", old, mine, theirs)]
        assert result == Hamt(a="resolved")
    else:
        assert not asked
        expected = theirs if mine is old else mine
        assert result.find("a") == (expected, expected is not MISSING)


@pytest.mark.parametrize(
    ("base", "other", "text"),
    [
        (Hamt(a=0), Hamt(a=2), "both sides changed the key 'a': from 0 to 1 here and to 2 there"),
        (Hamt(), Hamt(a=2), "both sides changed the key 'a': from <Token.MISSING> to 1 here and to 2 there"),
        (Hamt(a=0), Hamt(), "both sides changed the key 'a': from 0 to 1 here and to <Token.MISSING> there"),
    ],
)
def test_a_conflict_that_nobody_resolves_names_the_key_and_the_values(base: Map, other: Map, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        Hamt(a=1).merge(base, other)
    assert str(caught.value).startswith(text)


def test_a_resolver_that_raises_passes_through() -> None:
    own, base, other = Hamt[str, int](a=1, b=1), Hamt[str, int](a=0), Hamt[str, int](a=2, c=2)
    dumps = [hamt._dump() for hamt in (own, base, other)]
    with pytest.raises(ZeroDivisionError):
        own.merge(base, other, lambda *args: 1 / 0)
    assert [hamt._dump() for hamt in (own, base, other)] == dumps


def test_a_value_that_equals_everything_is_no_missing_value() -> None:
    assert list(Hamt().merge(Hamt(), Hamt(a=mock.ANY))) == ["a"]
    assert Hamt(a=1).merge(Hamt(a=mock.ANY), Hamt()) == Hamt()


def test_merge_takes_maps_by_place_and_the_resolver_by_name_too() -> None:
    assert Hamt(a=1).merge(Hamt(), Hamt(a=2), resolve=RESOLVERS[1]) == Hamt(a=2)
    assert Hamt(a=1).merge(Hamt(), Hamt(a=2), RESOLVERS[1]) == Hamt(a=2)
    with pytest.raises(TypeError):
        Hamt(a=1).merge(base=Hamt(), other=Hamt())  # type: ignore[call-arg]


# ---- what is shared is not looked at ----

OPERATIONS: dict[str, Callable[[Map, Map], Any]] = {
    "==": operator.eq,
    "diff": lambda one, two: one.diff(two),
    "merge": lambda one, two: one.merge(one, two),
    "update": lambda one, two: one.update(two),
}


@pytest.mark.parametrize("size", [1_000, 10_000])
@pytest.mark.parametrize("changes", [1, 5, 25])
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_calls_grow_with_the_difference_and_not_with_the_maps(name: str, changes: int, size: int) -> None:
    watch = Watch()
    # A hash that scatters: the golden ratio's share of the range.
    keys = [WatchedKey(number, number * 0x9E3779B1 % (1 << 32), watch) for number in range(size + changes)]
    values = [WatchedKey(number, 0, watch) for number in range(size)]
    one: Hamt[WatchedKey, object] = Hamt(zip(keys, values))
    two = one
    for number in range(changes):
        two = two.set(keys[number], None).delete(keys[size - 1 - number]).set(keys[size + number], None)
    watch.restart()
    result = OPERATIONS[name](one, two)
    assert watch.calls <= 50 * changes
    if name == "diff":
        assert [len(part) for part in result] == [changes] * 3


@pytest.mark.parametrize("operate", [operator.eq, operator.le, operator.sub, operator.xor])
def test_sets_of_which_one_was_made_from_the_other_are_compared_by_their_difference(
    operate: Callable[[object, object], object],
) -> None:
    watch = Watch()
    elements = [WatchedKey(number, number * 0x9E3779B1 % (1 << 32), watch) for number in range(10_000)]
    one = HamtSet(elements[1:])
    two = one.add(elements[0]).remove(elements[5000])
    watch.restart()
    operate(one, two)
    assert watch.calls <= 100


def test_keys_and_values_that_cannot_be_compared_are_not() -> None:
    class Incomparable(Key):
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        __hash__ = Key.__hash__

    keys = [Incomparable(number, 2 * number) for number in range(1000)]
    # Alone at its position, for a key is compared with the one that stands there.
    new = Incomparable("new", 7)
    one = Hamt.fromkeys(keys, Incomparable("value", 0))
    two = one.set(new, 1).delete(keys[8])
    assert one.diff(two) == ({new: 1}, {keys[8]: one[keys[8]]}, {})
    assert one != two and one.merge(one, two) == two and one.merge(two, one) is one


def test_a_difference_is_true_if_anything_changed() -> None:
    hamt = Hamt(a=1)
    assert not hamt.diff(hamt) and not hamt.diff(Hamt(a=1))
    assert hamt.diff(Hamt()) and Hamt().diff(hamt) and hamt.diff(Hamt(a=2))
