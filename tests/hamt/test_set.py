"""HamtSet: a persistent set, with frozenset as the oracle."""

from __future__ import annotations

import copy
import operator
import pickle
import weakref
from collections.abc import Callable, Hashable, Iterable, Set
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import Hamt, HamtSet, HamtSetMutation
from histories import KEYS
from keys import Key, number_at

ELEMENTS = st.lists(KEYS, max_size=8)
KINDS: dict[str, Callable[[Iterable[Any]], Any]] = {
    "HamtSet": HamtSet,
    "set": set,
    "frozenset": frozenset,
    "dict's keys": lambda elements: dict.fromkeys(elements).keys(),
    "map's keys": lambda elements: Hamt.fromkeys(elements).keys(),
}
OPERATORS = [operator.or_, operator.and_, operator.sub, operator.xor]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]
CHANGES = ["add", "remove", "discard", "union", "intersection", "difference", "symmetric_difference"]


def outcome(call: Callable[..., object], *args: object) -> object:
    try:
        return call(*args)
    except (KeyError, TypeError) as error:
        return type(error), error.args


def frozen(name: str, elements: frozenset[Key], element: Key, more: list[Key]) -> Any:
    """What a frozenset answers; add, remove and discard are not its own."""
    if name == "add":
        return elements | {element}
    if name == "discard" or (name == "remove" and element in elements):
        return elements - {element}
    if name == "remove":
        return KeyError, (element,)
    return getattr(elements, name)(more)


@given(st.lists(st.tuples(st.sampled_from(CHANGES), KEYS, ELEMENTS), max_size=20))
def test_any_history_does_as_a_frozenset(history: list[tuple[str, Key, list[Key]]]) -> None:
    elements: HamtSet[Key] = HamtSet()
    expected: frozenset[Key] = frozenset()
    kept = []
    for name, element, more in history:
        one = name in ("add", "remove", "discard")
        result = outcome(getattr(elements, name), element if one else iter(more))
        assert result == frozen(name, expected, element, more)
        if isinstance(result, HamtSet):
            kept.append((elements, expected))
            elements, expected = result, frozen(name, expected, element, more)
        elements._hamt._check()
        assert set(elements) == expected and len(elements) == len(expected)
        assert (element in elements) is (element in expected)
    assert all(before == expected for before, expected in kept)


@given(ELEMENTS, ELEMENTS, st.sampled_from(OPERATORS), st.sampled_from([*KINDS]))
def test_operators_are_frozensets_on_either_side(
    left: list[Key], right: list[Key], operate: Callable[[Any, Any], Any], kind: str
) -> None:
    expected = operate(frozenset(left), frozenset(right))
    result = operate(HamtSet(left), KINDS[kind](right))
    assert type(result) is HamtSet
    assert result == expected
    result._hamt._check()
    reflected = operate(KINDS[kind](left), HamtSet(right))
    # Views of keys take any iterable, and answer with a set of their own.
    assert type(reflected) is (set if "keys" in kind else KINDS[kind])
    assert reflected == expected


@given(ELEMENTS, ELEMENTS, st.sampled_from(COMPARISONS), st.sampled_from([*KINDS]))
def test_comparisons_are_frozensets_on_either_side(
    left: list[Key], right: list[Key], compare: Callable[[Any, Any], bool], kind: str
) -> None:
    expected = compare(frozenset(left), frozenset(right))
    assert compare(HamtSet(left), KINDS[kind](right)) is expected
    assert compare(KINDS[kind](left), HamtSet(right)) is expected


@given(ELEMENTS, st.lists(ELEMENTS, max_size=3), st.sampled_from(["union", "intersection", "difference"]))
def test_methods_take_any_number_of_iterables(elements: list[Key], others: list[list[Key]], name: str) -> None:
    result = getattr(HamtSet(elements), name)(*map(iter, others))
    assert type(result) is HamtSet
    assert result == getattr(frozenset(elements), name)(*others)


@given(
    ELEMENTS, ELEMENTS, st.sampled_from(["issubset", "issuperset", "isdisjoint"]), st.sampled_from([list, iter, *KINDS])
)
def test_questions_are_answered_about_any_iterable(elements: list[Key], other: list[Key], name: str, kind: Any) -> None:
    make = KINDS.get(kind, kind)
    assert getattr(HamtSet(elements), name)(make(other)) is getattr(frozenset(elements), name)(other)


@given(ELEMENTS, ELEMENTS)
def test_what_changes_nothing_gives_the_set_itself(elements: list[Key], more: list[Key]) -> None:
    one = HamtSet(elements)
    assert one.copy() is copy.copy(one) is HamtSet(one) is one
    assert one.union() is one.union(elements, one) is one | set(elements) is one
    assert one.difference() is one.difference(set(more) - set(elements)) is one - set() is one
    assert one.intersection() is one.intersection(elements + more) is one & {*elements, *more} is one
    for element in elements:
        assert one.add(Key(element.name, element.place)) is one
    for element in set(more) - set(elements):
        assert one.discard(element) is one


