"""Count the processor's instructions for an operation on context variables, which do not move with the machine's load.

    python tools/instructions.py
    python tools/instructions.py --operation "set, reset" run

Each statement of `tools/bench.py contexts` runs under valgrind (`apt-get install valgrind`), in its own process, so
many times and three times as many; the difference, less an empty loop, is the cost of the operation. It includes the
interpreter's work for the statement.
"""

from __future__ import annotations

import argparse
import contextvars
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.context_operations import OPERATIONS, own_statements

IMPLEMENTATIONS = {
    "stdlib": ("contextvars", {}),
    "cython-thread": ("contextvars_cy", {"CONTEXTVARS_CY_BACKEND": "cython", "CONTEXTVARS_CY_HOST": "thread"}),
    "cython-native": ("contextvars_cy", {"CONTEXTVARS_CY_BACKEND": "cython", "CONTEXTVARS_CY_HOST": "native"}),
}
# The rows of docs/performance.md.
USUAL = ["get, of 8", "get default", "switch, get", "set", "set, reset", "with set", "assign", "copy_context", "run"]
USUAL += ["context[var]"]
FEWER, MORE = 1000, 3000
TOTAL = re.compile(r"Collected : (\d+)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operation", nargs="+", choices=OPERATIONS, default=USUAL, metavar="OPERATION")
    options = parser.parse_args()
    try:
        subprocess.run(["valgrind", "--version"], check=True, capture_output=True)
    except FileNotFoundError:
        sys.exit("valgrind is missing, run: apt-get install valgrind")
    empty = per_loop("stdlib", "pass")
    print(
        f"Instructions an operation, CPython {sys.version.split()[0]}; in brackets the standard library's over these."
    )
    print(f"{'operation':20}" + "".join(f"{name:>20}" for name in IMPLEMENTATIONS))
    for name in options.operation:
        operation = OPERATIONS[name]
        counts = []
        for implementation in IMPLEMENTATIONS:
            own = own_statements(contextvars) if implementation == "stdlib" else {}
            statement = (own.get(name) or operation.statement).format(items=operation.items)
            counts.append((per_loop(implementation, statement) - empty) / operation.items)
        cells = [
            f"{count:.0f}" + (f" ({counts[0] / count:.2f})" if index else "") for index, count in enumerate(counts)
        ]
        print(f"{name:20}" + "".join(f"{cell:>20}" for cell in cells), flush=True)
    return 0


def per_loop(implementation: str, statement: str) -> float:
    return (count(implementation, statement, MORE) - count(implementation, statement, FEWER)) / (MORE - FEWER)


def count(implementation: str, statement: str, loops: int) -> int:
    """The instructions of a process that runs the statement in a loop, in a Context of 8 variables."""
    module, environment = IMPLEMENTATIONS[implementation]
    variables = Path(__file__).parent / "benchmarks" / "variables.py"
    body = "\n".join(f"        {line}" for line in statement.splitlines())
    program = "\n".join(
        [
            "import gc, sys",
            f"import {module} as module",
            "sys.modules['contextvars'] = module",
            f"exec(compile(open({str(variables)!r}).read(), 'variables.py', 'exec'))",
            "gc.disable()",
            "def loop(loops):",
            "    for _ in range(loops):",
            body,
            f"filled(8).run(lambda: (loop(200), loop({loops})))",
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", sys.executable, "-c", program]
        # The same addresses and hashes in each process.
        settled = {**os.environ, **environment, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        finished = subprocess.run(command, env=settled, capture_output=True, text=True, check=False)
    found = TOTAL.search(finished.stderr)
    if finished.returncode or not found:
        sys.exit(f"{implementation} could not be counted:\n{finished.stderr[-2000:]}")
    return int(found[1])


if __name__ == "__main__":
    sys.exit(main())
