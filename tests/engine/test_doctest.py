"""Every public name has a docstring, and every example in one runs."""

from __future__ import annotations

import doctest
from collections.abc import Iterator

import pytest

import contextvars_cy
from contextvars_cy import executors, tracing, travel

NAMES = {
    name: getattr(module, name) for module in (contextvars_cy, executors, tracing, travel) for name in module.__all__
}
PUBLIC = [name for name, value in NAMES.items() if callable(value)]
if contextvars_cy.backend == "cython" and "InterpreterPoolExecutor" in PUBLIC:
    # The tests ask for the compiled backend, which such a pool cannot have.
    PUBLIC.remove("InterpreterPoolExecutor")
FUNCTIONS = ["copy_context", "current_context", "install", "isolated", "thread_state", "uninstall"]


def docstrings(name: str) -> Iterator[tuple[str, str]]:
    """The docstrings under a public name, by dotted path."""
    value = NAMES[name]
    yield name, value.__doc__
    if name not in FUNCTIONS:
        # What a class inherits from the standard library is described there.
        for key in dir(value) if name in contextvars_cy.__all__ else vars(value):
            if not key.startswith("_") and (
                callable(getattr(value, key)) or isinstance(vars(value).get(key), property)
            ):
                yield f"{name}.{key}", getattr(value, key).__doc__


# The test tools have imported what they have.
@pytest.mark.filterwarnings(r"ignore:contextvars_cy\.install\(\) was called")
# So have the threads of pytest's own workers.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.usefixtures("nothing_registered")
@pytest.mark.parametrize("name", PUBLIC)
def test_examples(name: str) -> None:
    runner = doctest.DocTestRunner(verbose=False)
    ran = 0
    with contextvars_cy.copy_context():
        for path, text in docstrings(name):
            assert text, f"{path} has no docstring"
            test = doctest.DocTestParser().get_doctest(text, dict(NAMES), path, None, None)
            ran += len(test.examples)
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    assert ran > 0
