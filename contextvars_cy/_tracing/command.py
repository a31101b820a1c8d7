"""`python -m contextvars_cy trace`: run a program as `run` does, and write a recording of it."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence

from .._install.children import hold_in_children
from .._install.install import install
from .._install.run import become, refuse
from .recorder import LIMIT, Recorder
from .recording import Recording

FORMATS = {"html": "trace.html", "json": "trace.json", "text": "trace.txt"}


def trace(program: list[str], as_module: bool, only: Sequence[str], format: str, output: str | None) -> None:
    output = os.path.abspath(output or FORMATS[format])
    install()
    hold_in_children()
    sys.argv[:] = program
    recorder, process = Recorder(only or None, LIMIT), os.getpid()
    recording = recorder.__enter__()

    def end() -> None:
        # A child that the program has forked may end here as well.
        if os.getpid() == process:
            recorder.__exit__(None, None, None)
            _write(recording, format, output)

    def begin() -> None:
        try:
            # Before the program has run for an hour; and what was there is no recording of this run.
            open(output, "w", encoding="utf-8").close()
        except OSError as error:
            refuse(f"the recording cannot be written: {error}")
        # After the program's threads, and after what it has registered itself.
        atexit.register(end)

    become(program, as_module, begin)


def _write(recording: Recording, format: str, output: str) -> None:
    text = {"html": recording.to_html, "json": recording.to_json, "text": recording.to_text}[format]()
    with open(output, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    dropped = f", the newest of {recording.count}" if recording.dropped else ""
    print(f"{len(recording.events)} events{dropped}, written to {output}", file=sys.stderr)
