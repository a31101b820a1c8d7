"""The examples run, without a warning, and print what they are to print."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRINTED = {
    "inheriting_threads.py": """\
acme sales: rendered page 1
acme sales: rendered page 2
acme sales: stored 3000 bytes
acme sales: archived
acme -: cleaned up
globex stock: rendered page 1
globex stock: rendered page 2
globex stock: stored 3000 bytes
globex stock: archived
globex -: cleaned up
- -: done
""",
    "returning_values.py": """\
/ada: answered, ada (without apply: nobody)
  set: QUERIES=3, USER=ada
/slow: stopped, slow (without apply: nobody)
  set: QUERIES=1, USER=slow
/bob: answered, bob (without apply: nobody)
  set: QUERIES=3, USER=bob
""",
}


@pytest.mark.parametrize("name", PRINTED)
def test_it_prints_what_it_is_to_print(name):
    example = ROOT / "examples" / name
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if "import asyncio" in example.read_text(encoding="utf-8"):
        # The thread host does not follow event loops.
        environment["CONTEXTVARS_CY_HOST"] = "native"
    command = [sys.executable, "-W", "error", str(example)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == (PRINTED[name], "")
