"""The demo follows each order through all of its hops, and its table notices what it is there for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import demo_travel
from helpers import run_python

DEMO = Path(demo_travel.__file__)


@pytest.fixture
def lines() -> list[dict[str, Any]]:
    """A faultless log of ten orders, which each test then spoils in its own way."""
    return [
        {"hop": hop, "order": order, **demo_travel.wanted(order)} for order in range(10) for hop in demo_travel.HOPS
    ]


def test_all_hops_have_the_values_of_their_orders(tmp_path: Path) -> None:
    done = run_python([DEMO, "--orders", 20, "--concurrency", 4], tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    log, _, rows = done.stdout.partition("\n\n")
    assert [line.split()[0] for line in log.splitlines()[1:8]] == ["request-1"] * 7
    # The request ids of four orders in five, and a tenant for each.
    assert [line.split()[-4:] for line in rows.splitlines()[1:]] == [["36", "36", "0", "0"]] * len(demo_travel.HOPS)


def test_a_faultless_log(lines: list[dict[str, Any]]) -> None:
    rows, wrong = demo_travel.table(lines, 10)
    assert wrong == 0 and rows[1].split() == ["shop", "18", "18", "0", "0"]


@pytest.mark.parametrize(
    ("order", "changes", "row"),
    [
        (1, {"request_id": "-"}, "18 17 0 0"),
        (1, {"request_id": "request-2"}, "18 17 1 0"),
        (1, {"tenant": "a stranger"}, "18 17 1 0"),
        (5, {"request_id": "request-2"}, "18 18 0 1"),
    ],
    ids=["lost", "mixed up", "believed", "leaked"],
)
def test_what_is_wrong_is_counted(order: int, changes: dict[str, str], row: str, lines: list[dict[str, Any]]) -> None:
    for line in lines:
        if (line["hop"], line["order"]) == ("queue", order):
            line.update(changes)
    rows, wrong = demo_travel.table(lines, 10)
    assert wrong > 0 and rows[1 + demo_travel.HOPS.index("queue")].split() == ["queue", *row.split()]


def test_a_hop_without_a_line_is_wrong(lines: list[dict[str, Any]]) -> None:
    _, wrong = demo_travel.table([line for line in lines if line["hop"] != "cluster"], 10)
    assert wrong == 18
