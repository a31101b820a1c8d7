"""Reports for two customers, made in threads: every log line names the customer that it is about.

A log filter reads the customer from a context variable. Where a thread or a pool did not inherit it, the line would say
"-", or name somebody else.
"""

from __future__ import annotations

import logging
import sys
import threading

from contextvars_cy import ContextVar, assign, bind
from contextvars_cy.executors import Thread, ThreadPoolExecutor

CUSTOMER = ContextVar("CUSTOMER", default="-")
REPORT = ContextVar("REPORT", default="-")

logger = logging.getLogger("reports")


class ScopeFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.customer, record.report = CUSTOMER.get(), REPORT.get()
        return True


def render(page: int) -> int:
    # Deep inside, where nobody hands the customer on.
    logger.info("rendered page %d", page)
    return 1000 * page


def make_report(pool: ThreadPoolExecutor, customer: str, report: str) -> None:
    with assign({CUSTOMER: customer, REPORT: report}):
        size = sum(pool.map(render, range(1, 3)))
        future = pool.submit(logger.info, "stored %d bytes", size)
        future.result()

        # Callbacks, timers and threads of others' making do not inherit: what they call is bound.
        timer = threading.Timer(0.01, bind(logger.info), args=["archived"])
        timer.start()
        timer.join()

        # Not whose report it was, but only who the customer is.
        cleaner = Thread(target=bind(logger.info, only=[CUSTOMER]), args=["cleaned up"])
        cleaner.start()
        cleaner.join()


def main() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(ScopeFilter())
    handler.setFormatter(logging.Formatter("%(customer)s %(report)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # One thread, so that the lines come in order: the second customer's work runs where the first one's did.
    with ThreadPoolExecutor(max_workers=1) as pool:
        make_report(pool, "acme", "sales")
        make_report(pool, "globex", "stock")
    logger.info("done")


if __name__ == "__main__":
    main()
