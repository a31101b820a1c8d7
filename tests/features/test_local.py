"""Attributes of which every Context has its own."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import Context, ContextVar, Local, copy_context


@pytest.fixture(autouse=True)
def fresh_context():
    with Context():
        yield


def test_attributes_are_the_current_context_s():
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


def test_branches_do_not_see_one_another():
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
def test_it_is_an_object_with_attributes(steps):
    class Plain:
        pass

    local, plain = Local(), Plain()
    for name, value in steps:
        outcomes = []
        for thing in (local, plain):
            try:
                outcomes.append(delattr(thing, name) if value is None else setattr(thing, name, value))
            except AttributeError:
                outcomes.append(AttributeError)
        assert outcomes[0] == outcomes[1]
        assert vars(local) == vars(plain)
        assert getattr(local, name, "none") == getattr(plain, name, "none")
    assert set(dir(local)) >= set(vars(plain))


def test_an_attribute_that_is_not_set():
    local = Local()
    text = "^'Local' object has no attribute 'user' in the current Context$"
    for use in (lambda: local.user, lambda: delattr(local, "user")):
        with pytest.raises(AttributeError, match=text):
            use()
    assert getattr(local, "user", "nobody") == "nobody"
    with pytest.raises(AttributeError, match="^'Local' object has no attribute '__len__' in the current Context$"):
        local.__len__()


def test_two_locals_have_nothing_in_common():
    one, two = Local(), Local()
    one.user = "ada"
    assert not hasattr(two, "user")


def test_a_thread_begins_with_none():
    local = Local()
    local.user = "ada"
    found = []
    thread = threading.Thread(target=Context().run, args=(lambda: found.append(dict(vars(local))),))
    thread.start()
    thread.join()
    assert found == [{}]


def test_vars_is_read_only_and_stays_as_it_was():
    local = Local()
    local.user = "ada"
    found = vars(local)
    with pytest.raises(TypeError):
        found["user"] = "grace"
    local.user = "grace"
    assert found == {"user": "ada"}


class Request(Local):
    locale = "en"

    def __init__(self, user="nobody"):
        calls.append(user)
        self.user = user

    @property
    def shout(self):
        return self.user.upper()

    @shout.setter
    def shout(self, value):
        self.user = value.lower()

    @property
    def broken(self):
        return self.nothing_there

    def greet(self):
        return f"Hello {self.user}"


calls = []


def test_a_subclass():
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
        request.broken = 1
    with pytest.raises(AttributeError, match="^'Request' object has no attribute 'nothing_there' in the current C"):
        request.broken
    assert vars(request) == {"user": "grace"}
    assert calls == ["ada"]


def test_init_runs_once_in_the_context_where_it_is_called():
    calls.clear()
    request = Request("ada")
    assert copy_context().run(lambda: request.user) == "ada"
    with pytest.raises(AttributeError):
        Context().run(lambda: request.user)
    assert calls == ["ada"]


def test_arguments_are_for_a_subclass():
    with pytest.raises(TypeError, match=r"^Local\(\) takes no arguments; set attributes, or give a subclass an __i"):
        Local(user="ada")


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_neither_copied_nor_pickled(how):
    with pytest.raises(TypeError, match="^cannot copy or pickle 'Local' object: its attributes are each Context's"):
        how(Local())


def test_one_variable_is_all_that_a_context_keeps():
    local = Local()
    for number in range(100):
        setattr(local, f"attribute_{number}", number)
    assert len(copy_context()) == 1
    (variable,) = copy_context()
    assert type(variable) is ContextVar
    assert variable.name == "Local attributes"


class Value:
    pass


def test_values_are_freed_with_their_context_and_with_what_replaces_them():
    local = Local()

    def work():
        local.old = Value()
        found.append(weakref.ref(local.old))
        local.old = Value()
        found.append(weakref.ref(local.old))
        # A value that reaches its own Context, as a task does.
        local.old.context = copy_context()
        local.old.local = local

    found = []
    Context().run(work)
    gc.collect()
    assert [reference() for reference in found] == [None, None]
    assert vars(local) == {}


def test_a_local_and_its_values_are_freed():
    def work():
        local = Local()
        local.value = Value()
        local.value.local = local
        return weakref.ref(local), weakref.ref(local.value)

    found = Context().run(work)
    gc.collect()
    assert [reference() for reference in found] == [None, None]


@pytest.mark.parametrize("first", [{}, {"first": 1}])
def test_an_attribute_set_in_the_middle_of_setting_another_is_not_lost(first):
    class Name(str):
        def __hash__(self):
            hashes.append(None)
            if len(hashes) == interrupted:
                local.other = True
            return super().__hash__()

    # At each place where the hash is asked for, until there is none.
    for interrupted in range(1, 100):
        hashes = []
        local = Local()
        for name, value in first.items():
            setattr(local, name, value)
        setattr(local, Name("user"), "ada")
        if len(hashes) < interrupted:
            break
        assert vars(local) == {**first, "other": True, "user": "ada"}
    assert 1 < interrupted < 99
