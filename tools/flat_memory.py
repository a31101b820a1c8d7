"""Sets, resets, copies and runs ten million times on this backend and host, and tells whether memory grew.

CONTEXTVARS_CY_BACKEND=cython CONTEXTVARS_CY_HOST=native python tools/flat_memory.py
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import contextvars_cy
from contextvars_cy import ContextVar, copy_context

VARIABLES: list[ContextVar[int]] = [ContextVar(f"variable {number}") for number in range(40)]
OPERATIONS, ROUNDS = 10_000_000, 10


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
    print(f"{contextvars_cy.backend} backend, {contextvars_cy.host} host, {OPERATIONS:,} operations")
    work(OPERATIONS // 100)
    memory()
    resident, blocks = memory()
    print(f"after the first hundredth: {resident:,} KiB, {blocks:,} blocks")
    for number in range(1, ROUNDS + 1):
        work(OPERATIONS // ROUNDS)
        new_resident, new_blocks = memory()
        print(
            f"{OPERATIONS * number // ROUNDS:>12,}: {new_resident - resident:+,} KiB, {new_blocks - blocks:+,} blocks",
            flush=True,
        )
    # The tool's own lists and texts are a few blocks; one left behind by each operation would be millions.
    if new_blocks - blocks > OPERATIONS // 10_000 or new_resident - resident > 1024:
        sys.exit("memory grew")


if __name__ == "__main__":
    main()
