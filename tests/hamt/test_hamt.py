"""Hamt: what a persistent map answers, with dict as the oracle."""

from __future__ import annotations

import builtins
import collections
import copy
import json
import operator
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from random import Random
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import MISSING, Hamt, HamtSet
from histories import HISTORIES, KEYS, PLACES, SETTERS, History, Map, set_each, step, step_of_a_dict
from keys import Key, Unequal

# The builtin mapping of Python 3.15 that is equal to a dict and has a hash.
FROZEN: list[Any] = [getattr(builtins, "frozendict")] if hasattr(builtins, "frozendict") else []  # noqa: B009
SMALL = st.dictionaries(st.integers(0, 6), st.integers(0, 2))


def outcome(call: Callable[..., Any], *args: object, **kwargs: object) -> object:
    """The result as a dict, or what was raised."""
    try:
        return dict(call(*args, **kwargs))
    except Exception as error:
        return type(error), str(error)


# ---- histories ----


@given(HISTORIES)
def test_any_history_does_as_a_dict_and_keeps_the_invariants(history: History) -> None:
    hamt: Map = Hamt()
    expected: dict[Key, object] = {}
    for name, keys, value in history:
        hamt = step(hamt, name, keys, value)
        step_of_a_dict(expected, name, keys, value)
        hamt._check()
        assert dict(hamt.items()) == expected
        assert len(hamt) == len(expected)
    for key, value in expected.items():
        assert key in hamt and hamt[key] is value and hamt.get(key) is value and hamt.find(key) == (value, True)


