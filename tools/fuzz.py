"""Run random programs on both twins and on this Python's own contextvars at once, and compare their logs.

Every result, error, and mapping must be the same. If one differs, the program is shrunk and printed with the command
that runs it again, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shlex
import sys
import time
from typing import Any

from fuzzing.kinds import HOSTS, KINDS


def main() -> int:
    options = parse()
    if sys.implementation.name != "cpython":
        print(f"{sys.implementation.name} has a contextvars that differs from CPython's: nothing to compare with.")
        return 0
    # What a process imports is decided before it starts.
    os.environ["CONTEXTVARS_CY_HOST"] = options.host
    os.environ.pop("CONTEXTVARS_CY_BACKEND", None)
    from fuzzing import search, supervision

    if options.replay is not None:
        (kind,) = options.only
        wrong = supervision.run_again(kind, options.replay).wrong
        print(*(wrong or ["The logs are the same."]), sep="\n")
        return 1 if wrong else 0

    print(f"{search.compared()}, on the {options.host} host; seed {options.seed}", flush=True)
    missing = {kind: missing_libraries(kind) for kind in options.only}
    present = [kind for kind in options.only if not missing[kind]]
    results = {}
    print(f"{'kind':14}{'programs':>10}{'differences':>13}{'a second':>10}")
    for kind in present:
        began = time.monotonic()
        outcome = supervision.run_search(kind, options.seed, options.seconds / len(present))
        results[kind] = outcome.count, 1 if outcome.wrong else 0
        rate = outcome.count / (time.monotonic() - began)
        print(f"{kind:14}{outcome.count:10}{results[kind][1]:13}{rate:10.0f}", flush=True)
        if outcome.wrong:
            report(options, kind, outcome.program, outcome.wrong)
    for kind, libraries in missing.items():
        if libraries:
            print(f"{kind:14}  left out: {', '.join(libraries)} not installed")
    count, differences = (sum(column) for column in zip(*results.values())) if results else (0, 0)
    print(f"{'total':14}{count:10}{differences:13}")
    return 1 if differences else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=seconds, default=30, help="for all kinds together (default: 30)")
    parser.add_argument("--seed", type=int, help="the same seed makes the same programs (default: a random one)")
    parser.add_argument("--only", type=kinds, metavar="KIND[,KIND]", help=f"some of: {', '.join(KINDS)}")
    parser.add_argument("--host", choices=HOSTS, default="native", help="which host our twins run on")
    parser.add_argument("--replay", type=program, metavar="PROGRAM", help="run this program alone, of the one kind")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.getrandbits(32)
    if options.only is None:
        options.only = [kind for kind in KINDS if options.host in KINDS[kind].hosts]
    for kind in options.only:
        if options.host not in KINDS[kind].hosts:
            parser.error(f"argument --only: the {options.host} host does not follow {kind}; use --host native")
    if options.replay is not None and len(options.only) != 1:
        parser.error("argument --replay: say with --only of which one kind the program is")
    return options


def seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a length of time")
    return number


def kinds(text: str) -> list[str]:
    chosen = text.split(",")
    for kind in chosen:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r} is not one of {', '.join(KINDS)}")
    return list(dict.fromkeys(chosen))


def program(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not a program as printed after a difference: {error}") from error
    if not isinstance(found, list):
        raise argparse.ArgumentTypeError("a program is a list of operations, as printed after a difference")
    return found


def missing_libraries(kind: str) -> list[str]:
    return [library for library in KINDS[kind].needs if not importlib.util.find_spec(library)]


def report(options: argparse.Namespace, kind: str, program: Any, wrong: list[str]) -> None:
    if program is None:
        lines = [f"No program of the kind {kind} could run:", *wrong]
    else:
        again = [sys.executable, sys.argv[0], "--host", options.host, "--only", kind, "--replay", json.dumps(program)]
        lines = [f"A difference, of the kind {kind}:", *wrong, "To run it again:", f"  {shlex.join(again)}"]
    print("", *lines, "", sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
