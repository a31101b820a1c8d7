"""Make a Markdown page and an SVG plot of what tools/bench.py measured, beside the file that holds it.

python tools/plot.py docs/benchmarks/map.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks import contexts, maps
from benchmarks.context_implementations import IMPLEMENTATIONS
from benchmarks.context_operations import GOALS
from benchmarks.measuring import Table

try:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, StrMethodFormatter
except ImportError as error:
    sys.exit(f"{error.name} is missing, run: pip install --group bench")

# Okabe and Ito's colours, which the colour-blind can tell apart; the shapes are for those who print in black and white.
STYLES: dict[str, dict[str, Any]] = {
    "cython": {"color": "#D55E00", "marker": "o"},
    "pure": {"color": "#E69F00", "marker": "s"},
    "immutables": {"color": "#0072B2", "marker": "^"},
    "immutables-py": {"color": "#56B4E9", "marker": "v"},
    "rpds": {"color": "#009E73", "marker": "D"},
    "pyrsistent": {"color": "#CC79A7", "marker": "P"},
    "spork": {"color": "#F0E442", "marker": "*"},
    "pcollections": {"color": "#999999", "marker": "h"},
    "dict": {"color": "#000000", "marker": "x"},
    "cython-thread": {"color": "#D55E00", "marker": "o"},
    "cython-native": {"color": "#0072B2", "marker": "o"},
    "pure-thread": {"color": "#E69F00", "marker": "s"},
    "pure-native": {"color": "#56B4E9", "marker": "s"},
    "backport": {"color": "#009E73", "marker": "D"},
    "extracontext": {"color": "#CC79A7", "marker": "P"},
    "threading.local": {"color": "#000000", "marker": "x"},
}
# The rows that the README shows.
OVERVIEW = ["get, of 8", "get default", "set", "with set", "assign", "copy_context", "run", "service"]
KINDS: dict[str, Any] = {"map": maps, "contexts": contexts}


def format_page(title: str, table: Table) -> str:
    """Return the Markdown: what was measured, where and how, the tables, and the goals."""
    about, kind = table.about, KINDS[table.about["kind"]]
    versions = ", ".join(f"{name} {version}".strip() for name, version in about["versions"].items())
    lines = [
        f"# {title}",
        "",
        f"Measured by `{about['command']}` on {about['date']}; what each operation does stands there.",
        f"{about['python']}, {about['machine']}; {versions}.",
        kind.LEGEND,
        "",
        f"![{kind.PLOT}]({title}.svg)",
        *kind.format_tables(table),
    ]
    goals = [f"- {line}" for line in kind.format_goals(table)]
    if goals:
        lines += ["", "## Goals", "", *goals]
    return "\n".join(lines) + "\n"


def draw_maps(table: Table) -> Figure:
    """Return small multiples: a row for each operation, a column for each kind of keys."""
    # The page has all of them; twenty rows would hide the plot's shape.
    drawn = [operation for operation in maps.STATEMENTS if ":" not in operation and operation not in maps.SETS]
    rows = [operation for operation in drawn if any(row.operation == operation for row in table.rows)]
    columns = [keys for keys in maps.KEYS if any(row.keys == keys for row in table.rows)]
    sizes = sorted({row.size for row in table.rows})
    figure = Figure(figsize=(1 + 3 * len(columns), 1 + 1.9 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), sharex=True, sharey="row", squeeze=False)
    labels = {}
    for operation, panels in zip(rows, grid):
        unit, factor = maps.unit_of(operation)
        panels[0].set_ylabel(f"{operation}\n{unit}")
        for keys, panel in zip(columns, panels):
            panel.set(xscale="log", yscale="log")
            panel.minorticks_off()
            panel.xaxis.set(ticks=sizes, major_formatter=EngFormatter(sep=""))
            panel.yaxis.set(major_locator=LogLocator(subs=(1, 3)), major_formatter=StrMethodFormatter("{x:,g}"))
            panel.grid(color="#DDDDDD")
            for name, style in STYLES.items():
                shown = {
                    row.size: row.medians[name] * factor
                    for row in sorted(table.rows, key=lambda row: row.size)
                    if (row.operation, row.keys) == (operation, keys) and name in row.medians
                }
                width = 2.2 if name in maps.RIVALS else 1.2
                if shown:
                    (labels[name],) = panel.plot(
                        list(shown), list(shown.values()), label=name, linewidth=width, markersize=5, **style
                    )
    for keys, panel in zip(columns, grid[0]):
        panel.set_title(f"{keys} keys")
    for panel in grid[-1]:
        panel.set_xlabel("entries")
    figure.legend(labels.values(), labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


def draw_contexts(table: Table) -> Figure:
    """Return a line for each operation, with each implementation's speed beside the standard library's."""
    rows = [row for row in table.rows if contexts.STDLIB in row.medians]
    places = {row.operation: -number for number, row in enumerate(rows)}
    figure = Figure(figsize=(9, 1.5 + 0.27 * len(rows)), layout="constrained")
    panel = figure.subplots()
    panel.axvline(1, color="#000000", linewidth=1)
    for name in [name for name in IMPLEMENTATIONS if name != contexts.STDLIB]:
        ratios = {places[row.operation]: row.ratios.get(f"{contexts.STDLIB}/{name}", 0) for row in rows}
        # A difference of two times may come out as less than nothing.
        shown = {place: ratio for place, ratio in ratios.items() if ratio > 0}
        if shown:
            panel.plot(list(shown.values()), list(shown), label=name, linestyle="", markersize=6, **STYLES[name])
    for host in contexts.HOSTS:
        goals = {
            places[operation]: getattr(goal, host)
            for goal in GOALS.values()
            for operation in goal.operations
            if operation in places
        }
        style: dict[str, Any] = {
            "color": STYLES[f"cython-{host}"]["color"],
            "marker": "|",
            "markersize": 12,
            "linestyle": "",
        }
        panel.plot(list(goals.values()), list(goals), label=f"goal, {host} host", **style)
    panel.set(xscale="log", xlabel="the standard library's time over this one: faster is to the right")
    panel.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter=StrMethodFormatter("{x:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_yticks(list(places.values()), list(places))
    panel.set_ylim(-len(rows) + 0.3, 0.7)
    panel.grid(color="#DDDDDD")
    panel.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=5, frameon=False)
    return figure


def draw_overview(table: Table) -> Figure:
    """Return a bar for each of the rows of the README: the compiled backend, on the native host."""
    pair = f"{contexts.STDLIB}/cython-native"
    ratios = {row.operation: row.ratios[pair] for row in table.rows if row.operation in OVERVIEW and pair in row.ratios}
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    panel = figure.subplots()
    bars = panel.barh(list(ratios), list(ratios.values()), color=STYLES["cython-native"]["color"])
    panel.bar_label(bars, fmt="%.2f", padding=3)
    panel.axvline(1, color="#000000", linewidth=1)
    panel.invert_yaxis()
    panel.set(xlabel="times as fast as the standard library", xlim=(0, max(ratios.values()) * 1.1))
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Make a table (.md) and a plot (.svg) beside a file of tools/bench.py."
    )
    parser.add_argument("file", type=Path, metavar="FILE.json", help="what tools/bench.py --output wrote")
    path = parser.parse_args().file
    try:
        table = Table.load(path)
        page = format_page(path.stem, table)
        path.with_suffix(".md").write_text(page, encoding="utf-8")
        # Text stays text, and the same numbers give the same file.
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
            if table.about["kind"] == "map":
                figures = {path.stem: draw_maps(table)}
            else:
                figures = {path.stem: draw_contexts(table)}
                if "cython-native" in table.about["versions"]:
                    figures[f"{path.stem}-overview"] = draw_overview(table)
            for name, figure in figures.items():
                figure.savefig(path.with_name(f"{name}.svg"), metadata={"Date": None})
    except OSError as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        parser.exit(1, f"{parser.prog}: error: {path} is no file that tools/bench.py wrote: {error!r}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
