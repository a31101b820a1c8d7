"""Programs run in a process of their own, so that one which kills its process, or never ends, can be reported too."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import search
from .machine import Program
from .programs import shrink

PROGRESS_SECONDS = 60
# Without a sign of life; a program takes milliseconds. The second is for the many tries of making it smaller.
HANGS_AFTER_SECONDS, HANGS_AGAIN_AFTER_SECONDS = 60, 5
SHRINKS_FOR_SECONDS = 300


@dataclass
class Outcome:
    count: int = 0  # of programs
    program: Program | None = None  # the last one
    wrong: list[str] | None = None  # what is wrong with it, in words
    survived: bool = False


def run_search(kind: str, seed: int, seconds: float) -> Outcome:
    """Random programs of one kind, until the time is over or something is wrong with one."""
    began = told = time.monotonic()

    def tell(count: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > PROGRESS_SECONDS:
            told = now
            print(f"{kind}: {count} programs in {now - began:.0f} of {seconds:.0f} s", file=sys.stderr)

    outcome = supervise(HANGS_AFTER_SECONDS, search.search, kind, seed, seconds, tell=tell)
    if outcome.survived or outcome.program is None:
        return outcome

    def fails(candidate: Program) -> bool:
        again = supervise(HANGS_AGAIN_AFTER_SECONDS, search.replay, kind, candidate, True)
        return bool(again.wrong) and again.program is not None

    outcome.program = shrink(outcome.program, fails, SHRINKS_FOR_SECONDS)
    return outcome


def run_again(kind: str, program: Program) -> Outcome:
    return supervise(HANGS_AFTER_SECONDS, search.replay, kind, program)


def supervise(patience: float, work: Callable[..., None], *args: Any, tell: Callable[[int], object] = int) -> Outcome:
    """Makes a process do the work, and waits while it gives signs of life."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(sender, *args))
    process.start()
    sender.close()
    outcome, heard = Outcome(), True
    # OSError is the end of a process in the middle of a message.
    with contextlib.suppress(EOFError, OSError):
        while outcome.wrong is None and (heard := receiver.poll(patience)):
            outcome.count, outcome.program, outcome.wrong = receiver.recv()
            tell(outcome.count)
    outcome.survived = outcome.wrong is not None
    # A program can leave a thread for which its process waits.
    process.join(patience if heard else 0)
    if process.exitcode is None:
        # Python answers with the stacks of its threads.
        os.kill(process.pid or 0, signal.SIGABRT)
        process.join()
        outcome.wrong = [*(outcome.wrong or []), "It does not end. The stacks of its threads are above."]
    elif outcome.wrong is None:
        outcome.wrong = [f"Its process died with exit code {process.exitcode}. What it said is above."]
    return outcome
