"""Unset, asked, made on demand: `unset`, `is_set`, and a default that is made for each Context."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, Token, backend, copy_context, host


def test_unset_takes_the_value_away_and_its_token_brings_it_back() -> None:
    var = ContextVar("var", default="default")
    with copy_context() as context:
        var.set("value")
        token = var.unset()
        assert var not in context and var.get() == "default" and var.get("argument") == "argument"
        assert (token.var, token.old_value) == (var, "value")
        var.reset(token)
        assert context[var] == var.get() == "value"


def test_unset_scopes_as_set_does() -> None:
    var: ContextVar[int] = ContextVar("var")
    with copy_context():
        var.set(1)
        with var.unset() as token:
            with pytest.raises(LookupError):
                var.get()
            with var.set(2):
                assert var.get() == 2
        assert var.get() == 1
        with pytest.raises(RuntimeError, match="already been used once"):
            var.reset(token)


def test_unset_of_a_variable_without_a_value_is_undone_to_nothing() -> None:
    var: ContextVar[int] = ContextVar("var")
    with copy_context() as context:
        token = var.unset()
        assert token.old_value is Token.MISSING and var not in context
        var.set(1)
        var.reset(token)
        assert var not in context


def test_unset_in_a_copy_leaves_the_original() -> None:
    var: ContextVar[int] = ContextVar("var")
    with copy_context() as context:
        var.set(1)
        copy = copy_context()
        copy.run(var.unset)
        assert var not in copy and context[var] == 1


def test_is_set_asks_for_a_value_and_not_for_a_default() -> None:
    var: ContextVar[int | None] = ContextVar("var", default=1)
    made = ContextVar("made", default_factory=pytest.fail)
    with copy_context():
        assert not var.is_set() and not made.is_set()
        with var.set(None):
            assert var.is_set() is True
            assert Context().run(var.is_set) is False
        assert not var.is_set()


def test_a_value_is_made_at_the_first_get_and_once() -> None:
    calls: list[int] = []
    var = ContextVar("var", default_factory=lambda: calls.append(len(calls)) or calls)  # type: ignore[func-returns-value]
    with copy_context() as context:
        assert not calls and var not in context
        assert var.get() is var.get() is context[var]
        assert calls == [0]


def test_no_value_is_made_where_there_is_one_or_an_argument() -> None:
    var: ContextVar[int] = ContextVar("var", default_factory=pytest.fail)
    with copy_context() as context:
        assert var.get(None) is None
        assert context.get(var) is None and var not in context
        with var.set(1):
            assert var.get() == 1
    with pytest.raises(KeyError):
        context[var]


def test_contexts_that_branched_before_have_each_their_own_and_those_after_share_it() -> None:
    var: ContextVar[list[object]] = ContextVar("var", default_factory=list)
    with copy_context():
        before = copy_context()
        mine = var.get()
        after = copy_context()
        assert before.run(var.get) is not mine
        assert after.run(var.get) is mine


def test_after_unset_a_new_value_is_made() -> None:
    var: ContextVar[list[object]] = ContextVar("var", default_factory=list)
    with copy_context():
        first = var.get()
        with var.unset():
            assert var.get() is not first
        assert var.get() is first


def test_a_factory_that_fails_leaves_the_variable_unset() -> None:
    def fail() -> None:
        raise ValueError("no value today")

    var = ContextVar("var", default_factory=fail)
    with copy_context():
        for _ in range(2):
            with pytest.raises(ValueError, match="no value today"):
                var.get()
            assert not var.is_set()


def test_a_factory_that_sets_the_variable_has_its_say() -> None:
    def factory() -> str:
        var.set("set within")
        return "returned"

    var = ContextVar("var", default_factory=factory)
    with copy_context():
        assert var.get() == "set within" == var.get()


def test_a_factory_that_asks_for_its_own_variable_ends_in_a_recursion_error() -> None:
    var: ContextVar[object] = ContextVar("var", default_factory=lambda: var.get())
    with copy_context():
        with pytest.raises(RecursionError):
            var.get()
        assert not var.is_set()


@pytest.mark.parametrize("factory", [1, "list", []], ids=repr)
def test_a_factory_must_be_callable(factory: Any) -> None:
    with pytest.raises(TypeError, match="default_factory must be callable, not "):
        ContextVar("var", default_factory=factory)


def test_a_default_and_a_factory_are_one_too_many() -> None:
    with pytest.raises(TypeError, match="takes a default or a default_factory, not both"):
        ContextVar("var", default=None, default_factory=list)  # type: ignore[call-overload]
    assert ContextVar("var", default=1, default_factory=None).get() == 1  # type: ignore[call-overload]


def test_the_repr_shows_the_factory() -> None:
    assert "<ContextVar name='var' default_factory=<class 'list'> at 0x" in repr(
        ContextVar("var", default_factory=list)
    )


def test_each_thread_makes_its_own() -> None:
    var: ContextVar[list[int]] = ContextVar("var", default_factory=list)
    found = []

    def work() -> None:
        with copy_context():
            var.get().append(1)
            found.append(var.get())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[1]] * 4 and len(set(map(id, found))) == 4


SHARED = """
import collections, dataclasses, sys, warnings
from contextvars_cy import ContextVar

@dataclasses.dataclass
class Cart:
    total: int = 0

warnings.simplefilter("always")
for default in ([], {}, set(), bytearray(), collections.deque(), Cart()):
    ContextVar("shared", default=default)
ContextVar("own", default_factory=list), ContextVar("fixed", default=()), ContextVar("none")
"""


@pytest.mark.parametrize("debug", ["0", "1"])
def test_debug_mode_warns_of_a_default_that_every_context_shares(debug: str, tmp_path: Path) -> None:
    script = tmp_path / "shared.py"
    script.write_text(SHARED, encoding="utf-8")
    choices = {"BACKEND": backend, "HOST": host, "DEBUG": debug}
    env = {**os.environ, **{f"CONTEXTVARS_CY_{name}": choice for name, choice in choices.items()}}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True)
    warned = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert done.returncode == 0
    assert len(warned) == (6 if debug == "1" else 0)
    assert all(line.startswith(f"{script}:11: RuntimeWarning: every Context shares") for line in warned)
    assert not warned or "ContextVar('shared', default_factory=list)" in warned[0]
