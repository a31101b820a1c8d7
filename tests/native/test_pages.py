"""What the pages show is what happens: their programs run one after the other, and print what their comments say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGES = "entering isolated proxy resetting returning threads unset watching".split()


@pytest.mark.parametrize("page", PAGES)
def test_the_programs_print_what_their_comments_say(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / f"{page}.md").read_text(encoding="utf-8")
    names = {"__name__": page}
    for program in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(program, page, "exec"), names)
        promised = re.findall(r"^(?:# | *print\(.*  # )(.*)$", program, re.MULTILINE)
        assert capsys.readouterr().out.splitlines() == promised
