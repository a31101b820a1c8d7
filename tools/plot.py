"""Make a Markdown page and an SVG plot of what tools/bench.py measured, beside the file that holds it.

python tools/plot.py docs/benchmarks/map.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import bench

try:
    import matplotlib
    import pyperf
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, StrMethodFormatter
except ImportError as error:
    sys.exit(f"{error.name} is missing, run: pip install contextvars_cy[bench]")

# Okabe and Ito's colours, which the colour-blind can tell apart; the shapes are for those who print in black and white.
STYLES = {
    "cython": {"color": "#D55E00", "marker": "o"},
    "pure": {"color": "#E69F00", "marker": "s"},
    "immutables": {"color": "#0072B2", "marker": "^"},
    "immutables-py": {"color": "#56B4E9", "marker": "v"},
    "rpds": {"color": "#009E73", "marker": "D"},
    "pyrsistent": {"color": "#CC79A7", "marker": "P"},
    "dict": {"color": "#000000", "marker": "x"},
}


def describe(suite: pyperf.BenchmarkSuite) -> list[str]:
    """Return what was measured, where and how."""
    metadata = suite.get_metadata()
    versions = {}
    for benchmark in suite:
        own = benchmark.get_metadata()
        versions[own["implementation"]] = f"{own['implementation']} {own.get('version', '')}".strip()
    begin, _ = suite.get_dates()
    python = f"{metadata['python_implementation']} {metadata['python_version']}"
    machine = f"{metadata.get('cpu_model_name', 'unknown processor')}, {metadata['platform']}"
    return [
        f"Measured by `{metadata['command']}` on {begin:%Y-%m-%d}; what each operation does stands there.",
        f"{python}, {machine}; {', '.join(versions.values())}.",
    ]


def format_page(title: str, suite: pyperf.BenchmarkSuite, results: bench.Results) -> str:
    """Return the Markdown: a table for each kind of keys, and the goals."""
    names = [name for name in bench.IMPLEMENTATIONS if any(name in values for values in results.values())]
    columns = ["operation", "size", *bench.format_header(names)]
    lines = [f"# {title}", "", *describe(suite), bench.LEGEND, "", f"![numbers over sizes]({title}.svg)"]
    for keys in bench.KEYS:
        cells = [cell for cell in results if cell.keys == keys]
        if cells:
            lines += ["", f"## {keys} keys", "", f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
        for cell in sorted(cells, key=lambda cell: (list(bench.STATEMENTS).index(cell.operation), cell.size)):
            numbers = bench.format_cell(cell.operation, results[cell], names)
            lines.append(f"| {cell.operation} | {cell.size} | {' | '.join(numbers)} |")
    goals = [f"- {line}" for line in bench.format_goals(results)]
    if goals:
        lines += ["", "## Goals", "", *goals]
    return "\n".join(lines) + "\n"


def draw(results: bench.Results) -> Figure:
    """Return small multiples: a row for each operation, a column for each kind of keys."""
    rows = [operation for operation in bench.STATEMENTS if any(cell.operation == operation for cell in results)]
    columns = [keys for keys in bench.KEYS if any(cell.keys == keys for cell in results)]
    sizes = sorted({cell.size for cell in results})
    figure = Figure(figsize=(1 + 3 * len(columns), 1 + 1.9 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), sharex=True, sharey="row", squeeze=False)
    labels = {}
    for operation, panels in zip(rows, grid):
        unit, factor = bench.unit_of(operation)
        panels[0].set_ylabel(f"{operation}\n{unit}")
        for keys, panel in zip(columns, panels):
            panel.set(xscale="log", yscale="log")
            panel.minorticks_off()
            panel.xaxis.set(ticks=sizes, major_formatter=EngFormatter(sep=""))
            panel.yaxis.set(major_locator=LogLocator(subs=(1, 3)), major_formatter=StrMethodFormatter("{x:,g}"))
            panel.grid(color="#DDDDDD")
            cells = sorted(cell for cell in results if cell[:2] == (operation, keys))
            for name, style in STYLES.items():
                shown = [cell for cell in cells if name in results[cell]]
                numbers = [statistics.median(results[cell][name]) * factor for cell in shown]
                width = 2.2 if name in bench.RIVALS else 1.2
                if shown:
                    (labels[name],) = panel.plot(
                        [cell.size for cell in shown], numbers, label=name, linewidth=width, markersize=5, **style
                    )
    for keys, panel in zip(columns, grid[0]):
        panel.set_title(f"{keys} keys")
    for panel in grid[-1]:
        panel.set_xlabel("entries")
    figure.legend(labels.values(), labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Make a table (.md) and a plot (.svg) beside a file of tools/bench.py."
    )
    parser.add_argument("file", type=Path, metavar="FILE.json", help="what tools/bench.py --output wrote")
    path = parser.parse_args().file
    try:
        suite = pyperf.BenchmarkSuite.load(str(path))
        results = bench.read_results(suite)
        page = format_page(path.stem, suite, results)
        path.with_suffix(".md").write_text(page, encoding="utf-8")
        # Text stays text, and the same numbers give the same file.
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
            draw(results).savefig(path.with_suffix(".svg"), metadata={"Date": None})
    except OSError as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        parser.exit(1, f"{parser.prog}: error: {path} is no file that tools/bench.py wrote: {error!r}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
