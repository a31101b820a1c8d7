"""Teaches `pprint` to print big maps and sets over many lines."""

from __future__ import annotations

from typing import Any

from .._hamt.set import HamtSet
from .._hamt.twin import Hamt


def adapt_pprint(pprint: Any) -> None:
    # It is not public. A Python without it prints them in one line, as everything that it does not know.
    dispatch = getattr(pprint.PrettyPrinter, "_dispatch", {})
    dispatch[Hamt.__repr__] = _print_map
    dispatch[HamtSet.__repr__] = _print_set


def _print_map(printer: Any, hamt: Any, stream: Any, indent: int, allowance: int, context: Any, level: int) -> None:
    stream.write("Hamt(")
    printer._format(dict(hamt), stream, indent + len("Hamt("), allowance + 1, context, level)
    stream.write(")")


def _print_set(printer: Any, elements: Any, stream: Any, indent: int, allowance: int, context: Any, level: int) -> None:
    stream.write("HamtSet(")
    printer._format(set(elements), stream, indent + len("HamtSet("), allowance + 1, context, level)
    stream.write(")")
