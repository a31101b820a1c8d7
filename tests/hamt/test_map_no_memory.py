"""Where memory runs out, an operation on maps, mutations and sets raises MemoryError and has done nothing."""

from __future__ import annotations

import sys

import pytest

from contextvars_cy import Hamt, backend
from interpreters import DEBUG_BUILD
from no_memory import BEFORE_3_13, IN_A_DEBUG_BUILD, LACK, NO_MEMORY_MARKS, attempts
from scenes import ON_THEIR_OWN, OPERATIONS, WITH_A_PROBE, Objects, Scene, described

pytestmark = [
    *NO_MEMORY_MARKS,
    pytest.mark.skipif(sys.version_info < (3, 13), reason=BEFORE_3_13),
]

BIG = Hamt.fromkeys(range(40))
# Beside the operations of a scene, those that call none of the keys' code.
QUIET = {
    "Hamt": lambda scene, objects: Hamt(a=1, b=2),
    "Hamt of a Hamt": lambda scene, objects: Hamt(scene.hamt) is scene.hamt,
    "iter": lambda scene, objects: list(scene.hamt) == [],
    "keys": lambda scene, objects: list(scene.hamt.keys()) == [],
    "values": lambda scene, objects: list(scene.hamt.values()) == [],
    "items": lambda scene, objects: list(scene.hamt.items()) == [],
    "len": lambda scene, objects: len(scene.hamt) + len(scene.hamt.items()) + len(scene.set),
    "repr": lambda scene, objects: repr(Hamt(a=1)),
    "copy": lambda scene, objects: scene.hamt.__copy__() is scene.hamt,
    "reduce": lambda scene, objects: Hamt(a=1).__reduce__() == (),  # type: ignore[comparison-overlap]
    "mutate": lambda scene, objects: scene.hamt.mutate().finish() is scene.hamt,
    "a big map": lambda scene, objects: Hamt.fromkeys(range(40)),
    "update of a big map": lambda scene, objects: BIG.update(dict.fromkeys(range(30, 50), 1)),
    "mutation of a big map": lambda scene, objects: changed(BIG),
}
# CPython crashes where it has no memory for a generator expression's function (in collections.abc), and raises a
# SystemError where it has none for a KeyError that Python code catches: an operation with each probe that it finds.
NAMES = [
    *QUIET,
    *(name for name in ON_THEIR_OWN if name not in ("keys() &", "items() -")),
    *(f"{name} b" for name in WITH_A_PROBE),
    *(f"{name} collides" for name in ("set", "update", "get", "mutation set", "HamtSet.add", "HamtSet.discard")),
]


def changed(hamt: Hamt[int, int | None]) -> Hamt[int, int | None]:
    with hamt.mutate() as mutation:
        for number in range(0, 50, 9):
            mutation[number] = number
        for number in range(0, 40, 9):
            del mutation[number]
    return mutation.finish()


# merge() is written once, in Python.
MERGES = pytest.mark.skipif(DEBUG_BUILD and sys.version_info >= (3, 14), reason=IN_A_DEBUG_BUILD)


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("lasting", [False, True] if backend == "cython" else [False])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=MERGES) if name.startswith("merge ") else name for name in NAMES]
)
def test_a_lack_of_memory_leaves_all_as_it_was(name: str, lasting: bool) -> None:
    objects = Objects()
    scenes = [Scene(objects)]
    before = scenes[-1].state()
    operation = QUIET.get(name) or OPERATIONS[name]
    expected = described(operation(scenes[-1], objects)), scenes[-1].state()
    scenes.append(Scene(objects))
    for outcome in attempts(lambda: operation(scenes[-1], objects), lasting):
        if outcome is LACK:
            assert scenes[-1].state() == before
        else:
            assert (described(outcome), scenes[-1].state()) == expected
            scenes.append(Scene(objects))
