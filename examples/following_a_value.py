"""A logger's level that follows a variable, into every Context and out again.

python examples/following_a_value.py
"""

from __future__ import annotations

import logging
import sys

from contextvars_cy import Context, ContextVar, WatchEvent, copy_context

VERBOSE: ContextVar[bool] = ContextVar("verbose", default=False)
logger = logging.getLogger("following")


def follow(event: WatchEvent) -> None:
    logger.setLevel(logging.DEBUG if VERBOSE.get() else logging.WARNING)


def work(name: str) -> None:
    logger.debug("%s, in detail", name)
    logger.warning("%s, in short", name)


def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.DEBUG, stream=sys.stdout)
    logger.setLevel(logging.WARNING)
    with VERBOSE.watch(follow):
        work("before")
        with VERBOSE.set(True):
            work("verbose")
            copy_context().run(work, "verbose in a copy")
            Context().run(work, "in an empty Context")
            work("verbose again")
        work("after")


if __name__ == "__main__":
    main()
