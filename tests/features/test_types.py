# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""What type checkers know of the public names. `make lint` has mypy and pyright read this file, and pytest runs it.

In `wrong` each line is an error to both checkers: of a `type: ignore` that ignores none they complain.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Union

from contextvars_cy import Context, ContextVar, Local, assign, copy_context, current_context, host
from contextvars_cy.executors import ThreadPoolExecutor

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value, kind):
        return value


number = ContextVar("number", default=0)
name: ContextVar[str] = ContextVar("name")


def names(values: Mapping[ContextVar[Any], Any]) -> list[str]:
    return [var.name for var in values]


def test_a_context_is_a_mapping_of_variables() -> None:
    with copy_context() as context, assign({number: 1, name: "ada"}):
        names_of_all: list[str] = names(context)
        assert {"number", "name"} <= set(names_of_all)
        assert names(dict(context)) == names_of_all
        assert_type(context[number], int)
        assert assert_type(context.get(name), Union[str, None]) == "ada"
        assert_type(context.get(name, "nobody"), str)
        assert_type(context.get(name, 1), Union[str, int])
        assert name in context and len(context) == len(names_of_all)


def test_the_parts_of_a_context_have_types() -> None:
    with Context() as context, assign({number: 1}):
        variables: list[str] = [assert_type(var, ContextVar[Any]).name.upper() for var in context]
        assert variables == [var.name.upper() for var in context.keys()] == ["NUMBER"]
        values: Iterator[Any] = context.values()
        assert (len(context.values()), next(values), list(values)) == (1, 1, [])
        for var, value in context.items():
            assert (assert_type(var, ContextVar[Any]).name, value) == ("number", 1)
        keys: Iterator[ContextVar[Any]] = context.keys()
        assert next(keys) is number


class Request(Local):
    path: str = "/"
    user: str

    def __init__(self, size: int) -> None:
        self.size = size

    def shout(self) -> str:
        return self.path.upper()


def user_of(request: Request) -> str:
    return assert_type(request.user, str)


def test_a_local_has_the_types_of_its_class() -> None:
    request = assert_type(Request(3), Request)
    request.user = "ada"
    assert user_of(request) == "ada"
    assert assert_type(request.path, str) == "/" and assert_type(request.size, int) == 3
    assert assert_type(request.shout(), str) == "/"
    request.anything = 1
    del request.anything


def test_a_plain_local_has_any_attribute() -> None:
    local = assert_type(Local(), Local)
    local.user = "ada"
    assert local.user == "ada"
    del local.user


if host == "native" and sys.version_info >= (3, 11):

    def test_a_task_takes_the_native_context() -> None:
        async def child() -> str:
            name.set("grace")
            return name.get()

        async def main() -> None:
            context = current_context().copy()
            assert_type(context.native, contextvars.Context)
            task = asyncio.create_task(child(), context=context.native)
            asyncio.get_running_loop().call_soon(print, context=context.native)
            assert assert_type(await task, str) == context[name] == "grace"

        asyncio.run(main())


def test_a_pool_maps_as_the_standard_library_s() -> None:
    with ThreadPoolExecutor() as pool:
        lengths: Iterator[int] = pool.map(len, ["a", "ab"], timeout=60.0, chunksize=1)
        assert list(lengths) == [1, 2]


def wrong() -> None:
    context, request = copy_context(), Request(3)
    context[name] = "ada"  # type: ignore[index]
    context["name"]  # type: ignore[index]
    context[name].missing  # type: ignore[attr-defined]
    context.keys() & context.keys()  # type: ignore[operator]
    for var in context:
        var.missing  # type: ignore[attr-defined]
    for var, _ in context.items():
        var.missing  # type: ignore[attr-defined]
    Context({name: "ada"})  # type: ignore[arg-type]
    request.path = 1  # type: ignore[assignment]
    request.user + 1  # type: ignore[operator]
    request.shout(1)  # type: ignore[call-arg]
    Request("3")  # type: ignore[arg-type]
    Request()  # type: ignore[call-arg]
    context.native.run(1)  # type: ignore[arg-type]
    with ThreadPoolExecutor() as pool:
        pool.map(len, ["a"], timeout="soon")  # type: ignore[arg-type]
