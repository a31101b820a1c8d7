# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnusedExpression=false
"""What type checkers know of the maps and sets. `make lint` has mypy and pyright read this file, and pytest runs it.

In `wrong` each line is an error to both checkers: of a `type: ignore` that ignores none they complain.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

from contextvars_cy import ContextVar, Hamt, HamtDiff, HamtItems, HamtKeys, HamtMutation, HamtSet, HamtValues
from contextvars_cy._hamt.set import HamtSetMutation

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value, kind):
        return value


class OnlyItems:
    def items(self) -> Iterator[tuple[str, int]]:
        return iter([("a", 1)])


class OnlyKeys:
    def keys(self) -> list[str]:
        return ["a"]

    def __getitem__(self, key: str, /) -> int:
        return 1


NUMBERS = {"a": 1}
PAIRS = [("a", 1)]
MAP = Hamt(a=1)
SET = HamtSet(["a"])


def sizes(values: Mapping[str, object]) -> list[str]:
    return [f"{key}={value}" for key, value in values.items()]


def shown(elements: Set[object]) -> list[str]:
    return [str(element) for element in elements]


def in_a_map(values: Hamt[str, object]) -> Hamt[str, object]:
    return values.set("b", "x")


# ---- maps ----


def test_a_map_infers_its_types() -> None:
    for hamt in (
        assert_type(MAP, Hamt[str, int]),
        assert_type(Hamt({"a": 1}), Hamt[str, int]),
        assert_type(Hamt(NUMBERS), Hamt[str, int]),
        assert_type(Hamt(PAIRS), Hamt[str, int]),
        assert_type(Hamt(zip("a", [1])), Hamt[str, int]),
        assert_type(Hamt((letter, ord(letter) - 96) for letter in NUMBERS), Hamt[str, int]),
        assert_type(Hamt(MAP), Hamt[str, int]),
        assert_type(Hamt(MAP.mutate()), Hamt[str, int]),
        assert_type(Hamt(OnlyItems()), Hamt[str, int]),
        assert_type(Hamt(OnlyKeys()), Hamt[str, int]),
        assert_type(Hamt(NUMBERS, a=1), Hamt[str, int]),
        assert_type(Hamt(PAIRS, a=1), Hamt[str, int]),
        assert_type(Hamt(MAP, a=1), Hamt[str, int]),
        assert_type(Hamt(OnlyItems(), a=1), Hamt[str, int]),
    ):
        assert hamt == MAP
    assert_type(Hamt({1: "a"}), Hamt[int, str])
    assert_type(Hamt.fromkeys("ab"), Hamt[str, None])
    assert_type(Hamt.fromkeys("ab", 1), Hamt[str, int])


def test_a_map_takes_the_types_that_are_named() -> None:
    empty: Hamt[str, int] = Hamt()
    # As of any empty collection, pyright knows no types of this one.
    grown: Hamt[str, int] = Hamt().set("a", 1)  # pyright: ignore[reportUnknownVariableType]
    assert grown == empty.set("a", 1)
    assert assert_type(Hamt[str, int](), Hamt[str, int]) is empty
    wider: Hamt[Hashable, object] = Hamt({"a": 1})
    for hamt in (
        assert_type(Hamt[Hashable, int]({"a": 1}), Hamt[Hashable, int]),
        assert_type(Hamt[Hashable, int](NUMBERS), Hamt[Hashable, int]),
        assert_type(Hamt[str, object](a=1), Hamt[str, object]),
        assert_type(Hamt[str, Union[int, None]](NUMBERS, a=1), Hamt[str, Union[int, None]]),
    ):
        assert hamt == wider
    lists: Hamt[str, list[int]] = Hamt(a=[])
    assert assert_type(lists.get("b", []), list[int]) == []


def test_a_map_is_a_mapping_covariant_in_its_value() -> None:
    assert sizes(MAP) == sizes(in_a_map(MAP).delete("b")) == ["a=1"]
    assert assert_type(dict(MAP), dict[str, int]) == {**MAP} == dict(**MAP) == NUMBERS
    keys: list[str] = [assert_type(key, str) for key in MAP]
    assert keys == [assert_type(key, str) for key in MAP.keys()]
    assert [assert_type(value, int) for value in MAP.values()] == [1]
    for key, value in MAP.items():
        assert (assert_type(key, str), assert_type(value, int)) == ("a", 1)
    assert assert_type(MAP.keys() & {"a"}, set[str]) == {"a"}
    assert assert_type(MAP.keys() | {1}, set[Union[str, int]]) == {"a", 1}
    assert assert_type(MAP.keys().mapping, Hamt[str, Any]) is assert_type(MAP.values().mapping, Hamt[Any, int])
    assert assert_type(MAP.items().mapping, Hamt[str, int]) is MAP
    assert "b" not in MAP and len(MAP) == 1 and hash(MAP) == hash(MAP.copy())


def test_what_a_map_gives() -> None:
    assert assert_type(MAP["a"], int) == 1
    assert assert_type(MAP.get("a"), Union[int, None]) == 1
    assert assert_type(MAP.get("a", None), Union[int, None]) == 1
    assert assert_type(MAP.get("a", 2), int) == 1
    assert assert_type(MAP.get("a", "x"), Union[int, str]) == 1
    # The mark for a missing value has no type of its own.
    assert assert_type(MAP.find("a"), tuple[Union[int, Any], bool]) == (1, True)
    assert assert_type(MAP.delete("a"), Hamt[str, int]) == assert_type(MAP.discard("a"), Hamt[str, int])
    assert assert_type(MAP.copy(), Hamt[str, int]) is MAP


def test_set_and_update_widen() -> None:
    for same in (
        assert_type(MAP.set("a", 1), Hamt[str, int]),
        assert_type(MAP.update(), Hamt[str, int]),
        assert_type(MAP.update(NUMBERS), Hamt[str, int]),
        assert_type(MAP.update({"a": 1}), Hamt[str, int]),
        assert_type(MAP.update(PAIRS), Hamt[str, int]),
        assert_type(MAP.update(MAP), Hamt[str, int]),
        assert_type(MAP.update(OnlyItems()), Hamt[str, int]),
        assert_type(MAP.update(OnlyKeys()), Hamt[str, int]),
        assert_type(MAP.update(a=1), Hamt[str, int]),
        assert_type(MAP.update(PAIRS, a=1), Hamt[str, int]),
        assert_type(MAP.update(NUMBERS, a=1), Hamt[str, int]),
    ):
        assert same is MAP
    words = {1: "x"}
    assert_type(MAP.set("b", "x"), Hamt[str, Union[int, str]])
    assert_type(MAP.set(1, "x"), Hamt[Union[str, int], Union[int, str]])
    assert_type(MAP.update(b="x"), Hamt[str, Union[int, str]])
    assert_type(MAP.update({1: "x"}), Hamt[Union[str, int], Union[int, str]])
    assert_type(MAP.update(words.items()), Hamt[Union[str, int], Union[int, str]])
    assert_type(Hamt(words).update(a=1), Hamt[Union[int, str], Union[str, int]])
    hamt: Hamt[str, object] = MAP
    hamt = hamt.set("b", None).update(c="x")
    assert len(hamt) == 3


def test_maps_unite() -> None:
    assert assert_type(MAP | MAP, Hamt[str, int]) is MAP
    assert assert_type(MAP | NUMBERS, Hamt[str, int]) is MAP
    assert assert_type(NUMBERS | MAP, Hamt[str, int]) == MAP
    assert_type(MAP | {1: "x"}, Hamt[Union[str, int], Union[int, str]])
    assert_type({1: "x"} | MAP, Hamt[Union[int, str], Union[str, int]])
    hamt = MAP
    hamt |= {"b": 2}
    assert len(hamt) == 2


def test_the_difference_and_the_merge_of_maps() -> None:
    diff = assert_type(MAP.diff(MAP), HamtDiff[str, int])
    assert not diff
    diff = assert_type(Hamt(a=1, b=2).diff(Hamt(b=3, c=4)), HamtDiff[str, int])
    added, removed, changed = diff
    assert assert_type(added, dict[str, int]) is diff.added and added == {"c": 4}
    assert assert_type(removed, dict[str, int]) is diff.removed and removed == {"a": 1}
    assert assert_type(changed, dict[str, tuple[int, int]]) is diff.changed and changed == {"b": (2, 3)}
    assert_type(MAP.diff(MAP.set("a", "x")), HamtDiff[str, Union[int, str]])
    assert_type(MAP.diff(Hamt({1: 2})), HamtDiff[Union[str, int], int])
    assert not assert_type(in_a_map(MAP).diff(MAP), HamtDiff[str, object]).added
    assert_type(MAP.merge(MAP, MAP), Hamt[str, int])
    merged = MAP.merge(MAP, MAP.set("b", "x"), lambda key, base, own, other: key)
    assert assert_type(merged, Hamt[str, Union[int, str]])["b"] == "x"


def test_a_mutation_keeps_its_types() -> None:
    with MAP.mutate() as mutation:
        assert_type(mutation, HamtMutation[str, int])
        mutation["b"] = 2
        mutation.set("c", 3)
        mutation.update()
        mutation.update(d=4)
        for source in (NUMBERS, MAP, mutation):
            mutation.update(source)
            mutation.update(source, d=4)
        mutation.update(PAIRS)
        mutation.update(OnlyItems())
        mutation.update(OnlyKeys())
        del mutation["c"]
        assert assert_type(mutation["a"], int) == 1
        assert assert_type(mutation.get("z"), Union[int, None]) is None
        assert assert_type(mutation.get("a", 2), int) == 1
        assert assert_type(mutation.get("a", "x"), Union[int, str]) == 1
        assert assert_type(mutation.pop("b"), int) == 2
        assert assert_type(mutation.pop("b", 0), int) == 0
        assert assert_type(mutation.pop("b", None), Union[int, None]) is None
        assert sorted(assert_type(key, str) for key in mutation) == sorted(mutation.keys()) == ["a", "d"]
        assert sorted(mutation.values()) == [1, 4] and ("a", 1) in mutation.items()
    assert assert_type(mutation.finish(), Hamt[str, int]) == Hamt(a=1, d=4)
    wider = Hamt[Hashable, Union[int, None]](NUMBERS).mutate()
    wider.update(NUMBERS, b=None)
    wider[1] = 2
    lists = Hamt[str, list[int]]().mutate()
    lists.update({"a": []})
    assert assert_type(lists.pop("b", []), list[int]) == []


# ---- sets ----


def test_a_set_infers_its_type_and_is_covariant() -> None:
    for elements in (
        assert_type(SET, HamtSet[str]),
        assert_type(HamtSet("a"), HamtSet[str]),
        assert_type(HamtSet(SET), HamtSet[str]),
        assert_type(HamtSet[str](NUMBERS), HamtSet[str]),
    ):
        assert elements == SET
    wider: HamtSet[object] = SET
    assert shown(wider) == shown(SET) == [assert_type(element, str) for element in SET] == ["a"]
    assert hash(SET) == hash(wider) and "b" not in SET
    empty: HamtSet[int] = HamtSet()
    assert assert_type(HamtSet[int](), HamtSet[int]) == empty


def test_what_sets_make() -> None:
    assert_type(SET.add("b"), HamtSet[str])
    assert_type(SET.add(1), HamtSet[Union[str, int]])
    assert_type(SET.remove("a"), HamtSet[str])
    assert_type(SET.discard("b"), HamtSet[str])
    assert_type(SET.union("b", SET), HamtSet[str])
    assert_type(SET.union([1]), HamtSet[Union[str, int]])
    assert_type(SET.intersection([1]), HamtSet[str])
    assert_type(SET.difference([1]), HamtSet[str])
    assert_type(SET.symmetric_difference([1]), HamtSet[Union[str, int]])
    assert_type(SET | SET, HamtSet[str])
    assert_type(SET | {1}, HamtSet[Union[str, int]])
    assert_type(SET | MAP.keys(), HamtSet[str])
    assert_type(SET & {1}, HamtSet[str])
    assert_type(SET - {1}, HamtSet[str])
    assert_type(SET ^ {1}, HamtSet[Union[str, int]])
    assert_type({1} | SET, set[Union[int, str]])
    assert_type(frozenset([1]) | SET, frozenset[Union[int, str]])
    assert_type(SET.copy(), HamtSet[str])
    assert SET <= {"a", "b"} and SET > set[str]() and SET.issubset("ab") and SET.isdisjoint([1])


def test_a_set_s_mutation_keeps_its_type() -> None:
    with SET.mutate() as mutation:
        assert_type(mutation, HamtSetMutation[str])
        mutation.add("b")
        mutation.update("cd", SET)
        mutation.remove("a")
        mutation.discard("b")
        assert sorted(assert_type(element, str) for element in mutation) == ["c", "d"]
    assert assert_type(mutation.finish(), HamtSet[str]) == {"c", "d"}


# ---- where a type is given from outside ----


@dataclass
class Request:
    tags: HamtSet[str] = field(default_factory=HamtSet)
    headers: Hamt[str, int] = field(default_factory=Hamt)
    more: Hamt[str, object] = field(default_factory=lambda: Hamt(a=1))


tags: ContextVar[HamtSet[str]] = ContextVar("tags", default_factory=HamtSet)
numbers: ContextVar[Hamt[str, int]] = ContextVar("numbers", default_factory=Hamt)
words = ContextVar("words", default=Hamt[str, str]())


def test_a_factory_makes_what_is_asked_for() -> None:
    request = Request()
    assert assert_type(request.tags, HamtSet[str]) == HamtSet()
    assert assert_type(request.headers, Hamt[str, int]) == Hamt()
    assert_type(request.more, Hamt[str, object])
    with tags.set(tags.get().add("a")), numbers.set(numbers.get().set("a", 1)), words.set(words.get() | {"a": "b"}):
        assert assert_type(tags.get(), HamtSet[str]) == SET
        assert assert_type(numbers.get(), Hamt[str, int]) == MAP
        assert assert_type(words.get()["a"], str) == "b"


def wrong(pairs: Iterable[tuple[int, str]]) -> None:
    # Maps.
    Hamt(1)  # type: ignore[call-overload]
    Hamt([1])  # type: ignore[arg-type]
    Hamt("ab")  # type: ignore[arg-type]
    Hamt({1: 2}, a=3)  # type: ignore[arg-type]
    Hamt[str, int]({1: 2})  # type: ignore[dict-item]
    _numbers: Hamt[int, int] = Hamt(a=1)  # type: ignore[assignment]
    Hamt[str, str](a=1)  # type: ignore[call-overload]
    sizes(Hamt({1: 2}))  # type: ignore[dict-item]
    _narrower: Hamt[str, int] = in_a_map(MAP)  # type: ignore[assignment]
    MAP[1]  # type: ignore[index]
    MAP["a"] = 1  # type: ignore[index]
    del MAP["a"]  # type: ignore[attr-defined]
    MAP["a"].missing  # type: ignore[attr-defined]
    MAP.get(1)  # type: ignore[call-overload]
    MAP.get("a") + 1  # type: ignore[operator]
    MAP.get("a", "x") + 1  # type: ignore[operator]
    MAP.find(1)  # type: ignore[arg-type]
    MAP.delete(1)  # type: ignore[arg-type]
    MAP.discard(1)  # type: ignore[arg-type]
    MAP.set("a")  # type: ignore[call-arg]
    MAP.set("a", "x")["a"] + 1  # type: ignore[operator]
    MAP.update(1)  # type: ignore[call-overload]
    MAP.update([1])  # type: ignore[arg-type]
    MAP.update({1: 2}, a=3)  # type: ignore[arg-type]
    MAP | 1  # type: ignore[operator]
    MAP | [("a", 1)]  # type: ignore[operator]
    MAP.diff({})  # type: ignore[call-overload]
    MAP.diff(MAP).changed["a"] + 1  # type: ignore[operator]
    MAP.merge(MAP)  # type: ignore[call-arg]
    MAP.keys() & 1  # type: ignore[operator]
    for key in MAP:
        key.missing  # type: ignore[attr-defined]
    for _, value in MAP.items():
        value.missing  # type: ignore[attr-defined]
    # What only a map's methods give.
    HamtKeys()  # type: ignore[call-arg]
    HamtValues()  # type: ignore[call-arg]
    HamtItems()  # type: ignore[call-arg]
    HamtMutation()  # type: ignore[call-arg]
    HamtMutation({"a": 1})  # type: ignore[arg-type]
    HamtSetMutation()  # type: ignore[call-arg]
    # Mutations.
    _wider: HamtMutation[str, object] = MAP.mutate()  # type: ignore[assignment]
    mutation = MAP.mutate()
    mutation["a"] = "x"  # type: ignore[arg-type]
    mutation[1] = 1  # type: ignore[arg-type]
    mutation.set("a", "x")  # type: ignore[arg-type]
    mutation.get(1)  # type: ignore[call-overload]
    mutation.pop(1)  # type: ignore[call-overload]
    mutation.pop("a", None) + 1  # type: ignore[operator]
    mutation.update(a="x")  # type: ignore[call-overload]
    mutation.update({"a": "x"})  # type: ignore[dict-item]
    mutation.update(pairs)  # type: ignore[arg-type]
    mutation.update({"a": 1}, b="x")  # type: ignore[call-overload]
    Hamt(pairs).mutate().update(a="x")  # type: ignore[call-overload]
    # Sets.
    HamtSet(1)  # type: ignore[arg-type]
    HamtSet[str]([1])  # type: ignore[list-item]
    tags.set(HamtSet([1]))  # type: ignore[list-item]
    SET.union(1)  # type: ignore[arg-type]
    SET | [1]  # type: ignore[operator]
    SET | 1  # type: ignore[operator]
    SET < [1]  # type: ignore[operator]
    for element in SET | {1}:
        element.upper()  # type: ignore[union-attr]
    SET.mutate().add(1)  # type: ignore[arg-type]
    SET.mutate().update([1])  # type: ignore[list-item]
    Request(tags=HamtSet([1]))  # type: ignore[list-item]
