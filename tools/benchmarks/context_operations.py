"""The operations on context variables, and the statements that stand for them.

Their names are those of variables.py: `context`, `twin`, `left` and `right` are Contexts of 8 variables, of which `var`
is one; values are short strings, `one` to begin with. A set gives the variable another value each time, and each
statement leaves them as it found them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import NamedTuple


class Operation(NamedTuple):
    statement: str
    items: int = 1
    """How many times the statement does the measured operation."""
    copies: int = 10
    """How many of them a loop has, so that the loop itself costs little."""
    size: int = 8
    """How many variables are set in the current Context."""
    quick_items: int = 0
    """Fewer items for --quick, if one takes long."""

    def count(self, quick: bool) -> int:
        return self.quick_items if quick and self.quick_items else self.items


SIZES = 1, 8, 32, 200, 2000
TWENTY = "\n".join(f"v{number}.get()" for number in range(20))
SET, SET_RESET = "var.set(two)\nvar.set(one)", "token = var.set(two)\nvar.reset(token)"

GROUPS: dict[str, dict[str, Operation]] = {
    "get": {
        **{f"get, of {size}": Operation("var.get()", size=size) for size in SIZES},
        "get default": Operation("with_default.get()"),
        "get argument": Operation("without_default.get(one)"),
        "get 2 in turn": Operation("v0.get()\nv1.get()", items=2, copies=5),
        "get 20 in turn": Operation(TWENTY, items=20, copies=1, size=20),
    },
    # What a task does at each of its steps, and the same without the `get`.
    "switch": {
        "switch": Operation("left.run(nothing)\nright.run(nothing)", items=2, copies=5),
        "switch, get": Operation("left.run(read)\nright.run(read)", items=2, copies=5),
        "switch, get, of 200": Operation("large_left.run(read)\nlarge_right.run(read)", items=2, copies=5),
    },
    "set": {
        "set": Operation(SET, items=2, copies=5),
        "set, reset": Operation(SET_RESET),
        "with set": Operation("with var.set(two): pass"),
        # In a copy, since it would be new only once.
        "set new": Operation("context.copy().run(set_new)", items=10, copies=1),
    },
    # Of three variables; one by one if there is no `assign`.
    "assign": {
        "assign": Operation(
            "assign({{v0: two, v1: two, v2: two}})\nassign({{v0: one, v1: one, v2: one}})", items=2, copies=5
        ),
        "assign, undo": Operation("assign({{v0: two, v1: two, v2: two}}).undo()"),
    },
    "context": {
        "copy_context": Operation("copy_context()"),
        "run": Operation("context.run(nothing)"),
        "run 3 arguments": Operation("context.run(three, one, two, one)"),
        "run keywords": Operation("context.run(keywords, first=one, second=two)"),
        "copy, run, set": Operation("copy_context().run(var.set, one)"),
        "context[var]": Operation("context[var]"),
        "iterate": Operation("for variable in context: pass"),
        "equal": Operation("context == twin"),
    },
    # Both run the statement at once, each in its own Context.
    "threads": {
        "get, 2 threads": Operation("var.get()"),
        "set, 2 threads": Operation(SET, items=2, copies=5),
        "set, reset, 2 threads": Operation(SET_RESET),
        "copy, run, 2 threads": Operation("copy_context().run(nothing)"),
    },
    "programs": {
        "service": Operation("serve({items})", items=200, copies=1, quick_items=50),
        "tasks": Operation("tasks({items})", items=10_000, copies=1, quick_items=500),
        "recursion": Operation("descend({items})", items=500, copies=1),
    },
}
OPERATIONS = {name: operation for operations in GROUPS.values() for name, operation in operations.items()}

# The first less the second, which take turns with each other.
DIFFERENCES = {
    "get after a switch": ("switch, get", "switch"),
    "get after a switch, of 200": ("switch, get, of 200", "switch"),
}
ROWS = {
    group: [*operations, *(name for name, (longer, _) in DIFFERENCES.items() if longer in operations)]
    for group, operations in GROUPS.items()
}

Own = Mapping[str, "str | None"]
"""An implementation's statements that differ from those of `GROUPS`; None if it lacks the operation."""

# For tokens that are not context managers: before Python 3.14, and in the backport.
BY_HAND: Own = {
    "with set": "token = var.set(two)\ntry: pass\nfinally: var.reset(token)",
    "recursion": "descend_by_hand({items})",
}
ONE_BY_ONE: Own = {
    "assign": "v0.set(two)\nv1.set(two)\nv2.set(two)\nv0.set(one)\nv1.set(one)\nv2.set(one)",
    "assign, undo": "x = v0.set(two)\ny = v1.set(two)\nz = v2.set(two)\nv2.reset(z)\nv1.reset(y)\nv0.reset(x)",
}


def own_statements(module: ModuleType) -> dict[str, str | None]:
    """For an implementation with the names of `contextvars`, in place of what it lacks."""
    by_hand = {} if hasattr(module.Token, "__enter__") else BY_HAND
    return {**by_hand, **({} if hasattr(module, "assign") else ONE_BY_ONE)}


# asyncio carries Python's own Contexts from task to task; variables outside of them mix the tasks up.
NOT_FOLLOWED: Own = {"service": None, "tasks": None}

SET_ATTRIBUTE = "local.v0 = one\nlocal.v0 = two"
SET_RESET_ATTRIBUTE = "old = local.v0\nlocal.v0 = one\nlocal.v0 = old"
# The variables are attributes of an object, which has no Contexts.
ATTRIBUTES: Own = {
    **dict.fromkeys(OPERATIONS),
    **{f"get, of {size}": "local.v0" for size in SIZES},
    "get argument": "getattr(local, 'unset', one)",
    "get 2 in turn": "local.v0\nlocal.v1",
    "get 20 in turn": TWENTY.replace("v", "local.v").replace(".get()", ""),
    "set": SET_ATTRIBUTE,
    "set, reset": SET_RESET_ATTRIBUTE,
    "with set": "old = local.v0\nlocal.v0 = one\ntry: pass\nfinally: local.v0 = old",
    "get, 2 threads": "local.v0",
    "set, 2 threads": SET_ATTRIBUTE,
    "set, reset, 2 threads": SET_RESET_ATTRIBUTE,
}
# A `with` block, and a function that it has wrapped, have their own values.
EXTRACONTEXT: Own = {**ATTRIBUTES, "with set": "with local: local.v0 = one", "copy, run, set": "scoped(one)"}


class Goal(NamedTuple):
    """How many times as fast as the standard library an operation has to be on each host."""

    operations: list[str]
    thread: float
    native: float


GOALS = {
    "get": Goal([f"get, of {size}" for size in (1, 8, 32)], 1.0, 0.95),
    "get default": Goal(["get default", "get argument"], 1.3, 1.2),
    "get after a switch": Goal(["get, of 200", *DIFFERENCES], 1.3, 1.1),
    "set": Goal(["set", "set, reset", "with set"], 2.0, 0.7),
    "assign": Goal(list(GROUPS["assign"]), 1.0, 1.0),
    "copy_context": Goal(["copy_context"], 1.1, 0.75),
    "run": Goal(["run", "run 3 arguments", "run keywords"], 1.0, 0.9),
    "contexts read": Goal(["context[var]", "iterate", "equal"], 1.2, 1.0),
    "programs": Goal(list(GROUPS["programs"]), 1.1, 1.0),
}
# How many times as long the reference may take on CPython as its compiled twin.
PURE_GOALS = {"get, of 8": 8, "set": 10}
