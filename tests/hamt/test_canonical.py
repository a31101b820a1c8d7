"""One content has one tree, however it came about, and no map that was kept is ever written to."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import Hamt
from histories import HISTORIES, KEYS, REMOVERS, SETTERS, History, Map, of_any_length, step, without_order_in_collisions
from keys import Key, number_at

# Numbers that meet on every level, and no two of which fold to one: nothing is left open by the content.
NUMBERS = st.sampled_from(
    [number_at(place) for place in [*range(6), 32, 33, 64, 1 << 10, 1 << 20, 1 << 25, 1 << 30, 1 << 31 | 6, 3 << 30]]
)
NUMBER_STEPS = st.tuples(st.sampled_from([*SETTERS, *REMOVERS]), st.lists(NUMBERS, max_size=4), st.integers(0, 3))
NUMBER_HISTORIES = of_any_length(NUMBER_STEPS, 12)


def after(hamt: Map, history: History) -> Map:
    for name, keys, value in history:
        hamt = step(hamt, name, keys, value)
    return hamt


def brought_to(content: Mapping[Any, object], hamt: Map, random: Random) -> Map:
    """The map with just that content, by random ways from a map of any other content."""
    superfluous = [key for key in hamt if key not in content]
    random.shuffle(superfluous)
    while superfluous:
        hamt = step(hamt, random.choice([*REMOVERS]), superfluous[:3], None)
        del superfluous[:3]
    keys = list(content)
    random.shuffle(keys)
    for key in keys:
        hamt = step(hamt, random.choice([*SETTERS]), [key], content[key])
    return hamt


@given(HISTORIES, HISTORIES, st.randoms(use_true_random=False))
def test_two_histories_with_one_content_give_one_tree(history: History, other_history: History, random: Random) -> None:
    hamt = after(Hamt(), history)
    other = brought_to(dict(hamt.items()), after(Hamt(), other_history), random)
    assert without_order_in_collisions(other._dump()) == without_order_in_collisions(hamt._dump())
    assert other == hamt and not other != hamt
    assert not any(other.diff(hamt))


@given(NUMBER_HISTORIES, NUMBER_HISTORIES, st.randoms(use_true_random=False))
def test_two_histories_with_one_content_give_one_text_and_one_pickle(
    history: History, other_history: History, random: Random
) -> None:
    hamt = after(Hamt(), history)
    other = brought_to(dict(hamt.items()), after(Hamt(), other_history), random)
    assert other._dump() == hamt._dump()
    assert repr(other) == repr(hamt)
    assert pickle.dumps(other) == pickle.dumps(hamt)
    assert list(other.items()) == list(hamt.items())


@given(HISTORIES)
def test_maps_that_were_kept_are_never_written_to(history: History) -> None:
    kept: list[Map] = [Hamt()]
    dumps = [Hamt()._dump()]
    for name, keys, value in history:
        kept.append(step(kept[-1], name, keys, value))
        dumps.append(kept[-1]._dump())
    assert [hamt._dump() for hamt in kept] == dumps


@given(HISTORIES, st.lists(st.tuples(st.integers(0, 12), HISTORIES), max_size=2))
def test_maps_that_were_kept_can_be_gone_on_from(history: History, branches: list[tuple[int, History]]) -> None:
    kept: list[Map] = [Hamt()]
    for name, keys, value in history:
        kept.append(step(kept[-1], name, keys, value))
    dumps = [hamt._dump() for hamt in kept]
    for number, branch in branches:
        start = kept[number % len(kept)]
        assert after(start, branch) == after(Hamt(start.items()), branch)
    assert [hamt._dump() for hamt in kept] == dumps


@given(HISTORIES, KEYS)
def test_what_is_set_and_deleted_again_leaves_no_trace(history: History, key: Key) -> None:
    hamt = after(Hamt(), history).discard(key)
    again = hamt.set(key, 1).delete(key)
    assert again._dump() == hamt._dump()
    with hamt.mutate() as mutation:
        mutation[key] = 1
        len(mutation)
        del mutation[key]
    assert mutation.finish()._dump() == hamt._dump()


def test_a_deletion_pulls_a_lone_entry_up_through_all_levels() -> None:
    one, two, three = Key("one", 0), Key("two", 1 << 30), Key("three", 1)
    hamt = Hamt.fromkeys([one, two, three])
    assert hamt._dump().count("Node") == 7
    for smaller in (hamt.delete(two), hamt.merge(hamt, Hamt.fromkeys([one, three]))):
        assert smaller._dump() == Hamt.fromkeys([one, three])._dump()
        assert smaller._dump().count("Node") == 1


def test_the_empty_map_has_one_tree() -> None:
    key = Key("a", 1 << 31)
    for hamt in (Hamt(), Hamt({}), Hamt.fromkeys([key]).delete(key), Hamt.fromkeys([key]).merge(Hamt(), Hamt())):
        hamt = hamt.discard(key)
        assert hamt._dump() == "Hamt of 0\n  Node entries=0b0 children=0b0"
        assert list(hamt) == [] and hash(hamt) == hash(Hamt())
