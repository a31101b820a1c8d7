"""What a client's header brings into a request, whatever stands in it."""

from __future__ import annotations

import logging
from contextlib import suppress

from .. import Assignment
from ..travel import HEADER, MOST_BYTES, MOST_MEMBERS, Audience, Capsule, TravelError, extract, restore

logger = logging.getLogger("contextvars_cy.travel")


def restored(header: str, audience: Audience) -> Assignment:
    """Set what the header brings. What is broken in it is left out, and logged.

    It is no TravelWarning, because a stranger can send anything: where warnings are errors, each broken header would
    fail its request, and elsewhere Python keeps the text of every warning that it has shown.
    """
    problems: list[str] = []
    try:
        capsule = extract({HEADER: header}, audience=audience, strict=True)
    except TravelError as error:
        problems.append(str(error))
        capsule = _what_is_whole(header, audience)
    try:
        assignment = restore(capsule, strict=True)
    except TravelError as error:
        problems.append(str(error))
        assignment = restore(_what_can_be_decoded(capsule), strict=True)
    if problems:
        # As a literal and cut: it may have line ends, and be long.
        logger.warning("values of a request's %s header are left out: %.500a", HEADER, "; ".join(problems))
    return assignment


def _what_is_whole(header: str, audience: Audience) -> Capsule:
    entries: dict[str, str] = {}
    if len(header) <= MOST_BYTES:
        for member in header.split(",")[:MOST_MEMBERS]:
            with suppress(TravelError):
                # Of doubled ones the first counts.
                entries = {**extract({HEADER: member}, audience=audience, strict=True), **entries}
    return Capsule(entries)


def _what_can_be_decoded(capsule: Capsule) -> Capsule:
    entries: dict[str, str] = {}
    for name, text in capsule.items():
        with suppress(TravelError):
            restore(Capsule({name: text}), strict=True).undo()
            entries[name] = text
    return Capsule(entries)
