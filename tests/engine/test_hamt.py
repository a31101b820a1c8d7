"""Hamt: a persistent map with one shape per content."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import MISSING, Hamt
from keys import EqualError, HashError, HostileKey, Key

# Few positions at each level, so that keys meet at every depth: equal hashes, hashes that differ in the last bits only,
# negative ones, and ones that fold to the same 32 bits.
HASHES = st.one_of(
    st.integers(0, 3),
    st.sampled_from([0, 1 << 30, 1 << 31, 3 << 30, -2, -1 << 31, 1 << 32, (1 << 61) - 2, -1 << 61, 0xFFFFFFFE]),
    st.builds(lambda low, high: low | high << 25, st.integers(0, 2), st.integers(0, 3)),
)
KEYS = st.builds(lambda name, key_hash: Key((name, key_hash), key_hash), st.integers(0, 3), HASHES)
STEPS = st.lists(st.tuples(st.sampled_from(["set", "set", "discard"]), KEYS, st.integers(0, 3)), max_size=60)


def build(pairs):
    hamt = Hamt()
    for key, value in pairs:
        hamt = hamt.set(key, value)
    return hamt


@given(STEPS)
def test_any_history_does_as_a_dict_and_keeps_the_invariants(steps):
    hamt, expected = Hamt(), {}
    for name, key, value in steps:
        before, before_items = hamt, list(hamt.items())
        if name == "set":
            hamt = hamt.set(key, value)
            expected[key] = value
        else:
            hamt = hamt.discard(key)
            expected.pop(key, None)
        hamt._check()
        assert list(before.items()) == before_items
        assert len(hamt) == len(expected)
        assert dict(hamt.items()) == expected
        assert hamt.find(key) == ((value, True) if name == "set" else (MISSING, False))
    for key, value in expected.items():
        assert key in hamt and hamt[key] is value and hamt.get(key) is value


def without_order_in_collisions(dump):
    """The dump with the entries of each collision node sorted: the one thing that the content leaves open."""
    lines, entries = [], []
    for line in dump.splitlines():
        if ": " in line:
            entries.append(line)
        else:
            lines += sorted(entries) if "CollisionNode" in lines[-1:] else entries
            entries = []
            lines.append(line.strip() if "CollisionNode" in line else line)
    return lines + sorted(entries)


@given(STEPS, st.randoms(use_true_random=False))
def test_two_histories_with_one_content_give_one_tree(steps, random):
    hamt = Hamt()
    for name, key, value in steps:
        hamt = hamt.set(key, value) if name == "set" else hamt.discard(key)
    pairs = list(hamt.items())
    random.shuffle(pairs)
    other = build(pairs)
    assert without_order_in_collisions(other._dump()) == without_order_in_collisions(hamt._dump())
    assert other == hamt and not other != hamt


@given(STEPS, KEYS, st.integers(0, 3))
def test_maps_that_differ_are_not_equal(steps, key, value):
    hamt = build((key, value) for _, key, value in steps)
    changed = hamt.set(key, value)
    assert (changed == hamt) is (hamt.get(key, MISSING) == value)
    assert (hamt.discard(key) == hamt) is (key not in hamt)


def test_nothing_is_compared_that_is_shared():
    class Incomparable:
        def __eq__(self, other):
            raise AssertionError("compared")

    hamt = build((Key(number, number), Incomparable()) for number in range(1000))
    other = hamt.set(Key("more", 7), 1)
    assert hamt != other
    assert hamt.set(Key("more", 7), 2) != other
    assert other.delete(Key("more", 7)) == hamt


def test_set_of_the_same_object_gives_the_same_map():
    value = [1]
    hamt = build((Key(number, number % 7), value) for number in range(100))
    for number in range(100):
        assert hamt.set(Key(number, number % 7), value) is hamt
        assert hamt.set(Key(number, number % 7), [1]) is not hamt


def test_the_first_of_two_equal_keys_stays():
    first, second = Key("a", 1), Key("a", 1)
    hamt = Hamt().set(first, 1).set(second, 2)
    assert next(iter(hamt)) is first
    assert hamt[first] == 2


def test_identity_comes_before_equality():
    nan = float("nan")
    hamt = Hamt().set(nan, 1)
    assert hamt[nan] == 1 and nan in hamt
    assert hamt == Hamt().set(nan, 1)
    assert len(hamt.delete(nan)) == 0


@pytest.mark.parametrize("value", [None, MISSING, NotImplemented])
def test_any_value_may_be_stored(value):
    hamt = Hamt().set("a", value)
    assert hamt.find("a") == (value, True)
    assert hamt.get("a", 1) is value and hamt["a"] is value


@pytest.mark.parametrize("access", [Hamt().delete, Hamt().__getitem__])
def test_a_missing_key_is_a_key_error_with_the_key(access):
    with pytest.raises(KeyError) as caught:
        access("a")
    assert caught.value.args == ("a",)


def test_discard_of_a_missing_key_gives_the_same_map():
    hamt = build((Key(number, number % 3), number) for number in range(9))
    for key_hash in range(3):
        assert hamt.discard(Key("missing", key_hash)) is hamt


@pytest.mark.parametrize("name", ["find", "set", "delete", "discard", "get", "__getitem__", "__contains__"])
def test_an_unhashable_key_is_a_type_error(name):
    hamt = Hamt().set("a", 1)
    with pytest.raises(TypeError, match="unhashable"):
        getattr(hamt, name)([], *([1] if name == "set" else []))


def test_views():
    hamt = build([("a", 1), ("b", 2)])
    assert set(hamt) == set(hamt.keys()) == {"a", "b"}
    assert sorted(hamt.values()) == [1, 2]
    assert set(hamt.items()) == {("a", 1), ("b", 2)}
    assert len(hamt.keys()) == len(hamt.values()) == len(hamt.items()) == 2
    assert "a" in hamt.keys() and ("a", 1) in hamt.items() and 2 in hamt.values()


def test_a_map_equals_maps_only():
    assert Hamt() == Hamt()
    assert Hamt() != {} and Hamt() != 1


def test_iteration_reaches_the_last_level():
    keys = [Key("a", 0), Key("b", 1 << 31), Key("c", 1 << 31), Key("d", 1 << 30)]
    hamt = build((key, key.name) for key in keys)
    hamt._check()
    assert sorted(hamt.values()) == ["a", "b", "c", "d"]
    assert hamt._dump().count("CollisionNode") == 1


@pytest.mark.parametrize("kind", [HashError, EqualError])
def test_an_exception_leaves_the_map_as_it_was(kind):
    key_hashes = [0, 0, 0, 32, 1, 1 << 31]
    keys = [HostileKey(number, key_hash) for number, key_hash in enumerate(key_hashes)]
    hamt = build((key, key.name) for key in keys)
    before = hamt._dump()
    try:
        for victim in keys:
            probe = HostileKey(victim.name, victim.key_hash)
            (probe if kind is HashError else victim).raises = kind
            for call in (hamt.find, hamt.delete, hamt.discard, hamt.get, lambda key: hamt.set(key, "other")):
                with pytest.raises(kind):
                    call(probe)
            victim.raises = None
    finally:
        for key in keys:
            key.raises = None
    assert hamt._dump() == before
    hamt._check()


def test_an_old_key_that_no_longer_hashes_leaves_the_map_as_it_was():
    old = HostileKey("old", 3)
    hamt = Hamt().set(old, 1)
    old.raises = HashError
    with pytest.raises(HashError):
        hamt.set(Key("new", 3 | 1 << 5), 2)
    old.raises = None
    hamt._check()
    assert len(hamt) == 1


def test_the_map_may_be_dropped_while_its_keys_are_compared():
    holder = []

    class Dropping(HostileKey):
        def __hash__(self):
            return self.key_hash

    for depth_hash in (0, 1 << 31):
        keys = [Dropping(number, depth_hash) for number in range(4)]
        for call in ("find", "get", "discard", "__contains__"):
            holder[:] = [build((key, number) for number, key in enumerate(keys))]
            probe = Dropping("probe", depth_hash)
            probe.acts = lambda: (holder.clear(), gc.collect())
            getattr(holder[0], call)(probe)
            assert not holder


def test_iterators_are_exhausted_once_and_for_all():
    iterator = iter(Hamt().set("a", 1))
    assert list(iterator) == ["a"]
    assert list(iterator) == []
    assert iter(iterator) is iterator


def test_check_names_the_broken_invariant():
    class Shifting(Key):
        pass

    key = Shifting("a", 1)
    hamt = Hamt().set(key, 1)
    key.key_hash = 2
    with pytest.raises(AssertionError, match="invariant 5: key .* is out of its hash's place"):
        hamt._check()


def test_a_cycle_through_a_map_is_collected():
    class Value:
        pass

    for key_hashes in ([1], [1, 1], [1, 33]):
        value = Value()
        value.hamt = build((Key(number, key_hash), value) for number, key_hash in enumerate(key_hashes))
        reference = weakref.ref(value)
        del value
        gc.collect()
        assert reference() is None


def test_a_finaliser_that_goes_on_with_the_iterator_does_no_harm():
    iterators = []

    class Value:
        def __del__(self):
            if iterators:
                next(iterators[0], None)

    hamt = build((Key(number, number), Value()) for number in range(31))
    hamt = hamt.set(Key("a", 31), Value()).set(Key("b", 63), Value())
    iterators.append(iter(hamt))
    del hamt
    assert 0 < len(list(iterators[0])) <= 33
    iterators.clear()


def test_nobody_iterates_backwards():
    with pytest.raises(TypeError):
        reversed(Hamt())


def test_init_changes_nothing():
    hamt = Hamt().set("a", 1)
    hamt.__init__()
    assert len(hamt) == 1
    assert len(Hamt.__new__(Hamt)) == 0
