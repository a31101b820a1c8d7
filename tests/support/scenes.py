"""Scenes for the map: keys at every kind of place; maps, mutations and sets of them; every operation on those."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from contextvars_cy import Hamt, HamtDiff, HamtSet
from histories import Map, without_order_in_collisions
from keys import Key, Watch, WatchedKey

# At every kind of place: three in a collision node (one of them with another 64-bit hash), one beside that on the last
# level, one on the way to it, two at the root and two in its children.
PLACES = {
    "a": 0,
    "b": 0,
    "c": 1 << 32,
    "d": 1 << 30,
    "e": 32,
    "f": 1,
    "g": 2,
    "h": 3,
    "i": 3 | 1 << 6,
    # Not in the map: for the collision node, for a free position, and to push an entry down.
    "collides": 0,
    "free": 9,
    "pushes": 1 | 1 << 5,
}
PROBES = ["b", "f", "i", "collides", "free", "pushes"]


class Objects:
    """All the keys and values of a scene, each key with a twin that is equal to it, and one that watches them all."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.keys = {name: WatchedKey(name, PLACES[name], self.watch) for name in PLACES}
        self.twins = {name: WatchedKey(name, PLACES[name], self.watch) for name in PLACES}
        self.values = {name: WatchedKey(name.upper(), 0, self.watch) for name in PLACES}
        self.others = {name: WatchedKey("other " + name, 0, self.watch) for name in PLACES}
        self.equals = {name: WatchedKey(name.upper(), 0, self.watch) for name in PLACES}

    def reference_counts(self) -> list[int]:
        groups = (self.keys, self.twins, self.values, self.others, self.equals)
        return [sys.getrefcount(group[name]) for group in groups for name in group]


class Scene:
    """Maps, a mutation and sets, some of which share nodes and some only content; an operation is done to them."""

    def __init__(self, objects: Objects) -> None:
        keys, twins, values, others = objects.keys, objects.twins, objects.values, objects.others
        names = "abcdefghi"
        self.watch = objects.watch
        self.watch.restart()
        self.pairs: list[tuple[Key, Any]] = [(keys[name], values[name]) for name in names]
        self.twin_pairs: list[tuple[Key, Any]] = [(twins[name], objects.equals[name]) for name in names]
        self.dict = dict(self.pairs[4:])
        self.hamt = Hamt(self.pairs)
        self.equal = Hamt(self.twin_pairs)
        self.related: Map = self.hamt.set(twins["a"], others["a"]).delete(twins["f"]).set(twins["pushes"], values["f"])
        self.stranger: Map = Hamt([*self.twin_pairs[2:], (twins["b"], others["b"]), (twins["collides"], values["a"])])
        self.mutation = self.hamt.mutate()
        self.mutation[twins["a"]] = others["a"]
        self.mutation[twins["collides"]] = values["a"]
        del self.mutation[twins["c"]], self.mutation[twins["f"]]
        self.equal_mutation = self.hamt.mutate()
        self.equal_mutation.update(self.mutation_content(objects))
        del self.equal_mutation[keys["c"]], self.equal_mutation[keys["f"]]
        self.set: HamtSet[Key] = HamtSet(keys[name] for name in names)
        self.equal_set = HamtSet(twins[name] for name in names)
        self.related_set = self.set.add(twins["pushes"]).remove(twins["f"])
        self.stranger_set = HamtSet(twins[name] for name in ("a", "collides", "f", "free", "pushes"))

    def mutation_content(self, objects: Objects) -> list[tuple[Key, Any]]:
        return [(key, self.mutation[key]) for key in objects.twins.values() if key in self.mutation]

    def state(self) -> list[str]:
        """What everything holds; the watch is quiet meanwhile."""
        self.watch.restart()
        sets: list[HamtSet[Any]] = [self.set, self.equal_set, self.related_set, self.stranger_set]
        hamts: list[Map] = [self.hamt, self.equal, self.related, self.stranger, *(each._hamt for each in sets)]
        for hamt in hamts:
            hamt._check()
        mutations = [
            [mutation.get(Key(*item)) for item in PLACES.items()] for mutation in (self.mutation, self.equal_mutation)
        ]
        return [hamt._dump() for hamt in hamts] + list(map(repr, mutations))


def described(result: object) -> object:
    """The result as text, the watch being quiet; in a set the order is left to chance."""
    if type(result) is HamtSet:
        result = result._hamt
    if type(result) is Hamt:
        result._check()
        return without_order_in_collisions(result._dump())
    if type(result) is HamtDiff:
        return [sorted(map(repr, part.items())) for part in result]
    if isinstance(result, (set, frozenset)):
        return sorted(map(repr, result))
    return repr(result)


def outcome(call: Callable[[Scene, Key], object], scene: Scene, probe: Key) -> object:
    """The result, or what the KeyError holds: not itself, since its traceback keeps everything alive."""
    try:
        return call(scene, probe)
    except KeyError as error:
        return "KeyError", *error.args


def resolve(key: object, base: object, own: object, other: object) -> object:
    return own


