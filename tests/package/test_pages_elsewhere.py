"""The pages whose programs pytest, a notebook or a type checker runs; and the reference, which leaves out no name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import contextvars_cy
from helpers import run_python
from pages import PROGRAMS, PROJECT, TEXTS, promised

NOTEBOOK = """
import json
import sys

from jupyter_client.manager import start_new_kernel

kernel, client = start_new_kernel(kernel_name="python3")
try:
    for cell in json.load(sys.stdin):
        client.execute_interactive(cell, timeout=60)
finally:
    client.stop_channels()
    kernel.shutdown_kernel(now=True)
"""
ENTRY = re.compile(r"^\.\. (?:auto)?(?:class|function|data):: (\w+)", re.MULTILINE)


@pytest.mark.parametrize("options", [[], ["-o", "usefixtures=isolated_context"]], ids=["mark", "usefixtures"])
def test_the_tests_of_the_page_pass(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text("\n".join(PROGRAMS["docs/pytest.md"]), encoding="utf-8")
    done = run_python(["-m", "pytest", "-q", "-p", "pytest_contextvars_cy", *options], tmp_path)
    assert "4 passed" in done.stdout, done.stdout


def test_the_cells_print_what_their_comments_say(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    pytest.importorskip("jupyter_client")
    (tmp_path / "notebook.py").write_text(NOTEBOOK, encoding="utf-8")
    env = {"IPYTHONDIR": str(tmp_path), "JUPYTER_PLATFORM_DIRS": "1", "HOME": str(tmp_path)}
    cells = PROGRAMS["docs/notebooks.md"]
    done = run_python(["notebook.py"], tmp_path, env=env, input=json.dumps(cells))
    assert done.stdout.splitlines() == promised("\n".join(cells)), done.stderr


def test_the_optional_import_type_checks(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "library.py").write_text("\n".join(PROGRAMS["docs/libraries.md"]), encoding="utf-8")
    done = run_python(["-m", "mypy", "--strict", "--no-incremental", "library.py"], tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_reference_has_every_public_name() -> None:
    entries = {
        name for page, text in TEXTS.items() if page.startswith("docs/reference/") for name in ENTRY.findall(text)
    }
    assert entries >= set(contextvars_cy.__all__)


SITE = "https://contextvars-cy.readthedocs.io/en/latest/"
FILES = re.compile(r"https://(?:github|raw.githubusercontent).com/contextvars-cy/contextvars_cy/(?:blob/)?main/(.+)")


def test_the_links_of_the_readme_lead_to_files() -> None:
    """`make docs` checks those of the other pages."""
    readme = TEXTS["README.md"]
    links = set(re.findall(r"(?:\]: |\]\()(\S+?)(?:\)|$)", readme, re.MULTILINE))
    assert len(links) > 15
    for link in links:
        file = FILES.fullmatch(link)
        if file:
            assert (PROJECT / file[1]).is_file(), link
        else:
            assert link.startswith(SITE)
            page, _, heading = link[len(SITE) :].partition("#")
            text = (PROJECT / "docs" / (page or "index.html")).with_suffix(".md").read_text(encoding="utf-8")
            assert f"## {heading}" in text.lower()


def test_every_link_of_the_readme_is_defined_and_used() -> None:
    text = re.sub(r"```.*?```|`[^`]*`", "", TEXTS["README.md"], flags=re.DOTALL)
    defined = set(re.findall(r"^\[(.+)\]: ", text, re.MULTILINE))
    # Neither the text of a link with a label, nor a definition.
    assert defined == set(re.findall(r"\[([^\[\]\n]+)\](?![:(\[])", text))
