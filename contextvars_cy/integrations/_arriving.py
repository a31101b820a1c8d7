"""What a client's header brings into a request, whatever stands in it."""

from __future__ import annotations

import logging
from typing import Any

from .. import Assignment, ContextVar, assign
from ..travel import HEADER, Audience, entries_of, values_of

logger = logging.getLogger("contextvars_cy.travel")


def arrived(header: str, audience: Audience) -> dict[ContextVar[Any], Any]:
    """Return what the header brings. What is broken in it is left out, and logged.

    It is no TravelWarning, because a stranger can send anything: where warnings are errors, each broken header would
    fail its request.
    """
    problems: list[str] = []
    values = values_of(entries_of(header, audience, problems), problems)
    if problems:
        logger.warning("values of a request's %s header are left out: %.500s", HEADER, "; ".join(problems))
    return values


def restored(header: str, audience: Audience) -> Assignment:
    """Set what the header brings, and return what undoes that."""
    return assign(arrived(header, audience))
