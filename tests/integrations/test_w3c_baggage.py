"""Round trips through OpenTelemetry's propagator of the same header, both ways."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, context
from opentelemetry.baggage.propagation import W3CBaggagePropagator

from contextvars_cy import ContextVar, travel

THEIRS = W3CBaggagePropagator()
VARIABLES = {name: ContextVar[str](name) for name in ("request-id", "tenant", "a.b_c~d!", "X")}
# Theirs strips spaces at both ends.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).filter(lambda text: text == text.strip())
ENTRIES = st.dictionaries(st.sampled_from(sorted(VARIABLES)), TEXTS)

pytestmark = pytest.mark.usefixtures("nothing_registered", "context_of_its_own")
# The registrations are the same for every example.
examples = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def registered(nothing_registered: None) -> None:
    for name, var in VARIABLES.items():
        travel.register(var, name, audience="public")


@examples
@given(ENTRIES)
def test_what_we_write_they_read(entries: dict[str, str]) -> None:
    headers: dict[str, str] = {}
    with travel.restore(travel.Capsule(entries)):
        travel.inject(headers, audience="public", strict=True)
    assert baggage.get_all(THEIRS.extract(headers)) == entries


@examples
@given(ENTRIES)
def test_what_they_write_we_read(entries: dict[str, str]) -> None:
    filled = context.Context()
    for name, text in entries.items():
        filled = baggage.set_baggage(name, text, filled)
    headers: dict[str, str] = {}
    THEIRS.inject(headers, filled)
    # They quote names as well, which W3C Baggage does not.
    plain = {name: text for name, text in entries.items() if name != "a.b_c~d!"}
    arrived = dict(travel.extract(headers, audience="public", strict=True))
    assert {name: text for name, text in arrived.items() if name != "a.b_c~d!"} == plain


@examples
@given(ENTRIES, ENTRIES)
def test_their_members_and_ours_in_one_header(ours: dict[str, str], theirs: dict[str, str]) -> None:
    filled = context.Context()
    for name, text in theirs.items():
        filled = baggage.set_baggage(f"their-{name.strip('!')}", text, filled)
    headers: dict[str, str] = {}
    THEIRS.inject(headers, filled)
    with travel.restore(travel.Capsule(ours)):
        travel.inject(headers, audience="public", strict=True)
    both = baggage.get_all(THEIRS.extract(headers))
    assert both == {**ours, **{f"their-{name.strip('!')}": text for name, text in theirs.items()}}
    assert dict(travel.extract(headers, audience="public", strict=True)) == ours


@examples
@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from(["tenant", "=", ",", ";", "%", "%zz", "%ff", "a", " "])).map("".join)
)
def test_what_neither_can_read_is_an_error_of_neither(header: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", travel.TravelWarning)
        travel.restore(travel.extract({"baggage": header}, audience="public")).undo()
    THEIRS.extract({"baggage": header})
