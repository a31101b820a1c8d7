"""The twins are one thing to whoever uses them: names, signatures, docstrings, errors, reprs and trees."""

from __future__ import annotations

import contextvars
import gc
import importlib
import inspect
import pickle
import re
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import contextvars_cy
from contextvars_cy._context import context_cy, context_py  # type: ignore[attr-defined]
from contextvars_cy._hamt import hamt_cy, hamt_py, trie_cy, trie_py  # type: ignore[attr-defined]
from contextvars_cy._hamt.trie_py import fold
from histories import HISTORIES, History, step
from keys import Key, Watch, WatchedKey

MODULES: list[tuple[Any, Any]] = [(trie_py, trie_cy), (hamt_py, hamt_cy), (context_py, context_cy)]
OF_THE_MAP = ["Hamt", "HamtIterator", "HamtKeys", "HamtValues", "HamtItems", "HamtMutation"]
TYPES = [
    *((getattr(hamt_py, name), getattr(hamt_cy, name)) for name in OF_THE_MAP),
    *(
        (getattr(context_py, name), getattr(context_cy, name))
        for name in ("ContextVar", "Token", "Assignment", "Context", "ThreadState")
    ),
]
FUNCTIONS = ["assign", "thread_state", "current_context", "copy_context"]
# Part of every Python class, or of the reference's typing, and of no consequence to a user.
INCIDENTAL = {
    "__annotations__",
    "__annotations_cache__",
    "__annotate_func__",
    "__conditional_annotations__",
    "__dict__",
    "__doc__",
    "__final__",
    "__firstlineno__",
    "__init_subclass__",
    "__module__",
    "__orig_bases__",
    "__parameters__",
    "__slots__",
    "__static_attributes__",
    "__weakref__",
    "__abstractmethods__",
    "_abc_impl",
    "__new__",
    "__init__",
    # A type's slots fill in the whole family of comparisons.
    "__ge__",
    "__gt__",
    "__le__",
    "__lt__",
    "__ne__",
    "__pyx_vtable__",
    "__setstate_cython__",
}


def public(module: ModuleType) -> set[str]:
    """The types and functions that a twin publishes, and those of the map that the context twin imports."""
    published = {"Hamt", "HamtDiff", "HamtIterator"}
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) == "contextvars_cy" and getattr(value, "__name__", None) == name:
            published.add(name)
    return published


def members(kind: type) -> dict[str, Any]:
    """What the type has of its own, which in the reference may come from a base of the package or an abstract class."""
    bases = [base for base in kind.__mro__ if base.__module__.startswith(("contextvars_cy", "collections.abc"))]
    found = {name: value for base in reversed(bases) for name, value in vars(base).items()}
    # Which abstract classes have, and types of C do without.
    incidental = {"__class_getitem__", "__subclasshook__"} - vars(kind).keys() | INCIDENTAL
    return {name: value for name, value in found.items() if name not in incidental}


def test_both_are_there() -> None:
    assert all(Path(compiled.__file__).suffix in (".so", ".pyd") for _, compiled in MODULES)
    assert all(Path(pure.__file__).suffix == ".py" for pure, _ in MODULES)


@pytest.mark.parametrize(("pure", "compiled"), MODULES)
def test_the_public_names_are_the_same(pure: ModuleType, compiled: ModuleType) -> None:
    assert public(pure) == public(compiled)
    assert public(pure) <= {*contextvars_cy.__all__, *OF_THE_MAP}


@pytest.mark.parametrize(("pure", "compiled"), TYPES, ids=lambda kind: kind.__module__ + "." + kind.__name__)
def test_the_members_are_the_same(pure: type, compiled: type) -> None:
    ours = {name for name in members(pure) if not re.fullmatch("_[a-z][a-z_]*", name)}
    theirs = {name for name in members(compiled) if not re.fullmatch("_[a-z][a-z_]*", name)}
    # Or inherited from a type of C, as the iterator's from itertools.
    inherited = {name for name in theirs - ours if getattr(pure, name) is not getattr(object, name, None)}
    assert ours | inherited == theirs


