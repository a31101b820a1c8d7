"""Libraries leave sockets to the collector, whose warning would hit whichever test happens to run then."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore::ResourceWarning")
