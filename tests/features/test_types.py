# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnusedExpression=false
"""What type checkers know of the public names. `make lint` has mypy and pyright read this file, and pytest runs it.

In `wrong` each line is an error to both checkers: of a `type: ignore` that ignores none they complain.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Union

from contextvars_cy import (
    Assignment,
    Context,
    ContextVar,
    Hamt,
    HamtDiff,
    Local,
    Token,
    assign,
    bind,
    copy_context,
    current_context,
    fresh,
    host,
    isolated,
)
from contextvars_cy.executors import ThreadPoolExecutor

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value, kind):
        return value


number = ContextVar("number", default=0)
name: ContextVar[str] = ContextVar("name")
made = ContextVar("made", default_factory=list[int])
asked: ContextVar[list[int]] = ContextVar("asked", default_factory=list)
maybe: ContextVar[str | None] = ContextVar("maybe", default=None)


def test_a_variable_has_the_type_of_its_value() -> None:
    assert assert_type(number.get(), int) == 0 and assert_type(number.name, str) == "number"
    assert assert_type(number.get("x"), Union[int, str]) == "x"
    assert assert_type(name.get(None), Union[str, None]) is None
    assert assert_type(asked.get([]), list[int]) == []
    assert assert_type(maybe.get(), Union[str, None]) is None
    assert_type(ContextVar[str]("explicit"), ContextVar[str])
    assert_type(made, ContextVar[list[int]])
    with assert_type(made.set([]), Token[list[int]]), asked.set([]), maybe.set("x"):
        made.get().append(1)
    with number.set(1) as token:
        assert assert_type(token, Token[int]).var is assert_type(token.var, ContextVar[int]) is number
        assert assert_type(token.old_value, Union[int, Any]) is Token.MISSING
        assert assert_type(number.is_set(), bool)
        with assert_type(number.unset(), Token[int]):
            assert not number.is_set()
    again = number.set(2)
    assert assert_type(number.try_reset(again), bool)


def test_a_proxy_has_the_type_of_the_value() -> None:
    proxy = assert_type(name.proxy(), str)
    with name.set("ada"):
        assert assert_type(proxy.upper(), str) == "ADA"


def test_what_assign_takes() -> None:
    values: dict[ContextVar[Any], Any] = {number: 1, name: "ada"}
    pairs = [(number, 1)]
    with assign(values), assign({number: 1}), assign(pairs), assign(dict(pairs)), assign({number: 1}.items()):
        assert number.get() == 1
    with assign([(number, 1), (name, "ada")]) as assignment, assign(copy_context()), assign(Hamt(copy_context())):
        assert assert_type(assignment, Assignment) and name.get() == "ada"


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


def test_what_a_context_gives() -> None:
    context = assert_type(copy_context(), Context)
    assert assert_type(context.run(repeated, "a", times=2), str) == "aa"
    assert assert_type(context.copy(), Context) == context
    assert_type(context.run(name.set, "ada"), Token[str])
    assert assert_type(Context().diff(context), HamtDiff[ContextVar[Any], Any]).added[name] == "ada"
    assert_type(Hamt(context), Hamt[ContextVar[Any], Any])


# ---- functions that bind and isolate keep their signatures ----


def repeated(word: str, *, times: int = 1) -> str:
    return word * times


def letters(word: str) -> Iterator[str]:
    yield from word


async def later(word: str) -> str:
    return word


async def letters_later(word: str) -> AsyncIterator[str]:
    for letter in word:
        yield letter


class Speaker:
    @isolated
    def say(self, word: str) -> str:
        return word

    @bind
    def shout(self, word: str) -> str:
        return word.upper()


def test_bound_and_isolated_functions_keep_their_signatures() -> None:
    for function in (bind(repeated), bind(repeated, only=[number, name]), isolated(repeated), fresh()(repeated)):
        assert assert_type(function("a", times=2), str) == "aa"
    assert assert_type(Speaker().say("a"), str) + assert_type(Speaker().shout("a"), str) == "aA"
    assert list(assert_type(isolated(letters)("ab"), Iterator[str])) == ["a", "b"]
    assert list(assert_type(isolated(letters("ab")), Iterator[str])) == ["a", "b"]
    assert list(assert_type(fresh()(letters)("ab"), Iterator[str])) == ["a", "b"]
    with fresh(keep=[number, name]) as context:
        assert assert_type(context, Context) is current_context()


def test_bound_and_isolated_coroutines_keep_their_types() -> None:
    async def main() -> list[str]:
        found = [assert_type(await isolated(later)("a"), str), assert_type(await isolated(later("b")), str)]
        found.append(assert_type(await bind(later)("c"), str))
        found += [assert_type(letter, str) async for letter in isolated(letters_later)("d")]
        found += [assert_type(letter, str) async for letter in isolated(letters_later("e"))]
        return found

    assert asyncio.run(main()) == [*"abcde"]


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
    ContextVar(1)  # type: ignore[call-overload]
    ContextVar("number", 0)  # type: ignore[call-overload]
    ContextVar("number", default=0, default_factory=int)  # type: ignore[call-overload]
    ContextVar[str]("number", default=0)  # type: ignore[call-overload]
    _wider: ContextVar[object] = number  # type: ignore[assignment]
    _other: ContextVar[str] = ContextVar("number", default_factory=int)  # type: ignore[arg-type]
    number.set("x")  # type: ignore[arg-type]
    number.get().missing  # type: ignore[attr-defined]
    number.get(None) + 1  # type: ignore[operator]
    number.reset(name.set("ada"))  # type: ignore[arg-type]
    number.try_reset(name.set("ada"))  # type: ignore[arg-type]
    number.proxy().missing  # type: ignore[attr-defined]
    assign({"number": 1})  # type: ignore[dict-item]
    assign([("number", 1)])  # type: ignore[list-item]
    assign({number})  # type: ignore[arg-type]
    assign(number)  # type: ignore[call-overload]
    assign(number=1)  # type: ignore[call-overload]
    bind(1)  # type: ignore[call-overload]
    bind(repeated)(1)  # type: ignore[arg-type]
    bind(repeated)("a", times="b")  # type: ignore[arg-type]
    bind(repeated)("a").missing  # type: ignore[attr-defined]
    bind(repeated, only=number)  # type: ignore[call-overload]
    bind(repeated, only=[1])  # type: ignore[list-item]
    isolated(1)  # type: ignore[type-var]
    isolated(repeated)(1)  # type: ignore[arg-type]
    isolated(repeated)("a", 2)  # type: ignore[call-arg]
    fresh(keep=number)  # type: ignore[arg-type]
    fresh(keep=[1])  # type: ignore[list-item]
    fresh()(repeated)(1)  # type: ignore[arg-type]
    for letter in isolated(letters("ab")):
        letter.missing  # type: ignore[attr-defined]
    Speaker().say(1)  # type: ignore[arg-type]
    context, request = copy_context(), Request(3)
    context.run(repeated, 1)  # type: ignore[arg-type]
    context.run(repeated)  # type: ignore[call-arg]
    context.get("name")  # type: ignore[call-overload]
    context.diff({})  # type: ignore[arg-type]
    context.diff(context).added["name"]  # type: ignore[index]
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
