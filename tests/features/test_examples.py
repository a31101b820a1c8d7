"""The examples run, without a warning, and print what they are to print."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRINTED = {
    "cleaning_up.py": """\
the first row is 0
rows of users was ended in another task, where the span is: no span > first row > rows of users
and here is no span
""",
    "current_proxy.py": """\
/home: ada came in
/home: ada read a file
/home: ada may look
/admin: grace came in
/admin: grace read a file
/admin: grace may delete
/about: barbara came in
/about: barbara read a file
/about: barbara may look
no request: nobody did nothing
""",
    "errors_of_a_request.py": """\
[1, -2, -3]: a price of -2, a price of -3
[4, 5]: fine
[-6]: a price of -6
errors outside of the requests: False
""",
    "following_a_value.py": """\
before, in short
verbose, in detail
verbose, in short
verbose in a copy, in detail
verbose in a copy, in short
in an empty Context, in short
verbose again, in detail
verbose again, in short
after, in short
""",
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
    "isolated_generators.py": """\
acme: cursor opened
globex: cursor opened
server: sent row 0 of acme
server: sent row 0 of globex
server: sent row 1 of acme
server: all sent
globex: cursor closed
acme: cursor closed
""",
    "one_job_after_another.py": """\
acme, ada: signed in
acme, nobody: failed: there is no paper
acme, nobody: did cleaning
globex, grace: signed in
globex, nobody: failed: there is no paper
globex, nobody: did cleaning
""",
    "returning_values.py": """\
/ada: answered, ada (without apply: nobody)
  set: QUERIES=3, USER=ada
/slow: stopped, slow (without apply: nobody)
  set: QUERIES=1, USER=slow
/bob: answered, bob (without apply: nobody)
  set: QUERIES=3, USER=bob
""",
    "values_in_processes.py": """\
r1: 3 words, counted in the pool
r2: 2 words, counted in the pool
-: 1 words, counted in the pool
r3: 4 words, counted in a process
6 words were counted in the pool
""",
}
if sys.implementation.name != "cpython":
    # A generator that nobody holds is closed there at some later time.
    del PRINTED["cleaning_up.py"], PRINTED["isolated_generators.py"]


@pytest.mark.parametrize("name", PRINTED)
def test_it_prints_what_it_is_to_print(name: str) -> None:
    example = ROOT / "examples" / name
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if "import asyncio" in example.read_text(encoding="utf-8"):
        # The thread host does not follow event loops.
        environment["CONTEXTVARS_CY_HOST"] = "native"
    command = [sys.executable, "-W", "error", str(example)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == (PRINTED[name], "")
