"""What docs/architecture.md promises of the house: arrows point down, and the hosts offer the same."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import contextvars_cy

PACKAGE = Path(__file__).parents[2] / "contextvars_cy"
# What each wing may import of the package beside itself.
BELOW = {
    "_hamt": {"_backend", "_reprs", "_sealed", "_sentinels"},
    "_context": {"_hamt", "_backend", "_places", "_reprs", "_sealed", "_sentinels"},
    # What `bind` returns needs `travel` when it is pickled.
    "_features": {"_context", "_hamt", "_backend", "_reprs", "_sealed", "_sentinels", "travel"},
    "_install": {"_context", "_hamt", "_backend", "_reprs", "_sealed", "_sentinels"},
    "_tracing": {*contextvars_cy.__all__, "_context", "_install", "_late", "_places", "_sealed", "_sentinels"},
    "integrations": {*contextvars_cy.__all__, "executors", "travel", "_context", "_late", "_places", "_tracing"},
}
MODULES = [path for wing in BELOW for path in (PACKAGE / wing).glob("*.py")]


def imported(path: Path) -> Iterator[str]:
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
def test_a_wing_imports_what_is_below_it(path: Path) -> None:
    assert set(imported(path)) <= BELOW[path.parent.name]


def test_there_are_six_wings() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(BELOW)


def offered(host: str) -> Iterator[str]:
    """What the reference's host has for the engine, by the names that it defines without an underscore."""
    tree = ast.parse((PACKAGE / "_context" / f"{host}_host_py.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets)  # type: ignore[attr-defined]


def test_the_hosts_offer_the_same() -> None:
    native, thread = ({name for name in offered(host) if not name.startswith("_")} for host in ("native", "thread"))
    # What an event loop's C code does is done on the native host alone; and a type variable.
    assert native - {"enter_untold", "leave_untold"} == thread
    assert len(thread) > 15


def test_every_file_and_name_of_the_page_exists() -> None:
    project = PACKAGE.parent
    page = (project / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = [
        path for folder in ("contextvars_cy", "tests", "tools", "examples") for path in (project / folder).rglob("*")
    ]
    names = {path.name for path in [*paths, *project.iterdir()]}
    assert set(re.findall(r"(?<![*\w])\w+\.(?:py|pyx|pxi|pxd|h|sh)\b", page)) <= names
    sources = [
        path for path in paths if PACKAGE in path.parents and path.suffix in (".py", ".pyx", ".pxi", ".pxd", ".h")
    ]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    assert set(re.findall(r"`(\w+)(?:\([\w, ]*\))?`", page)) <= names | set(re.findall(r"\w+", code))
