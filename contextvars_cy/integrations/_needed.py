"""What an integration says if its library is not installed."""

from __future__ import annotations

from types import TracebackType


class needed:
    """A block of imports, in which a missing library is an ImportError that names the extra.

    An ImportError inside of the library is left as it is.
    """

    def __init__(self, extra: str, *libraries: str) -> None:
        self._extra = extra
        self._libraries = libraries or (extra,)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, ModuleNotFoundError) and error.name in self._libraries:
            raise ImportError(
                f"contextvars_cy.integrations.{self._extra} needs {error.name}, which is not installed: "
                f'pip install "contextvars-cy[{self._extra}]"',
                name=error.name,
            ) from error
