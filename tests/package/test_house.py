"""The package's one rule of layers: arrows point down."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "contextvars_cy"
# What each wing may import of the package beside itself.
BELOW = {
    "_hamt": {"_backend", "_sealed", "_sentinels"},
    "_context": {"_hamt", "_backend", "_sealed", "_sentinels"},
    "_features": {"_context", "_hamt", "_backend", "_sealed", "_sentinels"},
    "_install": {"_context", "_hamt", "_backend", "_sealed", "_sentinels"},
}
MODULES = [path for wing in BELOW for path in (PACKAGE / wing).glob("*.py")]


def imported(path):
    """The parts of the package outside of its wing that a module imports when it runs, not for its types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 2 and id(node) not in typing:
            yield from [node.module.partition(".")[0]] if node.module else [alias.name for alias in node.names]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_wing_imports_what_is_below_it(path):
    assert set(imported(path)) <= BELOW[path.parent.name]


def test_there_are_four_wings():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(BELOW)