def pure_signature(function: Callable[..., object]) -> str:
    """The signature without annotations, as the compiled twin writes it."""
    signature = inspect.signature(function)
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def compiled_signature(function: Any) -> str:
    assert function.__text_signature__, f"{function} shows no signature"
    # `$self` marks what is bound; the reference's own parameter has no mark. And the reference's ABSENT shows as "...".
    return re.sub("=_?ABSENT", "=...", function.__text_signature__.replace("$self", "self"))


@pytest.mark.parametrize(("pure", "compiled"), TYPES, ids=lambda kind: kind.__module__ + "." + kind.__name__)
def test_the_signatures_of_methods_are_the_same(pure: type, compiled: type) -> None:
    for name, value in members(pure).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            assert pure_signature(value) == compiled_signature(getattr(compiled, name)), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_signatures_of_functions_are_the_same(name: str) -> None:
    assert pure_signature(getattr(context_py, name)) == getattr(context_cy, name).__text_signature__


@pytest.mark.parametrize("name", ["Hamt", "Context", "ContextVar"])
def test_the_signatures_of_types_are_the_same(name: str) -> None:
    pure, compiled = next(pair for pair in TYPES if pair[0].__name__ == name)
    assert pure_signature(pure).replace("=Ellipsis", "=...") == compiled_signature(compiled)
    inspect.signature(compiled)


@pytest.mark.parametrize(("pure", "compiled"), TYPES, ids=lambda kind: kind.__module__ + "." + kind.__name__)
def test_inspect_reads_the_signatures(pure: type, compiled: type) -> None:
    for name, value in vars(compiled).items():
        if callable(value) and not name.startswith("_"):
            assert inspect.signature(value), name


@pytest.mark.parametrize(("pure", "compiled"), TYPES, ids=lambda kind: kind.__module__ + "." + kind.__name__)
def test_the_docstrings_are_the_same(pure: Any, compiled: Any) -> None:
    assert inspect.cleandoc(pure.__doc__) == inspect.cleandoc(compiled.__doc__)
    for name, value in members(pure).items():
        if not name.startswith("_") or name in ("_dump", "_check"):
            if inspect.isfunction(value) or isinstance(value, (property, classmethod)):
                ours, theirs = getattr(pure, name).__doc__, getattr(compiled, name).__doc__
                assert inspect.cleandoc(ours) == inspect.cleandoc(theirs), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_docstrings_of_functions_are_the_same(name: str) -> None:
    pure, compiled = getattr(context_py, name), getattr(context_cy, name)
    assert inspect.cleandoc(pure.__doc__) == inspect.cleandoc(compiled.__doc__)
    assert pure.__module__ == "contextvars_cy"


def definitions(path: Path, pattern: str) -> list[str]:
    """The names in their order; a function that only the module uses has an underscore in the reference alone."""
    names = re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    if path.name.startswith("trie"):
        names = [name.lstrip("_") for name in names]
    return list(dict.fromkeys(names))


@pytest.mark.parametrize("module", ["_hamt/trie", "_hamt/hamt", "_context/context"])
def test_the_definitions_stand_in_the_same_order(module: str) -> None:
    path = Path(__file__).parents[2] / "contextvars_cy" / module
    ours = definitions(path.with_name(f"{path.name}_py.py"), r"^ {0,4}(?:class |def )(\w+)")
    pattern = r"^ {0,4}(?:cdef class |def |cdef (?:inline )?\w+ \*?)(\w+)[(:]"
    theirs = definitions(path.with_name(f"{path.name}_cy.pyx"), pattern)
    shared = set(ours) & set(theirs)
    assert len(shared) > 10
    assert [name for name in ours if name in shared] == [name for name in theirs if name in shared]


def slots(kind: type) -> Iterator[tuple[str, list[inspect.Parameter]]]:
    """The special methods that take operands, which types of C do not take by name."""
    for name, method in members(kind).items():
        ours = inspect.isfunction(method) and method.__module__.startswith("contextvars_cy")
        if ours and re.fullmatch("__[a-z]+__", name) and name != "__exit__":
            operands = [*inspect.signature(method).parameters.values()][1:]
            if operands:
                yield name, operands


@pytest.mark.parametrize(("pure", "compiled"), TYPES, ids=lambda kind: kind.__module__ + "." + kind.__name__)
def test_operands_are_not_named(pure: type, compiled: type) -> None:
    for name, operands in slots(pure):
        assert all(operand.kind is not operand.POSITIONAL_OR_KEYWORD for operand in operands), name


