"""What a header brings to a server or a worker, whatever stands in it."""

from __future__ import annotations

import logging
from typing import Any

from .. import ContextVar
from ..travel import HEADER, Audience, entries_of, text_of, values_of

logger = logging.getLogger("contextvars_cy.travel")


def arrived(header: Any, audience: Audience) -> dict[ContextVar[Any], Any]:
    """Return what the header brings. What is broken in it is left out, and logged.

    It is no TravelWarning, because a stranger can send anything: where warnings are errors, each broken header would
    fail its request, or bring nothing of what is whole.
    """
    problems: list[str] = []
    values = values_of(entries_of(text_of(header, problems), audience, problems), problems)
    if problems:
        logger.warning("values of a %s header are left out: %.500s", HEADER, "; ".join(problems))
    return values
