"""Running Python in a process of its own, as a user would: in a folder and an environment that the test decides."""

import os
import subprocess
import sys

# Only a process that hangs is meant to reach this limit.
TIMEOUT_SECONDS = 600


def environment(changes=None):
    """This process's environment without what steers contextvars_cy or Python, and then the changes; None removes."""
    names = [name for name in os.environ if not name.startswith(("CONTEXTVARS_CY_", "PYTHON")) or name == "PYTHONPATH"]
    merged = {**{name: os.environ[name] for name in names}, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


def run_python(arguments, cwd, env=None, input="", python=sys.executable):
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
