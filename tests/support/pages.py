"""The pages, the programs that they show, and what these promise to print."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
TEXTS = {
    path.relative_to(PROJECT).as_posix(): path.read_text(encoding="utf-8")
    for path in [PROJECT / "README.md", *sorted(PROJECT.glob("docs/**/*.md"))]
}
PROGRAMS = {page: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for page, text in TEXTS.items()}


def promised(program: str) -> list[str]:
    return re.findall(r"^(?:# | *(?:print|asyncio\.run)\(.*  # )(.*)$", program, re.MULTILINE)
