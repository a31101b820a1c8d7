"""Running Python in a process of its own, as a user would: in a folder and an environment that the test decides."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

# Only a process that hangs is meant to reach this limit.
TIMEOUT_SECONDS = 600


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """This process's environment without what steers contextvars_cy or Python, and then the changes; None removes."""
    names = [name for name in os.environ if not name.startswith(("CONTEXTVARS_CY_", "PYTHON")) or name == "PYTHONPATH"]
    merged = {**{name: os.environ[name] for name in names}, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


def run_python(
    arguments: Iterable[object],
    cwd: str | Path,
    env: Mapping[str, str | None] | None = None,
    input: str = "",
    python: str | Path = sys.executable,
) -> subprocess.CompletedProcess[str]:
    """Run the interpreter with these arguments, not from the repository's folder: the installed package is the one
    that is tested."""
    return subprocess.run(
        [str(python), *map(str, arguments)],
        cwd=cwd,
        env=environment(env),
        input=input,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
