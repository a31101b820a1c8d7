"""Programs that lose a value, or keep one too long: a recording of each names the line that is to blame."""

from __future__ import annotations

from pathlib import Path

import pytest

from lost_values import LOST, blamed_lines, recorded


@pytest.mark.parametrize("name", LOST)
def test_the_line_to_blame_is_named(name: str, tmp_path: Path) -> None:
    program = LOST[name]
    data = recorded(program, tmp_path)
    texts = [answer["text"] for answer in data["answers"]] + [leak["text"] for leak in data["leaks"]]
    assert any(all(f"app.py:{number} in " in text for number in blamed_lines(program)) for text in texts), texts
