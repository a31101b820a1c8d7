"""Random programs of everything that immutables.Map has, in lockstep on it and on both twins of Hamt.

The oracle is its C part; its pure twin disagrees with that here and there, and is nobody's reference.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy._hamt import hamt_cy, hamt_py  # type: ignore[attr-defined]
from histories import KEYS, of_any_length
from keys import Key

Map = pytest.importorskip(
    "immutables._map", reason="immutables has no release for this Python", exc_type=ImportError
).Map
TWINS = [hamt_py.Hamt, hamt_cy.Hamt]
both_twins = pytest.mark.parametrize("Hamt", TWINS, ids=["pure", "cython"])

VALUES = st.integers(0, 3)
PAIRS = st.lists(st.tuples(KEYS, VALUES), max_size=6)
NUMBERS = st.integers(0, 99)


def set_in_a_with_statement(hamt: Any, key: object, value: object) -> Any:
    with hamt.mutate() as mutation:
        mutation[key] = value
    return mutation


# Each takes a map, another map, a key, a value and pairs.
MAP_CALLS: dict[str, Callable[..., Any]] = {
    "set": lambda hamt, other, key, value, pairs: hamt.set(key, value),
    "delete": lambda hamt, other, key, value, pairs: hamt.delete(key),
    "get": lambda hamt, other, key, value, pairs: hamt.get(key),
    "get with a default": lambda hamt, other, key, value, pairs: hamt.get(key, value),
    "[]": lambda hamt, other, key, value, pairs: hamt[key],
    "in": lambda hamt, other, key, value, pairs: key in hamt,
    "len": lambda hamt, other, key, value, pairs: (len(hamt), bool(hamt)),
    "iter": lambda hamt, other, key, value, pairs: set(hamt),
    "keys": lambda hamt, other, key, value, pairs: (set(hamt.keys()), len(hamt.keys()), key in hamt.keys()),
    "values": lambda hamt, other, key, value, pairs: (sorted(hamt.values()), len(hamt.values())),
    "items": lambda hamt, other, key, value, pairs: (set(hamt.items()), len(hamt.items())),
    "update with a dict": lambda hamt, other, key, value, pairs: hamt.update(dict(pairs)),
    "update with pairs": lambda hamt, other, key, value, pairs: hamt.update(iter(pairs)),
    "update with keywords": lambda hamt, other, key, value, pairs: hamt.update(pairs, col=value, self=value),
    "update with a map": lambda hamt, other, key, value, pairs: hamt.update(other),
    "update with nothing": lambda hamt, other, key, value, pairs: hamt.update(),
    "==": lambda hamt, other, key, value, pairs: (hamt == other, hamt != other, hamt == pairs),
    "hash": lambda hamt, other, key, value, pairs: hamt != other or hash(hamt) == hash(other),
    "construct": lambda hamt, other, key, value, pairs: type(hamt)(pairs, **{"col": value}),
    "construct from a map": lambda hamt, other, key, value, pairs: type(hamt)(hamt, col=value),
    "copy": lambda hamt, other, key, value, pairs: copy.copy(hamt),
    "deepcopy": lambda hamt, other, key, value, pairs: len(copy.deepcopy(hamt)),
    # What a pickle holds; by its name only one of the twins can be found again.
    "reduce": lambda hamt, other, key, value, pairs: hamt.__reduce__()[1],
    "mutate": lambda hamt, other, key, value, pairs: hamt.mutate(),
    "is a Mapping": lambda hamt, other, key, value, pairs: isinstance(hamt, Mapping),
    "subscribe": lambda hamt, other, key, value, pairs: type(hamt)[int, str].__args__,
    "set of an unhashable key": lambda hamt, other, key, value, pairs: hamt.set([], value),
    "in of an unhashable key": lambda hamt, other, key, value, pairs: [] in hamt.set(key, value),
    "hash with an unhashable value": lambda hamt, other, key, value, pairs: hash(hamt.set(key, [])),
    "update with a number": lambda hamt, other, key, value, pairs: hamt.update(value),
    "update with no pair": lambda hamt, other, key, value, pairs: hamt.update([*pairs, value]),
    "update with three": lambda hamt, other, key, value, pairs: hamt.update([*pairs, (1, 2, 3)]),
    "too many arguments": lambda hamt, other, key, value, pairs: hamt.set(key, value, value),
    "keyword arguments": lambda hamt, other, key, value, pairs: hamt.get(key, default=value),
    "construct from two": lambda hamt, other, key, value, pairs: type(hamt)(pairs, pairs),
    "order": lambda hamt, other, key, value, pairs: hamt < other,
    "reversed": lambda hamt, other, key, value, pairs: reversed(hamt),
    "subclass": lambda hamt, other, key, value, pairs: type("Sub", (type(hamt),), {}),
    "attribute": lambda hamt, other, key, value, pairs: setattr(hamt, "attribute", value),
}
# Each takes a mutation, a map, a key, a value and pairs.
MUTATION_CALLS: dict[str, Callable[..., Any]] = {
    "m.set": lambda mutation, hamt, key, value, pairs: mutation.set(key, value),
    "m[]=": lambda mutation, hamt, key, value, pairs: mutation.__setitem__(key, value),
    "m.del": lambda mutation, hamt, key, value, pairs: mutation.__delitem__(key),
    "m.pop": lambda mutation, hamt, key, value, pairs: mutation.pop(key),
    "m.pop with a default": lambda mutation, hamt, key, value, pairs: mutation.pop(key, value),
    "m.get": lambda mutation, hamt, key, value, pairs: mutation.get(key, value),
    "m[]": lambda mutation, hamt, key, value, pairs: mutation[key],
    "m in": lambda mutation, hamt, key, value, pairs: key in mutation,
    "m len": lambda mutation, hamt, key, value, pairs: (len(mutation), bool(mutation)),
    "m.update": lambda mutation, hamt, key, value, pairs: mutation.update(pairs),
    "m.update with keywords": lambda mutation, hamt, key, value, pairs: mutation.update(dict(pairs), col=value),
    "m.update with a map": lambda mutation, hamt, key, value, pairs: mutation.update(hamt),
    "m.update with a number": lambda mutation, hamt, key, value, pairs: mutation.update(value),
    "m ==": lambda mutation, hamt, key, value, pairs: (
        mutation == hamt.mutate(),
        mutation == hamt,
        mutation == mutation,
    ),
    "m.finish": lambda mutation, hamt, key, value, pairs: mutation.finish(),
    "m with": lambda mutation, hamt, key, value, pairs: set_in_a_with_statement(hamt, key, value),
    "m exit": lambda mutation, hamt, key, value, pairs: bool(mutation.__exit__(None, None, None)),
    "m hash": lambda mutation, hamt, key, value, pairs: hash(mutation),
    "m pickle": lambda mutation, hamt, key, value, pairs: pickle.dumps(mutation),
    "m type": lambda mutation, hamt, key, value, pairs: type(mutation)(),
    "m set of an unhashable key": lambda mutation, hamt, key, value, pairs: mutation.set([], value),
}
STEPS = st.tuples(st.sampled_from([*MAP_CALLS, *MUTATION_CALLS]), NUMBERS, NUMBERS, KEYS, VALUES, PAIRS)


class Machine:
    """One implementation, the maps and mutations that a program has made on it, and a log of what came back."""

    def __init__(self, kind: Any, pairs: list[tuple[Any, int]]) -> None:
        self.kind = kind
        self.maps = [kind(), kind(pairs)]
        self.mutations = [self.maps[1].mutate()]
        self.log: list[tuple[str, object]] = []

    def step(self, name: str, number: int, other: int, key: Any, value: int, pairs: list[tuple[Any, int]]) -> None:
        hamt = self.maps[other % len(self.maps)]
        try:
            if name in MAP_CALLS:
                result = MAP_CALLS[name](self.maps[number % len(self.maps)], hamt, key, value, pairs)
            else:
                mutation = self.mutations[number % len(self.mutations)]
                result = MUTATION_CALLS[name](mutation, hamt, key, value, pairs)
        except Exception as error:
            # The texts of other errors are each implementation's own, or the interpreter's.
            result = type(error), error.args if type(error) is KeyError else None
        if type(result) is self.kind:
            self.maps.append(result)
            result = "a map of", content(result)
        elif type(result) is type(self.mutations[0]):
            self.mutations.append(result)
            result = "a mutation"
        self.log.append((name, result))

    def contents(self) -> list[dict[int, tuple[Any, int]]]:
        return [content(hamt) for hamt in [*self.maps, *(mutation.finish() for mutation in self.mutations)]]


def content(hamt: Any) -> dict[int, tuple[Any, int]]:
    """Which key objects have which values: of equal keys the first stays, everywhere."""
    return {id(key): (key, value) for key, value in hamt.items()}


@given(PAIRS, of_any_length(STEPS, 30))
def test_programs_run_in_lockstep(pairs: list[tuple[Any, int]], program: list[Any]) -> None:
    machines = [Machine(kind, pairs) for kind in (Map, *TWINS)]
    for step in program:
        for machine in machines:
            machine.step(*step)
    oracle, pure, compiled = machines
    assert pure.log == oracle.log
    assert compiled.log == oracle.log
    assert pure.contents() == compiled.contents() == oracle.contents()
    for machine in (pure, compiled):
        for hamt in machine.maps:
            hamt._check()


def test_the_oracle_has_no_method_that_is_not_run() -> None:
    names = " ".join([*MAP_CALLS, *MUTATION_CALLS])
    for kind in (Map, type(Map().mutate())):
        for name in dir(kind):
            if not name.startswith("_"):
                assert name in names, f"{kind.__name__}.{name}"
                assert all(hasattr(twin if kind is Map else twin().mutate(), name) for twin in TWINS)


# ---- where Hamt differs on purpose ----


@both_twins
def test_what_changes_nothing_gives_the_same_map(Hamt: Any) -> None:
    def unchanged(kind: Any) -> list[bool]:
        hamt = kind(a=1)
        made = (hamt.set("a", 1), hamt.update(), hamt.update({}), hamt.update(a=1), hamt.mutate().finish(), kind(hamt))
        return [one is hamt for one in made]

    assert unchanged(Hamt) == [True] * 6
    assert unchanged(Map) == [True, True, False, False, False, False]


@both_twins
def test_a_mutation_finished_twice_gives_one_map(Hamt: Any) -> None:
    def finished_twice(kind: Any) -> bool:
        mutation = kind().mutate()
        mutation["a"] = 1
        return mutation.finish() is mutation.finish()

    assert finished_twice(Hamt) and not finished_twice(Map)


@both_twins
def test_a_mutation_can_be_iterated_over(Hamt: Any) -> None:
    mutation = Hamt(a=1).mutate()
    mutation["b"] = 2
    assert Hamt(mutation) == dict(mutation) == dict(mutation.items())
    with pytest.raises(TypeError):
        iter(Map(a=1).mutate())


@both_twins
def test_a_map_equals_a_dict(Hamt: Any) -> None:
    assert Hamt(a=1) == {"a": 1} != Map(a=1)


@both_twins
def test_keys_of_different_hashes_are_not_compared(Hamt: Any) -> None:
    class Field:
        """Like the columns of some query builders: `==` makes a condition, which is always true."""

        def __init__(self, number: int) -> None:
            self.number = number

        def __hash__(self) -> int:
            return hash(("field", self.number))

        def __eq__(self, other: object) -> Any:
            return ("==", self, other)

    fields = [Field(number) for number in range(200)]

    def kept(kind: Any) -> int:
        made = kind()
        for field in fields:
            made = made.set(field, field.number)
        return len(made)

    assert kept(Hamt) == len(dict.fromkeys(fields)) == 200 > kept(Map)


@both_twins
def test_nobody_enters_a_finished_mutation(Hamt: Any) -> None:
    for kind, refused in ((Hamt, True), (Map, False)):
        mutation = kind().mutate()
        mutation.finish()
        try:
            with mutation:
                assert not refused
        except ValueError:
            assert refused


@both_twins
def test_an_update_of_a_mutation_that_fails_leaves_nothing_behind(Hamt: Any) -> None:
    def left_by_a_failure(kind: Any) -> Any:
        mutation = kind(a=0).mutate()
        mutation["a"] = 1
        with pytest.raises(TypeError):
            mutation.update([("a", 2), ([], 3)])
        return mutation["a"]

    assert left_by_a_failure(Hamt) == 1
    assert left_by_a_failure(Map) == 2


@both_twins
def test_an_unhashable_key_is_an_error_in_an_empty_map_too(Hamt: Any) -> None:
    with pytest.raises(TypeError):
        [] in {}
    with pytest.raises(TypeError):
        [] in Hamt()
    assert [] not in Map()


@both_twins
def test_errors_of_sources_are_those_of_dict(Hamt: Any) -> None:
    for source in ([1], [(1,)], [(1, 2, 3)]):
        with pytest.raises((TypeError, ValueError)) as of_dict:
            dict(source)  # type: ignore[arg-type]
        with pytest.raises(of_dict.type) as ours:
            Hamt(source)
        with pytest.raises(of_dict.type) as theirs:
            Map(source)
        assert str(ours.value) == str(of_dict.value)
        assert str(theirs.value) == str(of_dict.value).replace("dictionary", "map")


@both_twins
def test_a_mapping_is_known_by_its_keys_as_dict_knows_it(Hamt: Any) -> None:
    class OnlyKeys:
        def keys(self) -> list[str]:
            return ["a"]

        def __getitem__(self, key: object) -> int:
            return 1

    assert Hamt(OnlyKeys()) == Hamt(a=1)
    with pytest.raises(TypeError):
        Map(OnlyKeys())


@both_twins
def test_reprs_name_their_types(Hamt: Any) -> None:
    assert repr(Hamt(a=1)) == "Hamt({'a': 1})" and repr(Map(a=1)) == "immutables.Map({'a': 1})"
    mutations = Hamt(a=1).mutate(), Map(a=1).mutate()
    assert list(map(repr, mutations)) == ["HamtMutation({'a': 1})", "immutables.MapMutation({'a': 1})"]


@both_twins
def test_a_nodes_entries_come_before_its_children(Hamt: Any) -> None:
    keys = [Key("a", 0), Key("b", 32), Key("c", 1)]
    assert [key.name for key in Hamt.fromkeys(keys)] == ["c", "a", "b"]
    for key, key_hash in zip(keys, (0, 32, 1)):
        key.key_hash = key_hash
    assert [key.name for key in Map(dict.fromkeys(keys))] == ["a", "b", "c"]


@both_twins
def test_what_there_was_none_of(Hamt: Any) -> None:
    for name in ("find", "discard", "fromkeys", "diff", "merge"):
        assert hasattr(Hamt, name) and not hasattr(Map, name)
    assert Hamt(a=1) | {"b": 2} == Hamt(a=1, b=2)
    with pytest.raises(TypeError):
        Map(a=1) | {"b": 2}
    assert Hamt(a=1).keys() == {"a"} and len(iter(Hamt(a=1))) == 1
    assert Map(a=1).keys() != {"a"} and not hasattr(iter(Map()), "__len__")