# ---- behaviour: the same calls, the same words ----


NATIVE: contextvars.ContextVar[int] = contextvars.ContextVar("NATIVE")


class Twin:
    def __init__(self, suffix: str) -> None:
        self.context = importlib.import_module(f"contextvars_cy._context.context_{suffix}")
        self.hamt = importlib.import_module(f"contextvars_cy._hamt.hamt_{suffix}")
        self.var = self.context.ContextVar("var", default=[1])


TWINS = Twin("py"), Twin("cy")


def outcome(call: Callable[[Twin], object], twin: Twin) -> str:
    with twin.context.Context():
        try:
            result = call(twin)
        except Exception as error:
            result = f"{type(error).__name__}: {error} {error.__cause__!r} {getattr(error, '__notes__', '')}"
    # In its own texts the interpreter names a type of C with its module, and a class of Python without.
    return re.sub(r"0x[0-9a-f]+", "0x", repr(result)).replace("contextvars_cy.", "")


def entered_twice(twin: Twin) -> None:
    context = twin.context.Context()
    with context:
        context.run(int)


def left_out_of_order(twin: Twin) -> None:
    first, second = twin.context.Context(), twin.context.Context()
    with first:
        with second:
            first.__exit__(None, None, None)


def used_token(twin: Twin) -> Any:
    token = twin.var.set(1)
    twin.var.reset(token)
    return token


def token_from_elsewhere(twin: Twin) -> Any:
    return twin.context.Context().run(twin.var.set, 1)


def within_itself(holder: Any) -> Any:
    inner: list[object] = []
    if hasattr(holder, "finish"):
        holder["a"] = holder
        return holder
    inner.append(holder.set("a", inner))
    return inner


def finished(twin: Twin) -> Any:
    mutation = twin.hamt.Hamt().mutate()
    mutation.finish()
    return mutation


def used_by_its_own_key(twin: Twin) -> None:
    mutation = twin.hamt.Hamt().mutate()
    watch = Watch()
    watch.restart(acts=mutation.finish)
    mutation[WatchedKey("a", 1, watch)] = 1