@given(ELEMENTS, ELEMENTS)
def test_of_equal_elements_the_first_stays(elements: list[Key], more: list[Key]) -> None:
    one = HamtSet(elements)
    kept = {id(element) for element in one}
    assert {id(element) for element in one & set(more)} <= kept
    assert {id(element) for element in one | set(more)} >= kept
    assert {id(element) for element in one - set(more)} <= kept


@given(ELEMENTS)
def test_the_hash_is_that_of_an_equal_frozenset(elements: list[Key]) -> None:
    assert hash(HamtSet(elements)) == hash(frozenset(elements)) == hash(HamtSet(elements[::-1]))
    assert {HamtSet(elements): 1}[frozenset(elements)] == 1  # type: ignore[index]


@pytest.mark.parametrize("operate", [*OPERATORS, operator.lt, operator.le, operator.gt, operator.ge])
@pytest.mark.parametrize("other", [[1], "a", {1: 2}, None, Hamt()])
def test_operators_are_for_sets_only(operate: Callable[[Any, Any], object], other: object) -> None:
    for left, right in ((HamtSet([1]), other), (other, HamtSet([1]))):
        with pytest.raises(TypeError, match="not supported between|unsupported operand"):
            operate(left, right)


@pytest.mark.parametrize("other", [[1], {1: 2}, None, Hamt.fromkeys([1])])
def test_a_set_equals_sets_only(other: object) -> None:
    assert HamtSet([1]) != other and other != HamtSet([1])
    assert not HamtSet([1]) == other


def test_where_the_sizes_tell_no_element_is_looked_at() -> None:
    # The elements of this view have no hash.
    view: Set[object] = {"a": [], "b": []}.items()
    assert HamtSet([1]) != view and not HamtSet([1]) == view
    assert not HamtSet([1]) > view and not HamtSet([1]) >= view
    assert not HamtSet([1, 2, 3]) < view and not HamtSet([1, 2, 3]) <= view
    with pytest.raises(TypeError, match="unhashable"):
        HamtSet([1]) | view


