"""What the pages show is what happens: their programs run one after the other, and print what their comments say."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from pages import PROGRAMS, promised

# tests/package/test_pages_elsewhere.py runs two by pytest and by a kernel, test_integration_pages.py those that need a
# library, test_finding.py one beside its program.
RUN_ELSEWHERE = ("docs/pytest.md", "docs/notebooks.md", "docs/integrations/", "docs/finding.md")
NEEDED = {"docs/web-frameworks.md": ("fastapi", "httpx")}


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.filterwarnings("default::DeprecationWarning")
@pytest.mark.usefixtures("nothing_registered")
@pytest.mark.parametrize("page", [page for page in PROGRAMS if PROGRAMS[page] and not page.startswith(RUN_ELSEWHERE)])
def test_the_programs_print_what_their_comments_say(
    page: str, capsys: pytest.CaptureFixture[str], logging_as_before: None
) -> None:
    for name in NEEDED.get(page, ()):
        pytest.importorskip(name)
    names = {"__name__": page}
    for program in PROGRAMS[page]:
        # As the reader would, without the future statement above.
        exec(compile(program, page, "exec", dont_inherit=True), names)
        assert capsys.readouterr().out.splitlines() == promised(program)