CALLS: dict[str, Callable[[Twin], object]] = {
    "repr of a variable": lambda twin: twin.var,
    "repr of a variable without default": lambda twin: twin.context.ContextVar("other"),
    "repr of a context": lambda twin: twin.context.Context(),
    "repr of a token": lambda twin: twin.var.set(1),
    "repr of a used token": used_token,
    "repr of MISSING": lambda twin: twin.context.Token.MISSING,
    "repr of a thread state": lambda twin: twin.context.thread_state(),
    "repr of an iterator": lambda twin: twin.context.Context().keys(),
    "repr of a map": lambda twin: twin.hamt.Hamt(a=1),
    "repr of keys": lambda twin: twin.hamt.Hamt(a=1).keys(),
    "repr of values": lambda twin: twin.hamt.Hamt(a=1).values(),
    "repr of items": lambda twin: twin.hamt.Hamt(a=1).items(),
    "repr of a map's iterator": lambda twin: iter(twin.hamt.Hamt(a=1)),
    "repr of a mutation": lambda twin: twin.hamt.Hamt(a=1).mutate(),
    "repr of a diff": lambda twin: twin.hamt.Hamt(a=1, b=2).diff(twin.hamt.Hamt(b=3, c=4)),
    "repr of a diff of contexts": lambda twin: twin.context.Context().diff(twin.context.copy_context()),
    "repr of a map within itself": lambda twin: within_itself(twin.hamt.Hamt()),
    "repr of a mutation within itself": lambda twin: within_itself(twin.hamt.Hamt().mutate()),
    "subscription of ContextVar": lambda twin: twin.context.ContextVar[int],
    "subscription of Token": lambda twin: twin.context.Token[int],
    "subscription of Context": lambda twin: twin.context.Context[int],
    "no name": lambda twin: twin.context.ContextVar(),
    "two positional arguments": lambda twin: twin.context.ContextVar("name", 1),
    "three positional arguments": lambda twin: twin.context.ContextVar("name", 1, 2),
    "a misspelt argument": lambda twin: twin.context.ContextVar("name", defualt=1),
    "two defaults": lambda twin: twin.context.ContextVar("name", default=1, default_factory=list),
    "__init__ with an argument": lambda twin: twin.var.__init__(1),
    "__init__ of a Context with an argument": lambda twin: twin.context.Context().__init__(1),
    "__init__ of a map with an argument": lambda twin: twin.hamt.Hamt().__init__(1),
    "reversed mutation": lambda twin: reversed(twin.hamt.Hamt(a=1).mutate()),
    "reversed context": lambda twin: reversed(twin.context.Context()),
    "assign of a variable": lambda twin: twin.context.assign(twin.var),
    "assign of a pair": lambda twin: twin.context.assign((twin.var, 1)),
    "assign of two arguments": lambda twin: twin.context.assign(twin.var, 1),
    "assign of no argument": lambda twin: twin.context.assign(),
    "reset of a native token": lambda twin: twin.var.reset(NATIVE.set(1)),
    "a native variable as a key": lambda twin: twin.context.Context()[NATIVE],
    "diff with a native Context": lambda twin: twin.context.Context().diff(contextvars.copy_context()),
    "enter of a native Context": lambda twin: twin.context.thread_state().enter(contextvars.copy_context()),
    "pickle of a Context": lambda twin: pickle.dumps(twin.context.Context()),
    "pickle of a variable": lambda twin: pickle.dumps(twin.var),
    "name of a wrong type": lambda twin: twin.context.ContextVar(1),
    "unset": lambda twin: twin.context.ContextVar("other").get(),
    "reset of no token": lambda twin: twin.var.reset(1),
    "reset of a used token": lambda twin: twin.var.reset(used_token(twin)),
    "reset by another": lambda twin: twin.context.ContextVar("other").reset(twin.var.set(1)),
    "reset elsewhere": lambda twin: twin.var.reset(token_from_elsewhere(twin)),
    "Token()": lambda twin: twin.context.Token(),
    "Context(1)": lambda twin: twin.context.Context(1),
    "ThreadState()": lambda twin: twin.context.ThreadState(),
    "hash of a context": lambda twin: hash(twin.context.Context()),
    "hash of a token": lambda twin: hash(twin.var.set(1)),
    "context[1]": lambda twin: twin.context.Context()[1],
    "1 in context": lambda twin: 1 in twin.context.Context(),
    "context.get(1)": lambda twin: twin.context.Context().get(1),
    "missing key": lambda twin: twin.context.Context()[twin.var],
    "entered twice": entered_twice,
    "left out of order": left_out_of_order,
    "left without entering": lambda twin: twin.context.Context().__exit__(None, None, None),
    "enter of no context": lambda twin: twin.context.thread_state().enter(1),
    "native": lambda twin: type(twin.context.Context().native),
    "delete of a missing key": lambda twin: twin.hamt.Hamt().delete(1),
    "find of a missing key": lambda twin: twin.hamt.Hamt().find(1),
    "unhashable key": lambda twin: twin.hamt.Hamt().set([], 1),
    "hash of an unhashable value": lambda twin: hash(twin.hamt.Hamt(a=[])),
    "hash of keys": lambda twin: hash(twin.hamt.Hamt().keys()),
    "hash of items": lambda twin: hash(twin.hamt.Hamt().items()),
    "hash of a mutation": lambda twin: hash(twin.hamt.Hamt().mutate()),
    "iteration of a mutation": lambda twin: list(twin.hamt.Hamt(a=1).mutate()),
    "a mutation as a source": lambda twin: twin.hamt.Hamt(twin.hamt.Hamt(a=1).mutate()),
    "a map of None": lambda twin: twin.hamt.Hamt(None),
    "a map of no pairs": lambda twin: twin.hamt.Hamt([1]),
    "a map of a short pair": lambda twin: twin.hamt.Hamt([(1, 2), (1,)]),
    "a map of an unhashable key": lambda twin: twin.hamt.Hamt([([], 1)]),
    "fromkeys of an unhashable key": lambda twin: twin.hamt.Hamt.fromkeys([[]]),
    "update with a number": lambda twin: twin.hamt.Hamt().update(1),
    "update of a mutation with a number": lambda twin: twin.hamt.Hamt().mutate().update(1),
    "map | list": lambda twin: twin.hamt.Hamt() | [],
    "list | map": lambda twin: [] | twin.hamt.Hamt(),
    "order of maps": lambda twin: twin.hamt.Hamt() < twin.hamt.Hamt(),
    "order of keys": lambda twin: twin.hamt.Hamt().keys() < [],
    "reversed map": lambda twin: reversed(twin.hamt.Hamt()),
    "diff of a dict": lambda twin: twin.hamt.Hamt().diff({}),
    "diff of no context": lambda twin: twin.context.Context().diff({}),
    "merge of a dict": lambda twin: twin.hamt.Hamt().merge(twin.hamt.Hamt(), {}),
    "merge from a dict": lambda twin: twin.hamt.Hamt().merge({}, twin.hamt.Hamt()),
    "a conflict": lambda twin: twin.hamt.Hamt(a=1).merge(twin.hamt.Hamt(a=2), twin.hamt.Hamt()),
    "pickle of a map": lambda twin: twin.hamt.Hamt({1: 2, "a": [3]}).__reduce__(),
    "pickle of an iterator": lambda twin: iter(twin.hamt.Hamt()).__reduce__(),
    "pickle of keys": lambda twin: twin.hamt.Hamt().keys().__reduce__(),
    "pickle of values": lambda twin: twin.hamt.Hamt().values().__reduce__(),
    "pickle of items": lambda twin: twin.hamt.Hamt().items().__reduce__(),
    "pickle of a mutation": lambda twin: twin.hamt.Hamt().mutate().__reduce__(),
    "pop of a missing key": lambda twin: twin.hamt.Hamt().mutate().pop("a"),
    "del of a missing key": lambda twin: twin.hamt.Hamt().mutate().__delitem__("a"),
    "missing key of a mutation": lambda twin: twin.hamt.Hamt().mutate()["a"],
    "a finished mutation": lambda twin: finished(twin).set("a", 1),
    "a finished mutation with nothing to do": lambda twin: finished(twin).update(),
    "entering a finished mutation": lambda twin: finished(twin).__enter__(),
    "a mutation in use": lambda twin: used_by_its_own_key(twin),
    "HamtIterator()": lambda twin: twin.hamt.HamtIterator(),
    "HamtKeys()": lambda twin: twin.hamt.HamtKeys(twin.hamt.Hamt()),
    "HamtValues()": lambda twin: twin.hamt.HamtValues(twin.hamt.Hamt()),
    "HamtItems()": lambda twin: twin.hamt.HamtItems(twin.hamt.Hamt()),
    "HamtMutation()": lambda twin: twin.hamt.HamtMutation(),
    "subclass of Hamt": lambda twin: type("Sub", (twin.hamt.Hamt,), {}),
    "subclass of HamtIterator": lambda twin: type("Sub", (twin.hamt.HamtIterator,), {}),
    "subclass of HamtKeys": lambda twin: type("Sub", (twin.hamt.HamtKeys,), {}),
    "subclass of HamtMutation": lambda twin: type("Sub", (twin.hamt.HamtMutation,), {}),
    "subscription of Hamt": lambda twin: twin.hamt.Hamt[int, str],
    "subscription of HamtMutation": lambda twin: twin.hamt.HamtMutation[int, str],
    "order of contexts": lambda twin: twin.context.Context() < twin.context.Context(),
    "pickle of a context": lambda twin: twin.context.Context().__reduce__(),
    "hash of variables": lambda twin: [
        fold(hash(twin.context.ContextVar("b"))) - fold(hash(twin.context.ContextVar("a"))) for _ in range(2)
    ],
    "setting the name": lambda twin: type(twin.var).name.__set__(twin.var, 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_errors_and_reprs_are_the_same(name: str) -> None:
    if name == "setting the name":
        # The text is the interpreter's own, and names its kind of attribute.
        for twin in TWINS:
            with pytest.raises(AttributeError):
                CALLS[name](twin)
        return
    pure, compiled = (outcome(CALLS[name], twin) for twin in TWINS)
    assert pure == compiled


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["set", "discard"]),
            st.integers(0, 5),
            st.sampled_from([0, 1, 32, 1 << 30, 1 << 31, -2, 1 << 40, -1 << 40]),
        )
    )
)
def test_the_same_operations_give_the_same_tree(steps: list[tuple[str, int, int]]) -> None:
    maps = [twin.hamt.Hamt() for twin in TWINS]
    for name, number, place in steps:
        key = Key((number, place), place)
        maps = [hamt.set(key, number) if name == "set" else hamt.discard(key) for hamt in maps]
        dumps = [hamt._dump() for hamt in maps]
        assert dumps[0] == dumps[1]
    assert list(maps[0].items()) == list(maps[1].items())


