"""The anchor is found wherever CPython's map of a native Context has it: alone, deep, or beside one of its hash."""

from __future__ import annotations

import contextvars

import pytest

from contextvars_cy import Context, ContextVar, assign, copy_context
from interpreters import CPYTHON, SANITIZED

pytestmark = pytest.mark.skipif(not CPYTHON, reason="only CPython's map of a native Context is one by hashes")

VAR: ContextVar[object] = ContextVar("VAR")
OTHER: ContextVar[object] = ContextVar("OTHER", default="default")


class Name(str):
    """A variable's hash is its name's and its address's, mixed by xor."""

    wanted = 0

    def __hash__(self) -> int:
        return self.wanted


def folded(number: int) -> int:
    return (number ^ number >> 32) & 0xFFFFFFFF


def native_variable(wanted: int) -> contextvars.ContextVar[object]:
    """One whose folded hash is that; it takes the place in memory of the one that was tried before."""
    mixed_in = 0
    for _ in range(10_000):
        Name.wanted = mixed_in
        variable: contextvars.ContextVar[object] = contextvars.ContextVar(Name("native"))
        difference = folded(hash(variable)) ^ wanted
        if difference == 0:
            return variable
        mixed_in ^= difference
        del variable
    raise AssertionError("no variable had the hash")


def anchor_hash() -> int:
    VAR.set(None)
    (anchor,) = (var for var in contextvars.copy_context() if var.name == "contextvars_cy")
    return folded(hash(anchor))


def use() -> None:
    """Read and change, alone and with a copy that holds the same."""
    for number in range(3):
        token = VAR.set(number)
        assert (VAR.get(), OTHER.get()) == (number, "default")
        undo = assign({VAR: "assigned", OTHER: number})
        assert (VAR.get(), OTHER.get()) == ("assigned", number)
        ours, native = copy_context(), contextvars.copy_context()
        undo.undo()
        assert (VAR.get(), OTHER.get()) == (number, "default")
        for copy in (ours, native):
            assert (copy.run(VAR.get), copy.run(OTHER.get)) == ("assigned", number)
        assert ours[VAR] == "assigned" and dict(ours) == {VAR: "assigned", OTHER: number}
        VAR.reset(token)


@pytest.mark.skipif(SANITIZED, reason="malloc uses no address again at once")
@pytest.mark.parametrize("bits", [0, 1, 5, 10, 15, 20, 25, 30, 31, 32])
@pytest.mark.parametrize("more", [0, 1, 20, 300])
@pytest.mark.parametrize("first", ["anchor", "native"])
def test_beside_a_native_variable_whose_hash_agrees_in_so_many_bits(bits: int, more: int, first: str) -> None:
    def check() -> None:
        wanted = anchor_hash() ^ (1 << bits if bits < 32 else 0)
        natives = [native_variable(wanted), *(contextvars.ContextVar(f"more {number}") for number in range(more))]

        def set_natives() -> None:
            for var in natives:
                var.set(var)

        if first == "native":
            # In a Context that has no anchor yet.
            assert contextvars.Context().run(lambda: [set_natives(), VAR.get(None), use()])[1] is None  # type: ignore[func-returns-value]
            return
        VAR.set("before")
        set_natives()
        use()
        assert VAR.get() == "before"
        assert all(var.get() is var for var in natives)

    Context().run(check)
