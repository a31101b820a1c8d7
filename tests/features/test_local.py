"""Attributes of which every Context has its own."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import Context, ContextVar, Local, copy_context
from contextvars_cy._features import local as local_module
from interpreters import sets_a_trace_function
from refusals import refuses


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    with Context():
        yield


def test_attributes_are_the_current_context_s() -> None:
    local = Local()
    local.user = "ada"
    with copy_context():
        assert local.user == "ada"
        local.user = "grace"
        local.tenant = "acme"
        assert vars(local) == {"user": "grace", "tenant": "acme"}
    assert vars(local) == {"user": "ada"}
    with Context():
        assert vars(local) == {}


def test_branches_do_not_see_one_another() -> None:
    local = Local()
    local.shared = "before"
    branches = [copy_context(), copy_context()]
    for number, branch in enumerate(branches):
        branch.run(setattr, local, f"of_{number}", number)
    branches[0].run(delattr, local, "shared")
    assert branches[0].run(lambda: dict(vars(local))) == {"of_0": 0}
    assert branches[1].run(lambda: dict(vars(local))) == {"of_1": 1, "shared": "before"}
    assert vars(local) == {"shared": "before"}


names = st.sampled_from(["one", "two", "three", "_variable", "_values"])


@given(st.lists(st.tuples(names, st.none() | st.integers())))
def test_it_is_an_object_with_attributes(steps: list[tuple[str, int | None]]) -> None:
    class Plain:
        pass

    local, plain = Local(), Plain()
    for name, value in steps:
        outcomes: list[object] = []
        for thing in (local, plain):
            try:
                outcomes.append(delattr(thing, name) if value is None else setattr(thing, name, value))  # type: ignore[func-returns-value]
            except AttributeError:
                outcomes.append(AttributeError)
        assert outcomes[0] == outcomes[1]
        assert vars(local) == vars(plain)
        assert getattr(local, name, "none") == getattr(plain, name, "none")
    assert set(dir(local)) >= set(vars(plain))


def test_an_attribute_that_is_not_set() -> None:
    local = Local()
    text = "^'Local' object has no attribute 'user' in the current Context$"
    for use in (lambda: local.user, lambda: delattr(local, "user")):
        with pytest.raises(AttributeError, match=text):
            use()
    assert getattr(local, "user", "nobody") == "nobody"
    with pytest.raises(AttributeError, match="^'Local' object has no attribute '__len__' in the current Context$"):
        local.__len__()


def test_two_locals_have_nothing_in_common() -> None:
    one, two = Local(), Local()
    one.user = "ada"
    assert not hasattr(two, "user")


def test_a_thread_begins_with_none() -> None:
    local = Local()
    local.user = "ada"
    found = []
    thread = threading.Thread(target=Context().run, args=(lambda: found.append(dict(vars(local))),))
    thread.start()
    thread.join()
    assert found == [{}]


def test_vars_is_read_only_and_stays_as_it_was() -> None:
    local = Local()
    local.user = "ada"
    found = vars(local)
    with pytest.raises(TypeError):
        found["user"] = "grace"
    local.user = "grace"
    assert found == {"user": "ada"}


class Request(Local):
    locale = "en"

    def __init__(self, user: str = "nobody") -> None:
        calls.append(user)
        self.user = user

    @property
    def shout(self) -> str:
        return self.user.upper()

    @shout.setter
    def shout(self, value: str) -> None:
        self.user = value.lower()

    @property
    def broken(self) -> object:
        return self.nothing_there

    def greet(self) -> str:
        return f"Hello {self.user}"


calls: list[str] = []


def test_a_subclass() -> None:
    calls.clear()
    request = Request("ada")
    assert request.greet() == "Hello ada"
    assert request.locale == "en"
    request.locale = "fr"
    assert request.locale == "fr"
    del request.locale
    assert (request.locale, Request.locale) == ("en", "en")
    with pytest.raises(AttributeError):
        del request.locale
    request.shout = "GRACE"
    assert (request.user, request.shout) == ("grace", "GRACE")
    with pytest.raises(AttributeError):
        request.broken = 1  # type: ignore[misc]
    with pytest.raises(AttributeError, match="^'Request' object has no attribute 'nothing_there' in the current C"):
        request.broken
    assert vars(request) == {"user": "grace"}
    assert calls == ["ada"]


def test_init_runs_once_in_the_context_where_it_is_called() -> None:
    calls.clear()
    request = Request("ada")
    assert copy_context().run(lambda: request.user) == "ada"
    with pytest.raises(AttributeError):
        Context().run(lambda: request.user)
    assert calls == ["ada"]


def test_arguments_are_for_a_subclass() -> None:
    with pytest.raises(TypeError, match=r"^Local\(\) takes no arguments; set attributes, or give a subclass an __i"):
        Local(user="ada")


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_neither_copied_nor_pickled(how: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="^cannot copy or pickle 'Local' object: its attributes are each Context's"):
        how(Local())


def test_one_variable_is_all_that_a_context_keeps() -> None:
    local = Local()
    for number in range(100):
        setattr(local, f"attribute_{number}", number)
    assert len(copy_context()) == 1
    (variable,) = copy_context()
    assert type(variable) is ContextVar
    assert variable.name == "Local attributes"


class Slots(Local):
    __slots__ = ("__private", "user")

    def __init__(self, user: str) -> None:
        self.__private = user
        self.user = user

    def private(self) -> str:
        return self.__private


def at_least_one(instance: object, attribute: object, value: str) -> None:
    if not value:
        raise ValueError("at least one")


@attrs.define
class Defined(Local):
    user: str


@attrs.define
class Checked(Local):
    user: str = attrs.field(converter=str, validator=at_least_one)


@attrs.frozen
class Frozen(Local):
    user: str


@attrs.define
class DerivedDefined(Checked):
    tenant: str = "acme"


@attrs.define(slots=False)
class WithoutSlots(Local):
    user: str


WITH_SLOTS = [Slots, Defined, Checked, Frozen, DerivedDefined, WithoutSlots]

if sys.version_info >= (3, 10):

    @dataclass(slots=True)
    class DataClass(Local):
        user: str = "nobody"

    @dataclass(slots=True)
    class Derived(DataClass):
        user: str
        tenant: str = "acme"

    @dataclass(slots=True, frozen=True)
    class FrozenDataClass(Local):
        user: str = "nobody"

    WITH_SLOTS += [DataClass, Derived, FrozenDataClass]


@pytest.mark.parametrize("kind", WITH_SLOTS, ids=lambda kind: kind.__name__)
def test_a_slot_is_each_context_s_own(kind: type[Any]) -> None:
    outside, inside = copy_context(), copy_context()
    request = kind("nobody")
    text = f"{kind.__name__!r} object has no attribute 'user' in the current Context"
    with refuses(AttributeError, text):
        outside.run(lambda: request.user)
    with pytest.raises(AttributeError, match=f"{kind.__name__!r} object has no attribute 'user'"):
        outside.run(lambda: object.__getattribute__(request, "user"))
    inside.run(kind.__init__, request, "ada")
    assert inside.run(lambda: request.user) == "ada"
    assert request.user == "nobody"
    assert vars(request)["user"] == "nobody"
    if "Frozen" not in kind.__name__:
        request.user = "grace"
        inside.run(delattr, request, "user")
        with refuses(AttributeError, text):
            inside.run(delattr, request, "user")
        assert request.user == "grace"


def test_the_rules_of_attrs_hold() -> None:
    checked = Checked(1)
    assert checked.user == "1"
    checked.user = 2  # type: ignore[assignment]
    assert checked.user == "2"
    with pytest.raises(ValueError, match="at least one"):
        checked.user = ""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Frozen("ada").user = "grace"  # type: ignore[misc]


def test_a_private_slot() -> None:
    assert Slots("ada").private() == "ada"


@dataclass(frozen=True)
class SharedDataClass(Local):
    user: str = "nobody"


@attrs.define(slots=False)
class SharedDefined(Local):
    user: str = attrs.field(validator=at_least_one)


class Shared(Local):
    def __init__(self, user: str) -> None:
        object.__setattr__(self, "user", user)


@pytest.mark.parametrize("kind", [SharedDataClass, SharedDefined, Shared], ids=lambda kind: kind.__name__)
def test_what_would_be_shared_is_refused(kind: type[Any]) -> None:
    # Those of attrs themselves look.
    with refuses(
        TypeError,
        f"object.__setattr__ has set 'user' of this {kind.__name__!r} object, as frozen dataclasses and attrs do, and "
        "all Contexts would share it; give the class slots (slots=True), or use setattr",
    ):
        kind("ada").user


class Sub(Local):
    pass


@pytest.mark.parametrize("kind", [Local, Sub])
def test_what_every_object_has_is_not_the_context_s(kind: type[Local]) -> None:
    local = kind()
    before = vars(local)

    def delete_class() -> None:
        del local.__class__

    text = f"{kind.__name__!r} object attribute '__dict__' is read-only"
    with refuses(AttributeError, text):
        local.__dict__ = {}
    with refuses(AttributeError, text):
        del local.__dict__
    for value in (1, dict, Request):
        if kind is Local or value is not Request:
            with pytest.raises(TypeError):
                local.__class__ = value  # type: ignore[assignment]
    # PyPy's is the second.
    with pytest.raises((TypeError, AttributeError), match="__class__"):
        delete_class()
    assert type(local) is local.__class__ is kind
    assert vars(local) == before == {}


def test_a_class_that_fits_may_be_taken_as_of_any_object() -> None:
    local: Local = Sub()
    local.__class__ = Request
    assert type(local) is Request
    assert local.locale == "en"


def test_a_descriptor_that_shows_its_class_something_else() -> None:
    class Descriptor:
        def __get__(self, instance: object, kind: object = None) -> int:
            if instance is None:
                raise AttributeError
            return seen[-1]

        def __set__(self, instance: object, value: int) -> None:
            seen.append(value)

    class Described(Local):
        attribute = Descriptor()

    seen, local = [1], Described()
    assert local.attribute == 1
    local.attribute = 2
    assert (local.attribute, dict(vars(local)), seen) == (2, {}, [1, 2])


class Value:
    pass


def test_values_are_freed_with_their_context_and_with_what_replaces_them() -> None:
    local = Local()

    def work() -> None:
        local.old = Value()
        found.append(weakref.ref(local.old))
        local.old = Value()
        found.append(weakref.ref(local.old))
        # A value that reaches its own Context, as a task does.
        local.old.context = copy_context()
        local.old.local = local

    found: list[weakref.ref[Value]] = []
    Context().run(work)
    gc.collect()
    assert [reference() for reference in found] == [None, None]
    assert vars(local) == {}


def test_a_local_and_its_values_are_freed() -> None:
    def work() -> tuple[weakref.ref[Any], ...]:
        local = Local()
        local.value = Value()
        local.value.local = local
        return weakref.ref(local), weakref.ref(local.value)

    found = Context().run(work)
    gc.collect()
    assert [reference() for reference in found] == [None, None]


@pytest.mark.parametrize("first", [{}, {"first": 1}])
def test_an_attribute_set_in_the_middle_of_setting_another_is_not_lost(first: dict[str, int]) -> None:
    class Name(str):
        def __hash__(self) -> int:
            hashes.append(None)
            if len(hashes) == interrupted:
                local.other = True
            return super().__hash__()

    # At each place where the hash is asked for, until there is none.
    for interrupted in range(1, 100):
        hashes: list[None] = []
        local = Local()
        for name, value in first.items():
            setattr(local, name, value)
        setattr(local, Name("user"), "ada")
        if len(hashes) < interrupted:
            break
        assert vars(local) == {**first, "other": True, "user": "ada"}
    assert 1 < interrupted < 99


class Interrupts:
    """Calls a function, and interrupters before certain lines of the module: what signal handlers and finalisers do."""

    def __init__(self, interrupters: Mapping[int, Callable[[], object]], function: Callable[[], object]) -> None:
        # By the number of the line, counted as they come.
        self.interrupters = dict(interrupters)
        self.count = 0
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            function()
        finally:
            sys.settrace(before)

    def trace(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        if frame.f_code.co_filename != local_module.__file__:
            return None
        if event == "line":
            self.count += 1
            self.interrupters.pop(self.count, int)()
        return self.trace


class Scene:
    """A Local, a change of it, and three others that come in the middle."""

    def __init__(self) -> None:
        self.local = Local()
        self.equal: list[object] = []
        self.local.gone = self.local.exchanged = self.local.third_gone = self.equal

    def set(self) -> None:
        self.local.user = "ada"

    def set_again(self) -> None:
        # The map stays as it is.
        self.local.gone = self.equal

    def delete(self) -> None:
        del self.local.gone

    def first(self) -> None:
        # An equal one in the place of another is a change as well.
        self.local.exchanged = self.equal.copy()
        self.local.unsettled = 1

    def second(self) -> None:
        self.local.second = True
        self.local.unsettled = 2

    def third(self) -> None:
        self.local.unsettled = 3
        del self.local.third_gone


def some_combinations(end: int, count: int) -> list[tuple[int, ...]]:
    """All pairs of moments; of the triples, which take long, some."""
    every = [*itertools.combinations(range(1, end), count)]
    return random.Random(1).sample(every, min(len(every), 1500))


@sets_a_trace_function
@pytest.mark.parametrize("operation", ["set", "set_again", "delete"])
def test_no_change_is_lost_wherever_it_is_interrupted_and_how_often(operation: str) -> None:
    lines = Interrupts({}, getattr(Scene(), operation)).count
    tried = 0
    for moments in some_combinations(2 * lines, 3):
        scene = Scene()
        interrupters = dict(zip(moments, (scene.first, scene.second, scene.third)))
        if Interrupts(interrupters, getattr(scene, operation)).interrupters:
            continue
        tried += 1
        found = dict(vars(scene.local))
        assert found.pop("exchanged") is not scene.equal
        ours: dict[str, dict[str, object]] = {
            "set": {"user": "ada", "gone": scene.equal},
            "set_again": {"gone": scene.equal},
            "delete": {},
        }
        assert found == {**ours[operation], "second": True, "unsettled": 3}
    assert tried > 100


class Interrupt(BaseException):
    pass


def interrupt() -> None:
    raise Interrupt


@sets_a_trace_function
@pytest.mark.parametrize("operation", ["set", "set_again", "delete"])
def test_no_change_is_lost_if_one_is_interrupted_for_good(operation: str) -> None:
    lines = Interrupts({}, getattr(Scene(), operation)).count
    tried = 0
    for interrupters in (("first",), ("first", "second")):
        for moments in some_combinations(2 * lines, len(interrupters) + 1):
            scene = Scene()
            called = [getattr(scene, name) for name in interrupters] + [interrupt]
            try:
                Interrupts(dict(zip(moments, called)), getattr(scene, operation))
            except Interrupt:
                tried += 1
                found = dict(vars(scene.local))
                assert found.pop("exchanged") is not scene.equal
                assert found.pop("gone", scene.equal) is found.pop("third_gone") is scene.equal
                assert found.pop("user", "ada") == "ada"
                assert found == ({"second": True, "unsettled": 2} if "second" in interrupters else {"unsettled": 1})
    assert tried > 100


@sets_a_trace_function
def test_the_last_to_set_an_attribute_has_set_it() -> None:
    # The second one sees what it replaces.
    for moments in itertools.combinations(range(1, 40), 2):
        local = Local()
        seen: list[object] = []

        def answer(local: Local = local, seen: list[object] = seen) -> None:
            seen.append(getattr(local, "user", None))
            local.user = f"after {seen[-1]}"

        def set_mark(local: Local = local) -> None:
            local.mark = True

        Interrupts({moments[0]: set_mark, moments[1]: answer}, lambda local=local: setattr(local, "user", "ada"))  # type: ignore[misc]
        assert local.user == ("after ada" if seen == ["ada"] else "ada")


# The collector of PyPy cannot be told when to run.
if hasattr(gc, "set_threshold"):

    def test_no_change_is_lost_to_finalisers_within_finalisers() -> None:
        class Cycle:
            def __init__(self, left: int) -> None:
                self.me, self.left = self, left

            def __del__(self) -> None:
                setattr(local, f"mark_{self.left}", True)
                done.append(f"mark_{self.left}")
                if self.left:
                    Cycle(self.left - 1)

        local = Local()
        done: list[str] = []
        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            Cycle(40)
            for number in range(30):
                local.user = [number]
        finally:
            gc.set_threshold(*threshold)
        # None is left for another test.
        while len(done) <= 40:
            gc.collect()
        assert not set(done) - set(vars(local))