@given(HISTORIES)
def test_any_history_gives_the_same_maps(history: History) -> None:
    maps = [twin.hamt.Hamt() for twin in TWINS]
    for name, keys, value in history:
        before, maps = maps, [step(hamt, name, keys, value) for hamt in maps]
        assert maps[0]._dump() == maps[1]._dump(), name
        ours, theirs = (
            (repr(hamt), hash(hamt), list(hamt), list(hamt.values()), hamt.__reduce__()[1], repr(old.diff(hamt)))
            for old, hamt in zip(before, maps)
        )
        assert ours == theirs
        assert (maps[0] is before[0]) is (maps[1] is before[1]), name


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_the_hash_is_folded_by_one_formula(place: int) -> None:
    # Where the formulas differ, one of the keys is out of place in one of the trees.
    key = Key("a", place)
    for twin in TWINS:
        twin.hamt.Hamt().set(key, 1).set(Key("b", 0), 2)._check()


def test_contexts_list_their_variables_in_the_same_order() -> None:
    numbers = [fold(hash(twin.context.ContextVar("probe"))) for twin in TWINS]
    orders = []
    for twin, number in zip(TWINS, numbers):
        # Each twin numbers its own variables; from here on they have the same numbers.
        for _ in range(max(numbers) - number):
            twin.context.ContextVar("skipped")
        context = twin.context.Context()
        for number in range(100):
            context.run(twin.context.ContextVar(f"variable {number}").set, number)
        orders.append([(hash(var), var.name, value) for var, value in context.items()])
    assert orders[0] == orders[1]
    assert len(orders[0]) == 100


