"""How Sphinx makes a site of these pages: `make docs`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

# The reference twin has the signatures, and needs no compiler.
os.environ["CONTEXTVARS_CY_BACKEND"] = "pure"
sys.path.insert(0, str(Path(__file__).parents[1]))

import contextvars_cy  # noqa: E402

project = "contextvars_cy"
version = release = contextvars_cy.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
if os.environ.get("READTHEDOCS"):
    # Links to Python's own names. Elsewhere `make docs` needs no network but for its packages.
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {"python": ("https://docs.python.org/3", None)}
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
highlight_language = "text"
myst_heading_anchors = 3
add_module_names = False
# Of the line with the full names of types; the site shows shorter ones.
maximum_signature_line_length = 250
toc_object_entries_show_parents = "hide"
# What stands in backticks in a docstring: a link if it is a public name, else code.
default_role = "py:obj"
nitpick_ignore_regex = [
    # Python's own.
    ("py:class", r"(asyncio|collections|concurrent|contextvars)\..+"),
    # Type variables, and the types that only type checkers see; docs/reference/map.md explains them.
    ("py:class", r"(.+\.)?([DKPRTV]|Ts)2?(_co)?(\.(kw)?args)?"),
    ("py:class", r"(.+\.)?(HamtIterator|HasItems|HasKeys|Source|Unpack|_Kind|Getter|Setter)"),
]


PROJECTS = {
    "CPython": "python/cpython",
    "FastAPI": "fastapi/fastapi",
    "Starlette": "Kludex/starlette",
    "dask": "dask/dask",
}


def link_issues(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """In docstrings, which are read without links elsewhere."""

    def link(found: re.Match[str]) -> str:
        url = f"https://github.com/{PROJECTS[found['project']]}/issues"
        return found["text"] + re.sub(r"\d+", lambda number: f"`{number[0]} <{url}/{number[0]}>`__", found["numbers"])

    pattern = rf"(?P<text>(?P<project>{'|'.join(PROJECTS)})\s+(?:issues?|pull request)\s+)(?P<numbers>\d+(?: and \d+)*)"
    lines[:] = re.sub(pattern, link, "\n".join(lines)).split("\n")


def without_constructor(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str | None, result: str | None
) -> tuple[str, None] | None:
    """Of a class that only other code makes, such as Token, no arguments are shown."""
    return ("", None) if what == "class" and "NoReturn" in (signature or "") else None


def shown_as_code(app: Any, env: Any, node: Any, shown: Any) -> Any:
    return shown if node["reftype"] == "obj" else None


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", link_issues)
    app.connect("autodoc-process-signature", without_constructor)
    app.connect("missing-reference", shown_as_code)
