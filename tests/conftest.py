"""Which twin on which host the tests run is always said, never left to chance: `make test` runs all four."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import contextvars_cy
from contextvars_cy import travel

# No timing decides a test: machines are shared.
settings.register_profile(
    "contextvars_cy", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
# For tools that make tests slow: pytest --hypothesis-profile=few.
settings.register_profile("few", parent=settings.get_profile("contextvars_cy"), max_examples=30)
settings.load_profile("contextvars_cy")

VARIABLES = ("CONTEXTVARS_CY_BACKEND", "CONTEXTVARS_CY_HOST")


def pytest_configure(config: pytest.Config) -> None:
    unset = [name for name in VARIABLES if not os.environ.get(name)]
    if unset:
        raise pytest.UsageError(f"set {' and '.join(unset)}, or run `make test`, which runs every backend and host")


def pytest_itemcollected(item: pytest.Item) -> None:
    # Their libraries leave sockets to the collector, whose warning would hit whichever test happens to run then.
    if "integrations" in item.path.parts:
        item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))


def pytest_report_header() -> str:
    return f"contextvars_cy: {contextvars_cy.backend} backend, {contextvars_cy.host} host"


@pytest.fixture
def frozen() -> Iterator[None]:
    """A collector that need not look at what there was before, for tests that call it often."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of another test travels."""
    monkeypatch.setattr(travel, "_registered", travel._Registrations())


@pytest.fixture
def context_of_its_own() -> Iterator[None]:
    with contextvars_cy.copy_context():
        yield
