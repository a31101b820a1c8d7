"""pprint prints maps and sets as it prints dicts and sets."""

from __future__ import annotations

import pprint
from pathlib import Path
from typing import Any

import pytest

from contextvars_cy import Hamt, HamtSet
from helpers import run_python

NUMBERS = {f"n{number:02}": number for number in range(20)}
THINGS: dict[str, tuple[Any, Any]] = {
    "a map": (Hamt(NUMBERS), NUMBERS),
    "a map in a dict": ({"inner": Hamt(NUMBERS)}, {"inner": NUMBERS}),
    "a map in a map": (Hamt(inner=Hamt(NUMBERS)), {"inner": NUMBERS}),
    "a set": (HamtSet(NUMBERS), set(NUMBERS)),
    "a set in a map": (Hamt(inner=HamtSet(NUMBERS)), {"inner": set(NUMBERS)}),
    "a short map": (Hamt(a=1), {"a": 1}),
}


@pytest.mark.parametrize("name", THINGS)
@pytest.mark.parametrize("width", [30, 80])
def test_the_lines_are_those_of_the_builtin_types(name: str, width: int) -> None:
    ours, builtin = THINGS[name]
    text = pprint.pformat(ours, width=width)
    lines = [line.strip() for line in text.replace("HamtSet(", "").replace("Hamt(", "").replace(")", "").splitlines()]
    # The name before a brace moves what follows to the right, and may need a line more.
    expected = [line.strip() for line in pprint.pformat(builtin, width=width).splitlines()]
    assert " ".join(lines) == " ".join(expected)
    assert len(lines) >= len(expected) and max(map(len, text.splitlines())) <= max(width, 40)
    assert eval(text) == ours


def test_empty_ones_and_those_that_hold_themselves() -> None:
    assert pprint.pformat([Hamt(), HamtSet()]) == "[Hamt({}), HamtSet()]"
    items: list[Any] = []
    items.append(Hamt({"a" * 60: items, "b" * 60: 1}))
    assert "<Recursion on list" in pprint.pformat(items)


def test_it_is_not_imported_before_it_is_needed(tmp_path: Path) -> None:
    program = f"""
import sys
from contextvars_cy import Hamt
assert "pprint" not in sys.modules
from pprint import pformat
print(pformat(Hamt({NUMBERS})).count(chr(10)))
"""
    done = run_python(["-c", program], tmp_path)
    assert (done.stdout, done.stderr) == ("19\n", "")