@pytest.mark.parametrize("size", [1, 31, 33, 1000, 5000])
@pytest.mark.parametrize("span", [2, 1 << 40])
def test_a_large_map_does_as_a_dict(size: int, span: int) -> None:
    random = Random(size)

    def keys(number: int) -> list[int]:
        return [random.randrange(-size * span, size * span) for _ in range(number)]

    expected = dict.fromkeys(keys(size), 0)
    hamt = Hamt(expected)
    for share in (1, 10, 100):
        some, gone = dict.fromkeys(keys(size // share), share), random.sample([*expected], len(expected) // share // 2)
        with hamt.update(some).mutate() as mutation:
            for key in gone:
                mutation.pop(key)
        hamt = mutation.finish()
        expected.update(some)
        for key in gone:
            del expected[key]
        hamt._check()
        assert dict(hamt.items()) == expected and len(list(hamt)) == len(hamt) == len(expected)
        assert hamt == Hamt(expected) and all(hamt[key] == expected[key] for key in expected)
        assert hamt.diff(Hamt(some)).removed.keys() == expected.keys() - some.keys()


@given(SMALL, st.integers(0, 6))
def test_what_is_missing_is_found_nowhere(mapping: dict[int, int], key: int) -> None:
    hamt = Hamt(mapping).discard(key)
    assert key not in hamt and key not in hamt.keys() and key not in list(hamt)
    assert hamt.find(key) == (MISSING, False)
    assert hamt.get(key) is None and hamt.get(key, 7) == 7
    assert hamt.discard(key) is hamt


@given(HISTORIES, KEYS, st.integers(0, 3))
def test_maps_that_differ_are_not_equal(history: History, key: Key, value: int) -> None:
    hamt: Map = Hamt()
    for name, keys, old_value in history:
        hamt = step(hamt, name, keys, old_value)
    changed = hamt.set(key, value)
    assert (changed == hamt) is (hamt.get(key, MISSING) == value) is not (changed != hamt)
    assert (hamt.discard(key) == hamt) is (key not in hamt)


# ---- making a map ----


class OnlyKeys:
    """A mapping by dict's rule, and by no abstract class."""

    def keys(self) -> list[str]:
        return ["a", "b"]

    def __getitem__(self, key: str) -> str:
        return key * 2


SOURCES: dict[str, Callable[[], tuple[tuple[object, ...], dict[str, int]]]] = {
    "nothing": lambda: ((), {}),
    "a dict": lambda: (({"a": 1},), {}),
    "a map": lambda: ((Hamt(a=1),), {}),
    "a map and keywords": lambda: ((Hamt(a=1),), {"a": 2, "b": 3}),
    "pairs": lambda: (([("a", 1), ["b", 2], "cd"],), {}),
    "an iterator": lambda: ((iter([("a", 1), ("a", 2)]),), {}),
    "keywords": lambda: ((), {"source": 1, "self": 2, "items": 3, "cls": 4}),
    "a dict and keywords": lambda: (({"a": 1, 2: 3},), {"a": 4}),
    "a subclass of dict": lambda: ((collections.OrderedDict(a=1),), {}),
    "a mapping that is no dict": lambda: ((types.MappingProxyType({"a": 1}),), {}),
    "an object with keys": lambda: ((OnlyKeys(),), {}),
    "None": lambda: ((None,), {}),
    "a number": lambda: ((1,), {}),
    "no pairs": lambda: (([1],), {}),
    "pairs of one": lambda: (([("a", 1), ("b",)],), {}),
    "pairs of three": lambda: (([("a", 1, 2)],), {}),
    "an unhashable key": lambda: (([([], 1)],), {}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_map_is_made_as_a_dict_is(name: str) -> None:
    (args, kwargs), (same_args, same_kwargs) = SOURCES[name](), SOURCES[name]()
    assert outcome(Hamt, *args, **kwargs) == outcome(dict, *same_args, **same_kwargs)


@pytest.mark.parametrize("name", SOURCES)
def test_update_lays_over_the_map_what_the_constructor_takes(name: str) -> None:
    (args, kwargs), (same_args, same_kwargs) = SOURCES[name](), SOURCES[name]()
    hamt: Hamt[str, int] = Hamt(a=0, z=0)
    expected = outcome(dict, *same_args, **same_kwargs)
    assert outcome(hamt.update, *args, **kwargs) == (
        {"a": 0, "z": 0, **expected} if type(expected) is dict else expected
    )


def test_a_source_may_have_items_only() -> None:
    class OnlyItems:
        def items(self) -> Iterator[tuple[str, int]]:
            return iter([("a", 1)])

    assert Hamt(OnlyItems()) == Hamt().update(OnlyItems()) == Hamt(a=1)
    assert Hamt(OnlyItems(), b=2) == Hamt(a=1, b=2)
    mutation = Hamt[str, int]().mutate()
    mutation.update(OnlyItems())
    assert mutation.finish() == Hamt(a=1)


@pytest.mark.parametrize("call", [Hamt, Hamt().update, Hamt.fromkeys])
def test_too_many_sources_are_a_type_error(call: Callable[..., object]) -> None:
    with pytest.raises(TypeError):
        call({}, {}, {})


def test_the_constructor_gives_back_a_map() -> None:
    hamt: Hamt[str, int] = Hamt(a=1)
    assert Hamt(hamt) is hamt


def test_fromkeys() -> None:
    assert Hamt.fromkeys("ab") == Hamt(a=None, b=None)
    assert Hamt.fromkeys(iter("ab"), 1) == Hamt(a=1, b=1)
    assert Hamt(c=1).fromkeys([]) == Hamt()


def test_init_changes_nothing() -> None:
    hamt = Hamt[str, int]().set("a", 1)
    hamt.__init__()
    assert len(hamt) == 1
    assert len(Hamt.__new__(Hamt)) == 0


# ---- identity, and what is unchanged ----


def test_set_of_the_same_object_gives_the_same_map() -> None:
    value = [1]
    hamt = set_each(Hamt(), [Key(number, number % 7) for number in range(100)], value)
    for number in range(100):
        assert hamt.set(Key(number, number % 7), value) is hamt
        assert hamt.set(Key(number, number % 7), [1]) is not hamt


@pytest.mark.parametrize("way", [way for way in SETTERS if not way.startswith("merge")])
@pytest.mark.parametrize("number", [1, 20, 90])
def test_a_value_that_is_equal_and_another_object_takes_the_place_of_the_old(way: str, number: int) -> None:
    # Some share a collision node, some stand on the last level, the others two levels deep.
    keys = [Key(index, index % 3 << 30 if index % 2 else index) for index in range(100)]
    old, new = [1], [1]
    hamt = step(Hamt.fromkeys(keys, old), way, keys[:number], new)
    assert [hamt[key] is new for key in keys] == [True] * number + [False] * (100 - number)
    assert [hamt[key] is old for key in keys] == [False] * number + [True] * (100 - number)


@given(HISTORIES)
def test_update_with_what_is_there_gives_the_same_map(history: History) -> None:
    hamt: Map = Hamt()
    for name, keys, value in history:
        hamt = step(hamt, name, keys, value)
    assert hamt.update(hamt) is hamt.update() is hamt.update([]) is hamt
    assert hamt.update(dict(hamt.items())) is hamt
    assert hamt | Hamt(hamt.items()) is hamt


@given(st.lists(st.tuples(KEYS, st.integers(0, 3))), st.lists(st.tuples(KEYS, st.integers(0, 3))))
def test_update_keeps_the_keys_that_were_there(pairs: list[tuple[Key, int]], more_pairs: list[tuple[Key, int]]) -> None:
    expected = dict(pairs)
    hamt = Hamt(pairs)
    assert all(any(key is old for old in expected) for key in hamt)
    expected.update(more_pairs)
    hamt = hamt.update(more_pairs)
    assert {id(key): value for key, value in hamt.items()} == {id(key): value for key, value in expected.items()}


def test_the_first_of_two_equal_keys_stays() -> None:
    first, second = Key("a", 1), Key("a", 1)
    for hamt in (
        Hamt[Key, int]().set(first, 1).set(second, 2),
        Hamt([(first, 1), (second, 2)]),
        Hamt({first: 1}) | {second: 2},
    ):
        assert next(iter(hamt)) is first
        assert hamt[first] == 2


def test_identity_comes_before_equality() -> None:
    one, two = Unequal(), Unequal()
    hamt = Hamt({one: one})
    assert (
        hamt[one] is one and one in hamt and one in hamt.keys() and one in hamt.values() and (one, one) in hamt.items()
    )
    assert hamt == Hamt[Unequal, Unequal]().set(one, one)
    assert hamt != Hamt({two: one}) and hamt != Hamt({one: two})
    assert len(hamt.delete(one)) == 0


@pytest.mark.parametrize("value", [None, MISSING, NotImplemented, mock.ANY])
def test_any_value_may_be_stored(value: object) -> None:
    hamt = Hamt[str, object]().set("a", value)
    assert hamt.find("a")[0] is value and hamt.find("a")[1]
    assert hamt.get("a", 1) is value and hamt["a"] is value and "a" in hamt
    assert Hamt(hamt.items()) == hamt and len(hamt.delete("a")) == 0
    assert hamt.set("a", value) is hamt.update(a=value) is hamt and hamt.set("a", 1)["a"] == 1


# ---- errors ----


@pytest.mark.parametrize("access", [Hamt().delete, Hamt().__getitem__])
@pytest.mark.parametrize("key", ["a", (), ("a", 1), None])
def test_a_missing_key_is_a_key_error_with_the_key(access: Callable[[object], object], key: object) -> None:
    with pytest.raises(KeyError) as caught:
        access(key)
    assert caught.value.args == (key,)


@pytest.mark.parametrize("name", ["find", "set", "delete", "discard", "get", "__getitem__", "__contains__"])
def test_an_unhashable_key_is_a_type_error(name: str) -> None:
    hamt = Hamt[str, int]().set("a", 1)
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        getattr(hamt, name)([], *([1] if name == "set" else []))


@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
def test_maps_have_no_order(compare: Callable[[object, object], object]) -> None:
    with pytest.raises(TypeError, match="not supported between instances"):
        compare(Hamt(), Hamt())


def test_nobody_iterates_backwards() -> None:
    with pytest.raises(TypeError):
        reversed(Hamt())


def test_a_map_takes_no_attributes_and_no_items() -> None:
    hamt: Hamt[str, int] = Hamt(a=1)
    with pytest.raises(AttributeError):
        hamt.other = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        hamt["a"] = 2  # type: ignore[index]
    with pytest.raises(TypeError):
        del hamt["a"]  # type: ignore[attr-defined]


# The types that a map's methods give, by an instance of each.
GIVEN = [Hamt().keys(), Hamt().values(), Hamt().items(), iter(Hamt()), Hamt().mutate()]


@pytest.mark.parametrize("instance", GIVEN, ids=lambda instance: type(instance).__name__)
def test_what_the_methods_give_nobody_else_makes_or_pickles(instance: object) -> None:
    name = type(instance).__name__
    arguments: tuple[object, ...]
    for arguments in ((), (Hamt(),), (Hamt(), "keys")):
        with pytest.raises(TypeError, match=f"cannot create 'contextvars_cy.{name}' instances"):
            type(instance)(*arguments)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match=f"cannot pickle 'contextvars_cy.{name}' object"):
            pickle.dumps(instance, protocol)


@pytest.mark.parametrize("kind", [Hamt, *map(type, GIVEN)], ids=lambda kind: kind.__name__)
def test_nobody_subclasses_a_map_or_what_its_methods_give(kind: type) -> None:
    with pytest.raises(TypeError, match=f"type 'contextvars_cy.{kind.__name__}' is not an acceptable base type"):
        type("Sub", (kind,), {})


# ---- operators ----


@given(SMALL, SMALL, st.sampled_from([dict, Hamt, types.MappingProxyType, collections.OrderedDict]))
def test_union_is_dicts_on_either_side(
    left: dict[int, int], right: dict[int, int], kind: Callable[[dict[int, int]], Any]
) -> None:
    assert Hamt(left) | kind(right) == Hamt({**left, **right})
    assert type(kind(left) | Hamt(right)) is Hamt
    assert kind(left) | Hamt(right) == Hamt({**left, **right})


def test_union_in_place_binds_a_new_map() -> None:
    hamt = before = Hamt[str, int](a=1)
    hamt |= {"b": 2}
    assert hamt == Hamt(a=1, b=2) and before == Hamt(a=1)


@pytest.mark.parametrize("other", [[("a", 1)], None, {"a"}, 1])
def test_union_is_for_mappings_only(other: Any) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        Hamt() | other
    with pytest.raises(TypeError, match="unsupported operand"):
        other | Hamt()


@given(SMALL, SMALL)
def test_a_map_equals_a_dict_of_the_same_content(mapping: dict[int, int], other: dict[int, int]) -> None:
    hamt = Hamt(mapping)
    for kind in (dict, collections.OrderedDict, Hamt, *FROZEN):
        assert (hamt == kind(other)) is (kind(other) == hamt) is (mapping == other) is not (hamt != kind(other))
    assert hamt == types.MappingProxyType(mapping) == hamt


@pytest.mark.parametrize("kind", [Hamt, *FROZEN])
def test_what_equals_a_map_and_has_a_hash_has_the_same(kind: Any) -> None:
    assert hash(Hamt(a=1, b="x")) == hash(kind(a=1, b="x"))


def test_a_map_equals_nothing_else() -> None:
    assert Hamt() != 1 and Hamt() != [] and Hamt() != HamtSet()
    assert Hamt().__eq__([]) is NotImplemented and Hamt().__or__([]) is NotImplemented  # type: ignore[operator]


def test_keys_of_one_hash_are_told_apart_even_where_one_is_anothers_value() -> None:
    a, b, c = (Key(name, 0) for name in "abc")
    one, two = Hamt([(a, 1), (b, c)]), Hamt[Key, object]([(c, 1), (a, 1)])
    assert one != two and two != one
    assert one.diff(two) == ({c: 1}, {b: c}, {})


def test_nothing_is_compared_that_is_shared() -> None:
    class Incomparable:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

    hamt: Hamt[Key, object] = Hamt((Key(number, number), Incomparable()) for number in range(1000))
    other = hamt.set(Key("more", 7), 1)
    assert hamt != other
    assert hamt.set(Key("more", 7), 2) != other
    assert other.delete(Key("more", 7)) == hamt


# ---- views ----

OPERATORS = [operator.and_, operator.or_, operator.sub, operator.xor]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]
VIEWS = st.sampled_from(["keys", "items"])


def view_of(mapping: Any, name: str) -> Any:
    return getattr(mapping, name)()


@pytest.mark.parametrize("operate", OPERATORS)
@pytest.mark.parametrize("name", ["keys", "items"])
@given(SMALL, SMALL, st.sampled_from([set, frozenset, list, iter, "dict", "map"]))
def test_operators_of_views_are_those_of_dicts_views(
    name: str, operate: Callable[[Any, Any], object], left: dict[int, int], right: dict[int, int], kind: Any
) -> None:
    def other() -> Any:
        if kind == "map":
            return view_of(Hamt(right), name)
        return view_of(right, name) if kind == "dict" else kind(view_of(right, name))

    hamt = Hamt(left)
    result = operate(view_of(hamt, name), other())
    assert type(result) is set
    assert result == operate(view_of(left, name), other())
    # With the view on the right, a frozenset's operator gives way to it, so that this is a set too.
    reflected = operate(other(), view_of(hamt, name))
    assert type(reflected) is set
    assert reflected == operate(other(), view_of(left, name))


@pytest.mark.parametrize("compare", COMPARISONS)
@pytest.mark.parametrize("name", ["keys", "items"])
@given(SMALL, SMALL, st.sampled_from([set, frozenset, "dict", "map"]))
def test_comparisons_of_views_are_those_of_dicts_views(
    name: str, compare: Callable[[Any, Any], bool], left: dict[int, int], right: dict[int, int], kind: Any
) -> None:
    other = view_of(Hamt(right) if kind == "map" else right, name)
    if kind in (set, frozenset):
        other = kind(other)
    assert compare(view_of(Hamt(left), name), other) is compare(view_of(left, name), view_of(right, name))
    assert compare(other, view_of(Hamt(left), name)) is compare(view_of(right, name), view_of(left, name))


@given(SMALL, SMALL, VIEWS)
def test_disjoint_views_are_those_of_dicts_views(left: dict[int, int], right: dict[int, int], name: str) -> None:
    other = list(view_of(right, name))
    assert view_of(Hamt(left), name).isdisjoint(other) is view_of(left, name).isdisjoint(other)


@given(SMALL, st.integers(0, 6), st.integers(0, 2))
def test_views_hold_what_dicts_views_hold(mapping: dict[int, int], key: int, value: int) -> None:
    hamt = Hamt(mapping)
    assert sorted(hamt.keys()) == sorted(hamt) == sorted(mapping)
    assert sorted(hamt.values()) == sorted(mapping.values())
    assert sorted(hamt.items()) == sorted(mapping.items())
    assert len(hamt.keys()) == len(hamt.values()) == len(hamt.items()) == len(mapping)
    assert (key in hamt.keys()) is (key in mapping)
    assert (value in hamt.values()) is (value in mapping.values())
    assert ((key, value) in hamt.items()) is ((key, value) in mapping.items())


@pytest.mark.parametrize("name", ["keys", "values", "items"])
def test_views_can_be_iterated_again_and_again(name: str) -> None:
    view = view_of(Hamt(a=1, b=2), name)
    assert list(view) == list(view) and len(list(view)) == 2


@pytest.mark.parametrize("item", [1, "ab", ("a",), ("a", 1, 1), ["a", 1], None])
def test_what_is_no_pair_is_no_item(item: Any) -> None:
    assert item not in Hamt(a=1).items()


def test_views_of_unhashable_values() -> None:
    hamt: Hamt[str, list[int]] = Hamt(a=[1])
    assert [1] in hamt.values() and ("a", [1]) in hamt.items() and ("a", []) not in hamt.items()
    assert hamt.items() == {"a": [1]}.items() and hamt.items() != {"a": []}.items()
    with pytest.raises(TypeError, match="unhashable"):
        hamt.items() & hamt.items()


@pytest.mark.parametrize("name", ["keys", "items"])
def test_views_that_are_sets_have_no_hash(name: str) -> None:
    assert not isinstance(view_of(Hamt(), name), Hashable)
    with pytest.raises(TypeError, match="unhashable type"):
        hash(view_of(Hamt(), name))


@pytest.mark.parametrize("name", ["keys", "values", "items"])
def test_views_show_what_they_hold(name: str) -> None:
    view = view_of(Hamt(a=1), name)
    assert repr(view) == f"Hamt{name.capitalize()}({list(view)})"


# ---- iteration ----


@given(HISTORIES)
def test_iteration_is_in_the_order_of_the_dump(history: History) -> None:
    hamt: Map = Hamt()
    for name, keys, value in history:
        hamt = step(hamt, name, keys, value)
    shown = [line.strip() for line in hamt._dump().splitlines() if ": " in line]
    assert [f"{key!r}: {value!r}" for key, value in hamt.items()] == shown
    assert list(zip(hamt, hamt.values())) == list(zip(hamt.keys(), hamt.values())) == list(hamt.items())


def test_iteration_reaches_the_last_level() -> None:
    keys = [Key("a", 0), Key("b", 1 << 31), Key("c", 1 << 31), Key("d", 1 << 30)]
    hamt: Hamt[Key, Any] = Hamt((key, key.name) for key in keys)
    hamt._check()
    assert sorted(hamt.values()) == ["a", "b", "c", "d"]
    assert hamt._dump().count("CollisionNode") == 1


@pytest.mark.parametrize("name", ["__iter__", "keys", "values", "items"])
def test_iterators_are_exhausted_once_and_for_all(name: str) -> None:
    iterator = iter(getattr(Hamt(a=1), name)())
    assert iter(iterator) is iterator
    assert len(list(iterator)) == 1
    assert list(iterator) == list(iterator) == []


@pytest.mark.parametrize("name", ["__iter__", "keys", "values", "items"])
def test_the_length_of_an_iterator_is_its_maps(name: str) -> None:
    iterator = iter(getattr(Hamt(a=1, b=2), name)())
    next(iterator)
    assert len(iterator) == 2


def test_an_iterator_goes_on_with_its_map_whatever_becomes_of_the_name() -> None:
    hamt = Hamt.fromkeys(range(100))
    seen = []
    for key in hamt:
        seen.append(key)
        hamt = hamt.delete(key).set(-1 - key, None)
    assert sorted(seen) == list(range(100))


def test_pairs_that_nobody_keeps_are_as_good_as_others() -> None:
    # An iterator may hand out one tuple again and again, as a dict's does, while nobody else refers to it.
    hamt = Hamt((number, str(number)) for number in range(100))
    assert list(map(hash, hamt.items())) == [hash(pair) for pair in list(hamt.items())]
    assert len({id(pair) for pair in list(hamt.items())}) == 100
    iterator = iter(hamt.items())
    first = next(iterator)
    assert first == next(iter(hamt.items())) and first != next(iterator)
    second = next(iterator)
    # Let go, it may be handed out again; what is kept stays as it is.
    del first
    assert [second, next(iterator), next(iterator), second] == [list(hamt.items())[at] for at in (2, 3, 4, 2)]


# ---- hash ----


@given(SMALL)
def test_equal_maps_have_one_hash(mapping: dict[int, int]) -> None:
    pairs = list(mapping.items())
    hamt = Hamt(pairs)
    assert hash(hamt) == hash(hamt) == hash(Hamt(pairs[::-1]))
    assert {hamt: 1}[set_each(Hamt(hamt), [99], 1).delete(99)] == 1


@given(st.lists(PLACES, unique=True, max_size=6))
def test_the_hash_depends_on_keys_and_on_values(hashes: list[int]) -> None:
    keys = [Key(place, place) for place in hashes]
    hamts = [Hamt(), *(Hamt({key: value}) for key in keys for value in ("a", "b")), Hamt.fromkeys(keys, "c")]
    assert len({hash(hamt) for hamt in hamts}) == len({tuple(map(hash, hamt.items())) for hamt in hamts})


def test_a_map_with_an_unhashable_value_has_no_hash() -> None:
    hamt: Hamt[str, list[int]] = Hamt(a=[])
    for _ in range(2):
        with pytest.raises(TypeError, match="unhashable type: 'list'"):
            hash(hamt)


# ---- repr, pickle, copy ----


def test_repr() -> None:
    assert repr(Hamt()) == "Hamt({})"
    assert repr(Hamt(a=1)) == "Hamt({'a': 1})"
    assert repr(Hamt([(1, "x"), (0, None)])) == "Hamt({0: None, 1: 'x'})"


def test_a_map_within_itself_shows_that() -> None:
    inner: list[object] = []
    hamt: Hamt[str, object] = Hamt(a=inner)
    inner.append(hamt)
    assert repr(hamt) == "Hamt({'a': [Hamt({...})]})"
    assert repr(hamt) == "Hamt({'a': [Hamt({...})]})"


def test_a_repr_that_raises_passes_through() -> None:
    class Shy:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    hamt: Hamt[str, Shy] = Hamt(a=Shy())
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            repr(hamt)


@given(SMALL, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_pickle(mapping: dict[int, int], protocol: int) -> None:
    hamt = Hamt(mapping)
    again = pickle.loads(pickle.dumps(hamt, protocol))
    again._check()
    assert type(again) is Hamt and again == hamt and again._dump() == hamt._dump()
    assert hamt.__reduce__() == (Hamt, (mapping,))
    assert list(hamt.__reduce__()[1][0]) == list(hamt)


def test_a_map_within_itself_is_pickled_and_copied() -> None:
    inner: list[Any] = []
    inner.append(Hamt(a=inner))
    for again in (pickle.loads(pickle.dumps(inner)), copy.deepcopy(inner)):
        assert again is not inner and again[0]["a"] is again


def test_a_copy_is_the_map_and_a_deep_copy_is_not() -> None:
    hamt: Hamt[str, list[int]] = Hamt(a=[1])
    assert copy.copy(hamt) is hamt
    deep = copy.deepcopy(hamt)
    assert deep == hamt and deep["a"] is not hamt["a"]


# ---- a citizen of Python ----


def test_weak_references() -> None:
    referent: object
    for referent in (Hamt(a=1), Hamt(a=1).mutate()):
        assert weakref.ref(referent)() is referent


def test_subscription() -> None:
    assert Hamt[str, int].__origin__ is Hamt  # type: ignore[attr-defined]
    assert Hamt[str, int].__args__ == (str, int)  # type: ignore[attr-defined]
    assert Hamt[str, int](a=1) == Hamt(a=1)


def test_a_map_is_a_mapping() -> None:
    assert isinstance(Hamt(), Mapping) and isinstance(Hamt(), Hashable)
    assert dict(Hamt(a=1)) == {**Hamt(a=1)} == {"a": 1}
    assert dict(**Hamt(a=1)) == {"a": 1}


if sys.version_info >= (3, 10):

    def test_match() -> None:
        # As text, because Python 3.9 cannot read it.
        program = """
match hamt:
    case {"missing": _}:
        found = None
    case {"a": 1, "b": found, **rest}:
        pass
"""
        names: dict[str, object] = {"hamt": Hamt(a=1, b=2, c=3)}
        exec(compile(program, "match", "exec"), names)
        assert names["found"] == 2
        assert names["rest"] == {"c": 3}


# ---- the checker ----


def test_check_names_the_broken_invariant() -> None:
    key = Key("a", 1)
    hamt = Hamt[Key, int]().set(key, 1)
    key.key_hash = 2
    with pytest.raises(AssertionError, match="invariant 5: key .* is out of its hash's place"):
        hamt._check()


def test_check_finds_a_key_that_is_there_twice() -> None:
    key = Key("a", 1)
    hamt = Hamt.fromkeys([key, Key("b", 1)])
    key.name = "b"
    with pytest.raises(AssertionError, match="invariant 6: key .* twice"):
        hamt._check()


def test_the_dump_shows_the_tree() -> None:
    hamt = Hamt([(Key("a", 3), 1), (Key("b", 3 | 2 << 5), 2), (Key("c", 4), 3)])
    assert hamt._dump().splitlines() == [
        "Hamt of 3",
        "  Node entries=0b10000 children=0b1000",
        "    Key('c', 0x4): 3",
        "    Node entries=0b101 children=0b0",
        "      Key('a', 0x3): 1",
        "      Key('b', 0x43): 2",
    ]


# ---- what goes with a map ----


def test_a_copy_is_the_map_itself() -> None:
    hamt = Hamt(a=1)
    assert hamt.copy() is copy.copy(hamt) is hamt


@pytest.mark.skipif(sys.version_info < (3, 13), reason="copy.replace came with Python 3.13")
def test_copy_replace_sets_entries() -> None:
    hamt = Hamt(a=1, b=2)
    assert copy.replace(hamt, b=3, c=4) == {"a": 1, "b": 3, "c": 4}  # type: ignore[arg-type, attr-defined, unused-ignore]
    assert copy.replace(hamt) is hamt  # type: ignore[attr-defined, unused-ignore]


def test_a_view_knows_its_map() -> None:
    hamt = Hamt(a=1)
    assert hamt.keys().mapping is hamt.values().mapping is hamt.items().mapping is hamt
    with pytest.raises(AttributeError):
        hamt.keys().mapping = hamt  # type: ignore[misc]


def test_a_map_is_written_as_json_by_way_of_a_dict() -> None:
    assert json.dumps(Hamt(a=Hamt(b=[1])), default=dict) == '{"a": {"b": [1]}}'
