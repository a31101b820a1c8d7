"""What the pages of the integrations show is what happens, and their examples run as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import run_python
from pages import PROGRAMS, PROJECT, TEXTS, promised

PAGES = [page for page in TEXTS if page.startswith("docs/integrations/")]
EXAMPLES = sorted((PROJECT / "examples").glob("travel_*.py"))


@pytest.mark.parametrize("page", PAGES)
def test_the_programs_of_a_page_print_what_their_comments_say(page: str, tmp_path: Path) -> None:
    """One after the other, as one module: what they make goes to processes that import it."""
    program = "\n".join(PROGRAMS[page])
    (tmp_path / "shown.py").write_text(program, encoding="utf-8")
    done = run_python(["-W", "error", "shown.py"], tmp_path)
    assert done.stdout.splitlines() == promised(program), done.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_its_docstring_says(example: Path, tmp_path: Path) -> None:
    """The last paragraph of the docstring, after "It prints:"."""
    promise = example.read_text(encoding="utf-8").split('"""')[1].partition("It prints:\n\n")[2]
    done = run_python([example], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [line.strip() for line in promise.splitlines() if line.strip()], done.stderr
