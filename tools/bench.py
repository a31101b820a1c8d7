"""Measure contextvars_cy against its alternatives, and report the goals that it meets and misses.

`map` compares the persistent maps, `contexts` the context variables, `travel` what takes values elsewhere;
tools/benchmarks/maps.py, contexts.py and travels.py spell out each operation.

    python tools/bench.py map --quick
    python tools/bench.py map --output docs/benchmarks/map.json
    python tools/bench.py map --impl pure immutables-py --size 10 1000
    python tools/bench.py contexts --group get set --impl stdlib cython-native

A shared machine changes its speed from one moment to the next. So all implementations take turns in one process, once
in each of many short rounds, and a disturbance slows neighbours alike. A time is the median over the rounds; a ratio is
the median of the rounds' own ratios. A time includes freeing the results, and the garbage collector's work. The JSON
has those medians; tools/plot.py draws it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import contexts, maps, travels
from benchmarks.measuring import BenchError, Row, Table, circumstances

KINDS = {
    "map": (maps, "the persistent maps"),
    "contexts": (contexts, "the context variables"),
    "travel": (travels, "values on their way"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure contextvars_cy beside its alternatives.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (kind, subject) in KINDS.items():
        command = commands.add_parser(name, help=subject, description=f"Compare {subject}.")
        command.add_argument("--impl", nargs="+", choices=kind.IMPLEMENTATIONS, help="implementations")
        kind.add_options(command)
        command.add_argument("--quick", action="store_true", help="fewer rounds, and less of what takes long")
        command.add_argument("--output", type=Path, metavar="FILE.json", help="write a file for tools/plot.py")
    arguments = parser.parse_args()
    kind, _ = KINDS[arguments.command]
    prog = f"{parser.prog} {arguments.command}"

    rows: list[Row] = []
    try:
        names = kind.choose(arguments.impl)
        distributions = {name: kind.IMPLEMENTATIONS[name].distribution for name in names}
        table = Table(circumstances(arguments.command, distributions), rows)
        if arguments.output:
            # Fail now rather than after all measurements.
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.open("a").close()
        for measured in kind.measure(names, arguments):
            rows += measured
            if arguments.output:
                table.save(arguments.output)
        if not rows:
            raise BenchError("none of these implementations has one of these operations")
    except (BenchError, OSError) as error:
        parser.exit(1, f"{prog}: error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{prog}: interrupted\n")
    print("", *kind.format_goals(table), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
