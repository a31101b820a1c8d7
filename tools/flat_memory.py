"""Sets, resets, copies and runs ten million times on this backend and host, and tells whether memory grew.

CONTEXTVARS_CY_BACKEND=cython CONTEXTVARS_CY_HOST=native python tools/flat_memory.py [operations]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path

import contextvars_cy
from contextvars_cy import ContextVar, copy_context

VARIABLES: list[ContextVar[int]] = [ContextVar(f"variable {number}") for number in range(40)]
ROUNDS = 10
# Of fewer, what is left behind would not stand out from the tool's own lists.
LEAST_OPERATIONS = 1_000_000


def work(operations: int) -> None:
    """So many operations; a set, a copy, a run and a reset are four."""
    for number in range(operations // 4):
        var = VARIABLES[number % 40]
        token = var.set(number)
        copy_context().run(var.get)
        var.reset(token)


def memory() -> tuple[int, int]:
    """The process's memory in KiB, and the interpreter's allocated blocks."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024, sys.getallocatedblocks()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operations", type=int, nargs="?", default=10_000_000)
    operations = parser.parse_args().operations
    if operations < LEAST_OPERATIONS:
        parser.error(f"argument operations: {operations:,} are too few to tell; at least {LEAST_OPERATIONS:,}")
    print(f"{contextvars_cy.backend} backend, {contextvars_cy.host} host, {operations:,} operations")
    work(operations // 100)
    memory()
    resident, blocks = memory()
    print(f"after the first hundredth: {resident:,} KiB, {blocks:,} blocks")
    for number in range(1, ROUNDS + 1):
        work(operations // ROUNDS)
        new_resident, new_blocks = memory()
        done = operations * number // ROUNDS
        print(f"{done:>12,}: {new_resident - resident:+,} KiB, {new_blocks - blocks:+,} blocks", flush=True)
    # The tool's own lists and texts are a few blocks; one left behind by each operation would be millions.
    if new_blocks - blocks > operations // 10_000 or new_resident - resident > 1024:
        sys.exit("memory grew")


if __name__ == "__main__":
    main()
