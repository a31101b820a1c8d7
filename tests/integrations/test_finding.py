"""docs/finding.md: what it shows is what its programs and the page say, and its pictures can be made again."""

from __future__ import annotations

import difflib
import re
import shutil
import struct
import zlib
from pathlib import Path

import pytest

import pictures
from contextvars_cy import backend
from helpers import run_python
from pages import PROGRAMS, PROJECT, TEXTS

PAGE = TEXTS["docs/finding.md"]
SERVED, ANSWERED, MENDED, FAILED = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
(TEST,) = PROGRAMS["docs/finding.md"]
EXAMPLE = PROJECT / "examples" / "finding"
BACKEND = {"CONTEXTVARS_CY_BACKEND": backend}


def folder_with(program: str, folder: Path) -> Path:
    shutil.copy(EXAMPLE / program, folder / "service.py")
    (folder / "test_service.py").write_text(TEST, encoding="utf-8")
    return folder


def traced(folder: Path) -> tuple[str, str]:
    """What the program prints, and the recording as text."""
    done = run_python(["-m", "contextvars_cy", "trace", "--format", "text", "service.py"], folder, BACKEND)
    assert done.returncode == 0, done.stderr
    return done.stdout, (folder / "trace.txt").read_text(encoding="utf-8")


def as_on_the_page(text: str, folder: Path) -> list[str]:
    """In words: without the folder, and without the time, which is another one each time."""
    return re.sub(r"\b\d+\.\d{6}\b", "TIME", text.replace(f"{folder.resolve()}/", "")).split()


def test_the_text_of_a_recording_begins_with_what_the_page_shows(tmp_path: Path) -> None:
    printed, text = traced(folder_with("service.py", tmp_path))
    assert printed == SERVED
    assert text.startswith("<Recording ")
    found = text.partition("\n\n")[2].partition("\n\nContexts:\n")[0]
    assert as_on_the_page(found, tmp_path) == as_on_the_page(ANSWERED, tmp_path)


def test_without_a_default_debug_mode_says_the_same(tmp_path: Path) -> None:
    program = folder_with("service.py", tmp_path) / "service.py"
    program.write_text(program.read_text(encoding="utf-8").replace(', default="nobody"', ""), encoding="utf-8")
    done = run_python(["-X", "dev", "-m", "contextvars_cy", "run", "service.py"], tmp_path, BACKEND)
    assert "LookupError" in done.stderr
    answer = re.findall(r"user is unset here: .* stays there", " ".join(as_on_the_page(ANSWERED, tmp_path)))
    assert len(answer) == 1
    assert answer[0] in " ".join(as_on_the_page(done.stderr, tmp_path))


def test_the_mended_program_does_what_the_page_says(tmp_path: Path) -> None:
    printed, text = traced(folder_with("mended.py", tmp_path))
    assert printed == MENDED
    assert "Contexts:\n" in text and "Reads of unset" not in text and "Leaks:" not in text
    options = ["-p", "pytest_contextvars_cy", "-p", "no:cacheprovider", "--contextvars-leaks=error"]
    done = run_python(["-m", "pytest", *options, "test_service.py"], tmp_path, BACKEND)
    assert "1 passed" in done.stdout, done.stdout


def test_the_test_says_of_the_program_as_it_was_why_it_fails(tmp_path: Path) -> None:
    command = ["-m", "contextvars_cy", "run", "-m", "pytest", "-p", "no:cacheprovider", "test_service.py"]
    done = run_python(command, folder_with("service.py", tmp_path), BACKEND)
    assert "1 failed" in done.stdout, done.stdout
    (line,) = re.findall(r"^E +AssertionError: .*$", done.stdout, re.MULTILINE)
    assert as_on_the_page(line, tmp_path) == as_on_the_page(FAILED, tmp_path)


def test_the_page_shows_the_lines_that_are_mended() -> None:
    old, new = ((EXAMPLE / name).read_text(encoding="utf-8").splitlines() for name in ("service.py", "mended.py"))
    changed = [
        number
        for tag, _, _, begin, end in difflib.SequenceMatcher(None, old, new).get_opcodes()
        if tag != "equal"
        for number in range(begin, end)
    ]
    first, last = (
        number for number, line in enumerate(new) if line.startswith(("async def endpoint", "async def conn"))
    )
    shown = [number - first + 1 for number in changed if first <= number < last]
    (emphasized,) = re.findall(r":emphasize-lines: (.*)", PAGE)
    ranges = [[int(number) for number in part.split("-")] for part in emphasized.split(", ")]
    assert [number for part in ranges for number in range(part[0], part[-1] + 1)] == shown
    # Above them only the docstring and the import, which the text tells of.
    assert [new[number] for number in changed if number < first and number and new[number]] == re.findall(
        r"the import `(.*)`", PAGE
    )
    # What the text says of single lines.
    lines = {number: line.strip() for number, line in enumerate(old, 1)}
    assert "user.get()" in lines[32] and lines[18].startswith("user.set(") and "create_task" in lines[25]
    assert new[28].strip() == "task.add_done_callback(running.discard)" and "Line 29 mends the leak" in PAGE


def measures(picture: Path) -> tuple[int, int, tuple[int, int, int]]:
    """Of a PNG file: its width and height, and the colour of its first pixel."""
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    packed, at = b"", 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        packed += data[at + 8 : at + 8 + length] if data[at + 4 : at + 8] == b"IDAT" else b""
        at += length + 12
    # Behind the number of the line's filter, of which none changes the first pixel of the first line.
    red, green, blue = zlib.decompress(packed)[1:4]
    return width, height, (red, green, blue)


def test_the_pictures_can_be_made_again(tmp_path: Path) -> None:
    pictures.make(tmp_path)
    names = {picture.name for picture in tmp_path.iterdir()}
    assert names == {picture.name for picture in pictures.PICTURES.iterdir()}
    assert names == set(re.findall(r"^\[\w+\]: pictures/(.*)$", PAGE, re.MULTILINE))
    light, dark = (247, 247, 245), (19, 20, 22)
    for name in names:
        expected = (pictures.WIDTH, pictures.HEIGHT, dark if name == "finding-set.png" else light)
        for picture in (tmp_path / name, pictures.PICTURES / name):
            assert measures(picture) == expected
            assert picture.stat().st_size < 200_000


def test_the_pictures_do_not_show_where_they_were_made(tmp_path: Path) -> None:
    page = pictures.recorded(tmp_path).read_text(encoding="utf-8")
    assert '"files":["service.py"]' in page and str(tmp_path.resolve()) not in page


def test_a_picture_of_something_else_is_not_taken(tmp_path: Path) -> None:
    with pictures.chromium() as browser:
        browser.get(pictures.recorded(tmp_path).as_uri())
        with pytest.raises(RuntimeError, match="the page shows 'Variables', and not 'set: user'"):
            pictures.Camera(browser, tmp_path).take("finding-set.png", "set: user")
    assert not (tmp_path / "finding-set.png").exists()
