"""The service of examples/request_scope.py as it is written with the standard library's context variables alone.

tools/demo.py starts it. What differs from the example is all that is here.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, Token, copy_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
import request_scope

REQUEST_ID, TENANT, USER, SPAN = (ContextVar(name, default="-") for name in ("request_id", "tenant", "user", "span"))


@contextmanager
def assign(values: dict[ContextVar[str], str]) -> Any:
    tokens = {variable: variable.set(value) for variable, value in values.items()}
    try:
        yield
    finally:
        for variable, token in tokens.items():
            variable.reset(token)


async def rows() -> AsyncIterator[int]:
    token = SPAN.set("rows")
    try:
        for number in range(100):
            await asyncio.sleep(0)
            yield number
    finally:
        SPAN.reset(token)


def authenticate(name: str) -> None:
    USER.set(name)


async def clean_up(token: Token[str], expected: str) -> str:
    SPAN.reset(token)
    return request_scope.log_step("cleanup", expected)


class Service(request_scope.Service):
    def __init__(self) -> None:
        super().__init__()
        self.executor = ThreadPoolExecutor(max_workers=4)

    async def depend(self, name: str, request_id: str) -> str:
        await asyncio.to_thread(copy_context().run, authenticate, name)
        return request_scope.log_step("dependency", request_id)


if __name__ == "__main__":
    for name in ("REQUEST_ID", "TENANT", "USER", "SPAN", "assign", "rows", "authenticate", "clean_up"):
        setattr(request_scope, name, globals()[name])
    request_scope.main(Service)