@pytest.mark.parametrize(
    "call", [HamtSet, HamtSet().union, HamtSet().intersection, HamtSet().issubset, HamtSet().isdisjoint]
)
def test_what_is_no_iterable_is_a_type_error(call: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        call(1)


@pytest.mark.parametrize("name", ["add", "remove", "discard", "__contains__"])
def test_an_unhashable_element_is_a_type_error(name: str) -> None:
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        getattr(HamtSet([1]), name)([])


def test_a_missing_element_is_a_key_error_with_the_element() -> None:
    with pytest.raises(KeyError) as caught:
        HamtSet([1]).remove((1, 2))
    assert caught.value.args == ((1, 2),)


def test_operators_in_place_bind_a_new_set() -> None:
    elements = before = HamtSet([1, 2])
    elements |= {3}
    elements &= {2, 3, 4}
    elements -= {2}
    elements ^= {5}
    assert elements == {3, 5} and type(elements) is HamtSet
    assert before == {1, 2}


def test_repr() -> None:
    assert repr(HamtSet()) == "HamtSet()"
    assert repr(HamtSet([1])) == "HamtSet({1})"
    assert repr(HamtSet([2, 1])) == repr(HamtSet([1, 2])) in ("HamtSet({1, 2})", "HamtSet({2, 1})")


def test_a_set_within_itself_shows_that() -> None:
    class Holder:
        elements: HamtSet[Holder]

        def __repr__(self) -> str:
            return repr(self.elements)

    holder = Holder()
    holder.elements = HamtSet([holder])
    assert repr(holder.elements) == "HamtSet({HamtSet({...})})"


@given(st.lists(st.integers(0, 40)), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_pickle_and_copy(elements: list[int], protocol: int) -> None:
    one = HamtSet(elements)
    again = pickle.loads(pickle.dumps(one, protocol))
    assert type(again) is HamtSet and again == one
    assert copy.deepcopy(one) == one
    assert pickle.dumps(one, protocol) == pickle.dumps(HamtSet(elements[::-1]), protocol)


def test_a_citizen_of_python() -> None:
    elements = HamtSet([1])
    assert isinstance(elements, Set) and isinstance(elements, Hashable)
    assert weakref.ref(elements)() is elements
    assert HamtSet[int].__origin__ is HamtSet  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        elements.other = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        HamtSet([1], [2])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="is not an acceptable base type"):
        type("Sub", (HamtSet,), {})


def test_iteration_is_in_the_order_of_the_hashes() -> None:
    places = [3, 1, 2]
    elements = HamtSet(number_at(place) for place in places)
    assert list(elements) == list(map(number_at, sorted(places)))
    for element in elements:
        elements = elements.remove(element)
    assert elements == HamtSet()


@pytest.mark.parametrize("kind", [set, frozenset])
@pytest.mark.parametrize("operate", [operator.ior, operator.iand, operator.isub, operator.ixor])
def test_a_builtin_set_keeps_its_type_beside_a_persistent_one(operate: Callable[[Any, Any], Any], kind: Any) -> None:
    result = operate(kind([1, 2]), HamtSet([2, 3]))
    assert type(result) is kind and result == operate(kind([1, 2]), kind([2, 3]))


def test_a_set_stands_for_an_equal_element() -> None:
    elements: HamtSet[Any] = HamtSet([HamtSet(), frozenset([1])])
    assert set() in elements and {1} in elements and {2} not in elements
    assert elements.remove({1}) == elements.discard({1}) == {frozenset()}
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        [] in elements  # noqa: B015


# ---- mutations ----


@given(ELEMENTS, st.lists(st.tuples(st.sampled_from(["add", "discard", "remove", "update"]), KEYS), max_size=30))
def test_a_mutation_does_as_a_builtin_set(elements: list[Key], program: list[tuple[str, Key]]) -> None:
    before = HamtSet(elements)
    mutation, model = before.mutate(), set(elements)
    for name, element in program:
        argument = [element, *elements[:2]] if name == "update" else element
        assert outcome(getattr(mutation, name), argument) == outcome(getattr(model, name), argument)
        assert len(mutation) == len(model) and (element in mutation) is (element in model)
    assert set(mutation) == model and (mutation == HamtSet(model).mutate())
    result = mutation.finish()
    assert result == model and before == set(elements)
    assert result is mutation.finish()
    result._hamt._check()


def test_a_mutation_that_changes_nothing_gives_the_set_back() -> None:
    elements = HamtSet([1, 2])
    with elements.mutate() as mutation:
        mutation.add(1)
        mutation.discard(3)
        mutation.update([1], elements)
    assert mutation.finish() is elements
    calls: list[Callable[[], object]] = [
        lambda: mutation.add(1),
        lambda: mutation.discard(3),
        lambda: mutation.remove(1),
        lambda: mutation.update([1]),
        mutation.__enter__,
    ]
    for call in calls:
        with pytest.raises(ValueError, match="finished"):
            call()


def test_what_a_mutation_shows_and_refuses() -> None:
    mutation = HamtSet([1]).mutate()
    iterator = iter(mutation)
    mutation.add(2)
    assert list(iterator) == [1]
    mutation.remove(2)
    assert repr(mutation) == "HamtSetMutation({1})" and repr(HamtSet().mutate()) == "HamtSetMutation()"
    assert {1} not in mutation and mutation != {1} and mutation != HamtSet([1])
    with pytest.raises(KeyError):
        mutation.remove(2)
    calls: list[Callable[[], object]] = [
        lambda: hash(mutation),
        lambda: HamtSetMutation(),  # type: ignore[call-arg]
        lambda: pickle.dumps(mutation),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize("names", ["ab", "abc", "abd", "de", "a", ""])
@pytest.mark.parametrize("others", ["ab", "abc", "abd", "de", "a", ""])
def test_keys_of_one_hash_are_told_apart_by_every_question(names: str, others: str) -> None:
    one, two = ([Key(name, 7) for name in letters] + [Key("beside", 3)] for letters in (names, others))
    for left, right in [(one, two), (one[:-1], two[:-1])]:
        mine, theirs = HamtSet(left), HamtSet(right)
        assert (mine <= theirs) is (set(left) <= set(right)) and (mine >= theirs) is (set(left) >= set(right))
        assert mine.isdisjoint(theirs) is set(left).isdisjoint(right)
        assert mine.isdisjoint(mine) is (not left)


UNHASHABLE: dict[str, Callable[[Any], object]] = {
    "difference": lambda elements: elements.difference([{1}]),
    "issuperset": lambda elements: elements.issuperset([{1}]),
    "isdisjoint": lambda elements: elements.isdisjoint([{1}]),
    "intersection": lambda elements: elements.intersection([{1}]),
    "union": lambda elements: elements.union([{1}]),
    "symmetric_difference": lambda elements: elements.symmetric_difference([{1}]),
    "issubset": lambda elements: elements.issubset([{1}]),
}


@pytest.mark.parametrize("name", UNHASHABLE)
@pytest.mark.parametrize("kind", [HamtSet, frozenset])
def test_a_set_is_no_element_of_another_iterable(kind: Callable[[Any], Any], name: str) -> None:
    with pytest.raises(TypeError, match="unhashable type: 'set'"):
        UNHASHABLE[name](kind([frozenset([1])]))


@pytest.mark.parametrize("missing", [1, "a", {1}, frozenset({1})])
def test_what_cannot_be_removed_is_named_as_it_was_given(missing: Any) -> None:
    for elements in (HamtSet[Any](), HamtSet([0]).mutate(), {0}):
        with pytest.raises(KeyError) as raised:
            elements.remove(missing)
        assert raised.value.args == (missing,) and type(raised.value.args[0]) is type(missing)


def test_an_update_of_a_mutation_adds_all_or_nothing() -> None:
    mutation = HamtSet[Any]([1]).mutate()
    others: Any
    for others in ([[2, 3], 5], [[2], [[]]], [[2, []]]):
        with pytest.raises(TypeError):
            mutation.update(*others)
        assert set(mutation) == {1}
    mutation.update([2], HamtSet([3]), "a")
    mutation.update()
    assert mutation.finish() == {1, 2, 3, "a"}
