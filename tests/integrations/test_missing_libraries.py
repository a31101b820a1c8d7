"""An integration whose library is missing says which extra brings it."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextvars_cy.integrations._needed import needed
from helpers import run_python

INTEGRATIONS = sorted(
    path.stem for path in (Path(__file__).parents[2] / "contextvars_cy" / "integrations").glob("[a-z]*.py")
)
# They meet a protocol, and import no library.
OF_NO_LIBRARY = {"asgi", "wsgi"}


@pytest.mark.parametrize("name", sorted(set(INTEGRATIONS) - OF_NO_LIBRARY))
def test_a_missing_library_is_an_error_that_names_the_extra(name: str, tmp_path: Path) -> None:
    # Without the packages that are installed.
    program = f"""
import sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path] + [{str(Path(__file__).parents[2])!r}]
try:
    import contextvars_cy.integrations.{name}
except ImportError as error:
    print(error)
"""
    done = run_python(["-c", program], tmp_path)
    assert f'pip install "contextvars-cy[{name}]"' in done.stdout, done.stderr


def test_an_error_inside_of_the_library_is_left_as_it_is() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'inner_part_of_it'"):
        with needed("dask"):
            raise ModuleNotFoundError("No module named 'inner_part_of_it'", name="inner_part_of_it")
