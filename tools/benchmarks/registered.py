"""The variables of travels.py, of which 5 are registered. A pool's processes import this too."""

from __future__ import annotations

from contextvars_cy import ContextVar, travel

VALUES = {
    "request-id": "7f3a1c9e-1b2d-4c55-9a7b-0d7d0c1e2f3a",
    "tenant": "acme",
    "user-name": "ada",
    "locale": "de-AT",
    "attempt": "3",
}
VARIABLES = [ContextVar[str](f"variable {number}") for number in range(100)]
for _var, _name in zip(VARIABLES, VALUES):
    travel.register(_var, _name, audience="public")


def fill() -> None:
    values = [*VALUES.values(), *(f"value {number}" for number in range(len(VALUES), len(VARIABLES)))]
    for var, value in zip(VARIABLES, values):
        var.set(value)