# ---- what only CPython can tell ----


@pytest.mark.parametrize("twin", TWINS, ids=["pure", "cython"])
def test_variables_and_tokens_are_not_weakly_referenceable(twin: Twin) -> None:
    for value in (twin.var, twin.context.Context().run(twin.var.set, 1)):
        with pytest.raises(TypeError, match="cannot create weak reference"):
            weakref.ref(value)


@pytest.mark.parametrize("twin", TWINS, ids=["pure", "cython"])
def test_references_to_keys_and_values_are_counted_right(twin: Twin) -> None:
    key, value = Key("a", 1), object()
    before = sys.getrefcount(key), sys.getrefcount(value)
    for _ in range(100):
        hamt = twin.hamt.Hamt()
        for number in range(20):
            hamt = hamt.set(Key(number, number % 3), value)
        hamt = hamt.set(key, value)
        list(hamt.items())
        hamt.set(key, None).delete(key)
        hamt.find(key), hamt.get(key), hamt == hamt.set(key, 1)
    del hamt
    assert (sys.getrefcount(key), sys.getrefcount(value)) == before


if sys.version_info >= (3, 10):

    @pytest.mark.parametrize("twin", TWINS, ids=["pure", "cython"])
    def test_match_takes_maps_and_contexts_for_mappings(twin: Twin) -> None:
        context = twin.context.Context()
        context.run(twin.var.set, 1)
        # As text, because older Pythons cannot read it.
        program = """
match hamt:
    case {"a": found}:
        pass
match context:
    case {}:
        matched = True
"""
        names = {"hamt": twin.hamt.Hamt().set("a", 5), "context": context}
        exec(program, names)
        assert names["found"] == 5
        assert names["matched"]


def test_the_collector_follows_a_tree_only_where_a_cycle_could_pass() -> None:
    def root(hamt: object) -> object:
        (node,) = gc.get_referents(hamt)
        return node

    plain = hamt_cy.Hamt.fromkeys(range(100), "value")
    assert not gc.is_tracked(root(plain))
    assert not gc.is_tracked(root(plain.set(7, 1.5).delete(40).update({200: None})))
    for followed in (plain.set(7, []), plain.set(200, []), plain.update({7: [], 300: 1}), plain.set((1,), 1)):
        assert gc.is_tracked(root(followed))
        assert gc.is_tracked(root(followed.set(8, "other")))
    assert not gc.is_tracked(root(plain))
