"""Prices in the caller's currency, computed in joblib's processes and threads.

The currency is a context variable. The processes are used again by the next call, which sees nothing of the one before.

It prints:

    loky: 10 EUR, 20 EUR, 30 EUR
    loky: 10 JPY, 20 JPY, 30 JPY
    loky: 10 USD, 20 USD, 30 USD
    threading: 10 EUR, 20 EUR, 30 EUR
    one by one: 10 JPY
    one by one: 20 JPY
"""

from __future__ import annotations

if __name__ == "__main__":
    # joblib's processes import modules, and know nothing of the program that is run.
    import travel_joblib

    travel_joblib.main()
    raise SystemExit

import joblib

from contextvars_cy import ContextVar, travel
from contextvars_cy.integrations.joblib import Parallel

CURRENCY = ContextVar("CURRENCY", default="USD")
travel.register(CURRENCY, "currency")


def price(amount: int) -> str:
    shown = f"{amount} {CURRENCY.get()}"
    # It stays in this task.
    CURRENCY.set("left by a task")
    return shown


def show(backend: str) -> None:
    prices = Parallel(n_jobs=2, backend=backend)(joblib.delayed(price)(amount) for amount in (10, 20, 30))
    print(f"{backend}: {', '.join(prices)}")


def main() -> None:
    for currency in ["EUR", "JPY"]:
        with CURRENCY.set(currency):
            show("loky")
    show("loky")
    with CURRENCY.set("EUR"):
        show("threading")
    with CURRENCY.set("JPY"):
        prices = Parallel(n_jobs=2, return_as="generator")(joblib.delayed(price)(amount) for amount in (10, 20))
    # The values are those of the call.
    for shown in prices:
        print("one by one:", shown)
