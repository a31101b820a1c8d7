"""Reports for two customers, computed on one cluster: every task knows for whom it works.

The customer is a context variable. Both customers compute the same collection at the same time, on the same workers,
and each gets its own result, although to dask a key is a result. One of the workers is killed in between: what is
computed again is computed for the same customer.

It prints:

    acme: 3 rows for acme, 5 rows for acme, 8 rows for acme
    globex: 3 rows for globex, 5 rows for globex, 8 rows for globex
    nobody: 1 rows for nobody
    what a task submits: 2 rows for acme
"""

from __future__ import annotations

import os
import signal
from typing import Any

import distributed
from dask.delayed import delayed

from contextvars_cy import ContextVar, travel
from contextvars_cy.integrations.dask import Client, connect

CUSTOMER = ContextVar("CUSTOMER", default="nobody")
# The workers import this module too.
travel.register(CUSTOMER, "customer")


def count(rows: int) -> str:
    # Deep inside, where nobody hands the customer on.
    return f"{rows} rows for {CUSTOMER.get()}"


def join(lines: list[str]) -> str:
    return ", ".join(lines)


def delegate(rows: int) -> str:
    # The client that a worker makes for its tasks is distributed's own.
    client = connect(distributed.get_client(), audience="process")
    result: str = client.submit(count, rows).result()
    return result


def main() -> None:
    cluster: Any = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50)
    with cluster, Client(cluster) as client:
        report = delayed(join)([delayed(count)(rows) for rows in (3, 5, 8)])
        reports = {}
        for customer in ["acme", "globex"]:
            with CUSTOMER.set(customer):
                reports[customer] = client.compute(report)
        os.kill(cluster.workers[0].process.pid, signal.SIGKILL)
        for customer, future in reports.items():
            print(f"{customer}: {future.result()}")
        print("nobody:", client.submit(count, 1).result())
        with CUSTOMER.set("acme"):
            future = client.submit(delegate, 2)
        print("what a task submits:", future.result())


if __name__ == "__main__":
    main()
