"""What the pages show is what happens: the programs of a page, one after the other, print what their comments say."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

import contextvars_cy
from helpers import run_python

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", *PROJECT.glob("docs/**/*.md")]
TEXTS = {page.relative_to(PROJECT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
PROGRAMS = {page: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for page, text in TEXTS.items()}
# By pytest, and by a kernel.
RUN_OTHERWISE = ("docs/pytest.md", "docs/notebooks.md")
NEEDED = {"docs/web-frameworks.md": ("fastapi", "httpx")}
SETTINGS = {name: os.environ[name] for name in ("CONTEXTVARS_CY_BACKEND", "CONTEXTVARS_CY_HOST")}
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


NAMES = re.compile(r"^\.\. (?:auto)?(?:class|function|data):: (\w+)", re.MULTILINE)


def promised(page: str) -> list[str]:
    return re.findall(r"^(?:# | *(?:print|asyncio\.run)\(.*  # )(.*)$", "\n".join(PROGRAMS[page]), re.MULTILINE)


@pytest.mark.parametrize("page", [page for page, found in PROGRAMS.items() if found and page not in RUN_OTHERWISE])
def test_the_programs_print_what_their_comments_say(page: str, tmp_path: Path) -> None:
    for name in NEEDED.get(page, ()):
        pytest.importorskip(name)
    (tmp_path / "page.py").write_text("\n".join(PROGRAMS[page]), encoding="utf-8")
    done = run_python(["-W", "error", "page.py"], tmp_path, env=SETTINGS)
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (promised(page), "", 0)


@pytest.mark.parametrize("options", [[], ["-o", "usefixtures=isolated_context"]], ids=["mark", "usefixtures"])
def test_the_tests_of_the_page_pass(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text("\n".join(PROGRAMS["docs/pytest.md"]), encoding="utf-8")
    done = run_python(["-m", "pytest", "-q", "-p", "pytest_contextvars_cy", *options], tmp_path, env=SETTINGS)
    assert "3 passed" in done.stdout, done.stdout


def test_the_cells_print_what_their_comments_say(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    pytest.importorskip("jupyter_client")
    (tmp_path / "notebook.py").write_text(NOTEBOOK, encoding="utf-8")
    env = {**SETTINGS, "IPYTHONDIR": str(tmp_path), "JUPYTER_PLATFORM_DIRS": "1", "HOME": str(tmp_path)}
    done = run_python(["notebook.py"], tmp_path, env=env, input=json.dumps(PROGRAMS["docs/notebooks.md"]))
    assert done.stdout.splitlines() == promised("docs/notebooks.md"), done.stderr


def test_the_reference_has_every_public_name() -> None:
    names = {name for page, text in TEXTS.items() if page.startswith("docs/reference/") for name in NAMES.findall(text)}
    assert names >= set(contextvars_cy.__all__)


def test_the_optional_import_type_checks(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "library.py").write_text("\n".join(PROGRAMS["docs/libraries.md"]), encoding="utf-8")
    done = run_python(["-m", "mypy", "--strict", "--no-incremental", "library.py"], tmp_path)
    assert done.returncode == 0, done.stdout