WITH_A_PROBE: dict[str, Callable[[Scene, Key], object]] = {
    "set": lambda scene, probe: scene.hamt.set(probe, 1),
    "delete": lambda scene, probe: scene.hamt.delete(probe),
    "discard": lambda scene, probe: scene.hamt.discard(probe),
    "find": lambda scene, probe: scene.hamt.find(probe),
    "get": lambda scene, probe: scene.hamt.get(probe),
    "in": lambda scene, probe: probe in scene.hamt,
    "[]": lambda scene, probe: scene.hamt[probe],
    "in keys()": lambda scene, probe: probe in scene.hamt.keys(),
    "in items()": lambda scene, probe: (probe, scene.pairs[1][1]) in scene.hamt.items(),
    "update": lambda scene, probe: scene.hamt.update([(probe, 1)]),
    "fromkeys": lambda scene, probe: Hamt.fromkeys([scene.pairs[0][0], probe, probe]),
    "mutation set": lambda scene, probe: scene.mutation.set(probe, 1),
    "mutation []=": lambda scene, probe: scene.mutation.__setitem__(probe, 1),
    "mutation del": lambda scene, probe: scene.mutation.__delitem__(probe),
    "mutation pop": lambda scene, probe: scene.mutation.pop(probe),
    "mutation pop with a default": lambda scene, probe: scene.mutation.pop(probe, 1),
    "mutation in": lambda scene, probe: probe in scene.mutation,
    "mutation get": lambda scene, probe: scene.mutation.get(probe),
    "mutation []": lambda scene, probe: scene.mutation[probe],
    "mutation update": lambda scene, probe: scene.mutation.update([(probe, 1), *scene.pairs[:3]]),
    "HamtSet.add": lambda scene, probe: scene.set.add(probe),
    "HamtSet.remove": lambda scene, probe: scene.set.remove(probe),
    "HamtSet.discard": lambda scene, probe: scene.set.discard(probe),
    "HamtSet in": lambda scene, probe: probe in scene.set,
}
ON_THEIR_OWN: dict[str, Callable[[Scene], object]] = {
    "Hamt of pairs": lambda scene: Hamt(scene.pairs + scene.twin_pairs),
    "Hamt of a dict": lambda scene: Hamt(scene.dict),
    "| of a dict": lambda scene: scene.hamt | scene.dict,
    "dict |": lambda scene: scene.dict | scene.equal,
    "| of a related map": lambda scene: scene.hamt | scene.related,
    "| of a strange map": lambda scene: scene.hamt | scene.stranger,
    "== of an equal map": lambda scene: scene.hamt == scene.equal,
    "== of a related map": lambda scene: scene.hamt == scene.related,
    "diff of an equal map": lambda scene: scene.hamt.diff(scene.equal),
    "diff of a related map": lambda scene: scene.hamt.diff(scene.related),
    "diff of a strange map": lambda scene: scene.hamt.diff(scene.stranger),
    "merge of a related map": lambda scene: scene.stranger.merge(scene.hamt, scene.related, resolve),
    "merge of a strange map": lambda scene: scene.related.merge(scene.hamt, scene.stranger, resolve),
    "hash": lambda scene: hash(scene.hamt),
    "in values()": lambda scene: scene.pairs[-1][1] in scene.equal.values(),
    "keys() &": lambda scene: scene.hamt.keys() & scene.stranger.keys(),
    "keys() ==": lambda scene: scene.hamt.keys() == scene.equal.keys(),
    "items() -": lambda scene: scene.hamt.items() - scene.related.items(),
    "mutation ==": lambda scene: scene.mutation == scene.equal_mutation,
    "mutation update with a map": lambda scene: scene.mutation.update(scene.stranger),
    "HamtSet of elements": lambda scene: HamtSet([key for key, _ in scene.pairs + scene.twin_pairs]),
    "HamtSet |": lambda scene: scene.set | scene.stranger_set,
    "HamtSet &": lambda scene: scene.set & scene.stranger_set,
    "HamtSet -": lambda scene: scene.set - scene.related_set,
    "HamtSet ^": lambda scene: scene.set ^ scene.stranger_set,
    "HamtSet ==": lambda scene: scene.set == scene.equal_set,
    "HamtSet <=": lambda scene: scene.related_set <= scene.equal_set,
    "HamtSet | of keys": lambda scene: scene.set | scene.dict.keys(),
    "HamtSet.isdisjoint": lambda scene: scene.stranger_set.isdisjoint(scene.set),
    "hash of a HamtSet": lambda scene: hash(scene.set),
}
Operation = Callable[[Scene, Objects], object]


def with_probe(call: Callable[[Scene, Key], object], probe: str) -> Operation:
    return lambda scene, objects: outcome(call, scene, objects.twins[probe])


def on_its_own(call: Callable[[Scene], object]) -> Operation:
    return lambda scene, objects: call(scene)


OPERATIONS = {
    **{f"{name} {probe}": with_probe(call, probe) for name, call in WITH_A_PROBE.items() for probe in PROBES},
    **{name: on_its_own(call) for name, call in ON_THEIR_OWN.items()},
}


def undisturbed(name: str) -> tuple[object, list[str]]:
    objects = Objects()
    scene = Scene(objects)
    result = described(OPERATIONS[name](scene, objects))
    return result, scene.state()
