"""A proxy is used as its variable's value is: what a program sees of the one, it sees of the other."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import copy
import datetime
import decimal
import doctest
import fractions
import inspect
import io
import math
import operator
import os
import pickle
import sys
import threading
import types
import unittest.mock
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, Proxy, copy_context
from interpreters import DEBUG_BUILD
from refusals import refuses

VAR: ContextVar[Any] = ContextVar("thing")
PROXY = VAR.proxy()


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    with Context():
        yield


class Everything:
    """A value with all that only a class of one's own has."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def method(self, *args: object, **kwargs: object) -> tuple[object, object]:
        return args, kwargs

    __call__ = method

    def __matmul__(self, other: object) -> tuple[str, object]:
        return ("matmul", other)

    def __rmatmul__(self, other: object) -> tuple[str, object]:
        return ("rmatmul", other)

    def __length_hint__(self) -> int:
        return 7

    def __iter__(self) -> Iterator[int]:
        return iter([1, 2])

    def __fspath__(self) -> str:
        return "a/path"

    def __bytes__(self) -> bytes:
        return b"bytes"

    def __complex__(self) -> complex:
        return 1j

    def __enter__(self) -> Everything:
        self.seen.append("enter")
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> bool:
        self.seen.append(("exit", kind))
        return True

    __slots__ = ("__dict__",)


def outcome(call: Callable[[Any], object], value: object) -> object:
    try:
        result = call(value)
    except Exception as error:
        return type(error), str(error)
    return result


USES: dict[str, tuple[Callable[[], object], Callable[[Any], object]]] = {
    "attribute": (Everything, lambda x: x.method(1, a=2)),
    "missing attribute": (dict, lambda x: x.nothing),
    "getattr with a default": (dict, lambda x: getattr(x, "nothing", 1)),
    "call": (lambda: max, lambda x: x(1, 2, key=abs)),
    "call of what is not callable": (int, lambda x: x()),
    "str": (lambda: "text", lambda x: (str(x), repr(x), f"{x:>7}", f"{x!r}", "%s" % x, "{}".format(x))),  # noqa: UP031, UP032
    "bytes": (Everything, bytes),
    "arithmetic": (
        lambda: 7,
        lambda x: (x + 2, x - 2, x * 2, x / 2, x // 2, x % 2, x**2, x << 2, x >> 2, x & 2, x ^ 2, x | 2, divmod(x, 2)),
    ),
    "reflected": (
        lambda: 3,
        lambda x: (9 + x, 9 - x, 9 * x, 9 / x, 9 // x, 9 % x, 9**x, 9 << x, 9 >> x, 9 & x, 9 ^ x, 9 | x, divmod(9, x)),
    ),
    "with itself": (lambda: 3, lambda x: (x + x, x - x, x**x, x == x, x < x)),
    "pow of three": (lambda: 3, lambda x: pow(x, 2, 7)),
    "matmul": (Everything, lambda x: (x @ 1, 1 @ x)),
    "unary": (lambda: -3, lambda x: (-x, +x, ~x, abs(x), not x)),
    "sequences": (lambda: [1, 2], lambda x: (x + [3], [3] + x, x * 2, 2 * x, x[0], x[-1:], 2 in x, len(x))),
    "repeated": (lambda: 3, lambda x: ([1] * x, "a" * x, range(10)[x], list(range(x)))),
    "no operator": (dict, lambda x: x + 1),
    "no reflected operator": (dict, lambda x: 1 + x),
    "comparison": (lambda: 3, lambda x: (x < 4, x <= 3, x == 3, x != 3, x > 2, x >= 4, 3 == x, 4 > x, x == "a")),
    "no order": (dict, lambda x: x < 1),
    "hash": (lambda: "key", lambda x: (hash(x), {"key": 1}[x])),
    "no hash": (list, hash),
    "truth": (list, lambda x: (bool(x), not x)),
    "numbers": (lambda: 3.7, lambda x: (int(x), float(x), complex(x), round(x), round(x, 1), math.trunc(x))),
    "floor and ceil": (lambda: fractions.Fraction(7, 2), lambda x: (math.floor(x), math.ceil(x))),
    "numbers of text": (lambda: "12", lambda x: (int(x), float(x), complex(x))),
    "complex": (Everything, complex),
    "index": (lambda: 3, lambda x: (operator.index(x), hex(x), "abcd"[x])),
    "no index": (lambda: 3.5, lambda x: "abcd"[operator.index(x)]),
    "no length": (int, len),
    "iteration": (lambda: [3, 1], lambda x: (list(x), [*x], sorted(x), list(reversed(x)), dict(enumerate(x)))),
    "iterator": (lambda: iter([1, 2]), lambda x: (next(x), list(x), next(x, "end"))),
    "unpacking": (lambda: (1, 2), lambda x: [(a, b) for a, b in [x]]),
    "no iteration": (int, iter),
    "length hint": (Everything, operator.length_hint),
    "mapping": (lambda: {"a": 1}, lambda x: ({**x}, dict(x), dict(**x), x | {"b": 2}, {"b": 2} | x, "a" in x)),
    "no container": (int, lambda x: 1 in x),
    "path": (Everything, lambda x: (os.fspath(x), os.path.join("b", x))),
    "no path": (int, os.fspath),
    "isinstance": (dict, lambda x: (isinstance(x, dict), isinstance(x, list), isinstance(x, collections.abc.Mapping))),
    "class": (dict, lambda x: (x.__class__, x.__doc__, x.__class__.__name__)),
    "as a class": (lambda: ValueError, lambda x: (isinstance(ValueError(), x), issubclass(UnicodeError, x), x(1).args)),
    "dir": (Everything, dir),
    "vars": (Everything, vars),
    "date arithmetic": (lambda: datetime.date(2020, 1, 1), lambda x: x + datetime.timedelta(1)),
    "decimals": (lambda: decimal.Decimal("1.5"), lambda x: (x + 1, 1 + x, round(x, 0), f"{x:.3f}")),
    "copy": (lambda: {"a": []}, lambda x: (copy.copy(x), copy.deepcopy(x))),
    "pickle": (lambda: {"a": [1]}, lambda x: [pickle.loads(pickle.dumps(x, p)) for p in range(6)]),
    "pickle of a function": (lambda: os.getpid, lambda x: pickle.loads(pickle.dumps(x))),
    "no pickle": (lambda: threading.Lock(), lambda x: pickle.dumps(x)),
    "signature": (lambda: Everything().method, lambda x: str(inspect.signature(x))),
    "kind of function": (lambda: Everything.method, lambda x: (inspect.isfunction(x), inspect.getsource(x))),
}


@pytest.mark.parametrize("name", USES)
def test_a_use_of_the_value_is_one_of_the_proxy(name: str) -> None:
    make, use = USES[name]
    expected = outcome(use, make())
    VAR.set(make())
    assert outcome(use, PROXY) == expected


def test_no_special_method_of_a_builtin_type_was_forgotten() -> None:
    async def coroutine() -> AsyncIterator[None]:
        yield

    kinds = [int, float, complex, str, bytes, bytearray, list, dict, set, range, slice, io.StringIO]
    kinds += [types.FunctionType, types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType, decimal.Decimal]
    # Of classes and their making, of pickling, of memory: what is looked up as an attribute is the value's anyway.
    other = "new init init_subclass subclasshook class_getitem prepare class annotations type_params deepcopy reduce"
    other += (
        " setformat getnewargs getnewargs_ex getstate setstate getformat get del sizeof alloc buffer release_buffer"
    )
    names = {name for kind in kinds for name in dir(kind) if callable(getattr(kind, name, None))}
    names = {name for name in names if name.startswith("__")} - {f"__{name}__" for name in other.split()}
    assert len(names) > 60
    assert names - vars(Proxy).keys() == set()


def test_it_follows_the_current_context() -> None:
    VAR.set("outer")
    context = copy_context()
    context.run(VAR.set, "inner")
    assert context.run(PROXY.upper) == "OUTER"  # The method of the value that it was asked of.
    assert context.run(lambda: PROXY.upper()) == "INNER"
    assert PROXY == "outer"
    found = []
    thread = threading.Thread(target=lambda: found.append(repr(PROXY)))
    thread.start()
    thread.join()
    assert found[0] == f"<Proxy of {VAR!r}, which has no value>"


def test_it_stands_for_the_default() -> None:
    proxy = ContextVar("lang", default="en").proxy()
    assert proxy == "en"
    assert proxy.upper() == "EN"


def test_a_default_that_is_made() -> None:
    proxy = ContextVar("many", default_factory=list).proxy()
    proxy.append(1)
    assert proxy == [1]

    def fail() -> Any:
        return {}["no such key"]  # type: ignore[index]

    with pytest.raises(KeyError, match="no such key"):
        ContextVar("fails", default_factory=fail).proxy().name


def test_attributes_are_set_and_deleted_on_the_value() -> None:
    value: Any = Everything()
    VAR.set(value)
    PROXY.colour = "blue"
    assert value.colour == PROXY.colour == "blue"
    del PROXY.colour
    assert not hasattr(value, "colour")
    with pytest.raises(AttributeError):
        del PROXY.colour
    PROXY._var = 1
    assert value._var == 1


def test_items_are_set_and_deleted_on_the_value() -> None:
    value: dict[str, int] = {}
    VAR.set(value)
    PROXY["a"] = 1
    PROXY["b"] = 2
    del PROXY["a"]
    assert value == {"b": 2}


@pytest.mark.parametrize("name", "add sub mul truediv floordiv mod pow lshift rshift and xor or".split())
def test_an_in_place_operator_sets_the_variable(name: str) -> None:
    method = getattr(operator, f"__i{name}__")
    VAR.set(6)
    context = copy_context()
    assert method(PROXY, 2) is PROXY
    assert VAR.get() == method(6, 2)
    assert context[VAR] == 6


def test_an_in_place_operator_keeps_the_name_and_a_mutable_value() -> None:
    value: object = [1]
    VAR.set(value)
    name = PROXY
    name += [2]
    assert name is PROXY
    assert VAR.get() is value == [1, 2]
    value = (1,)
    VAR.set(value)
    name += (2,)
    assert name is PROXY
    assert VAR.get() == (1, 2)
    assert value == (1,)


def test_an_in_place_operator_that_fails_sets_nothing() -> None:
    VAR.set(1)
    name = PROXY
    with pytest.raises(TypeError, match="unsupported operand"):
        name += "text"
    assert VAR.get() == 1
    assert name is PROXY


@pytest.mark.skipif(
    DEBUG_BUILD and sys.version_info >= (3, 14),
    reason="a debug build of CPython ends itself where an error leaves a `with` of a static `__exit__`",
)
def test_with() -> None:
    value = Everything()
    VAR.set(value)
    with PROXY as entered:
        assert entered is value
        raise ZeroDivisionError
    assert value.seen == ["enter", ("exit", ZeroDivisionError)]
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(PROXY) is value
    assert value.seen[2:] == ["enter", ("exit", None)]


def test_with_leaves_what_it_has_entered() -> None:
    value, other = Everything(), Everything()
    VAR.set(value)
    with PROXY:
        VAR.set(other)
    assert (value.seen, other.seen) == (["enter", ("exit", None)], [])


def test_with_of_what_has_no_enter() -> None:
    VAR.set(1)
    with pytest.raises(TypeError, match=r"^'int' object has no __(enter|exit)__$"):
        with PROXY:
            pass


def test_what_is_awaited() -> None:
    class Resource:
        async def __aenter__(self) -> str:
            return "entered"

        async def __aexit__(self, *error: object) -> None:
            seen.append(error)

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    async def main() -> None:
        assert await PROXY == 42
        assert [number async for number in numbers_var.proxy()] == [1, 2]
        async with resource_var.proxy() as entered:
            assert entered == "entered"
        async with contextlib.AsyncExitStack() as stack:
            assert await stack.enter_async_context(resource_var.proxy()) == "entered"

    seen: list[object] = []
    numbers_var: ContextVar[AsyncIterator[int]] = ContextVar("numbers")
    resource_var: ContextVar[Resource] = ContextVar("resource")
    VAR.set(answer())
    numbers_var.set(numbers())
    resource_var.set(Resource())
    asyncio.run(main())
    assert seen == [(None, None, None)] * 2


def test_the_value_itself_is_at_hand() -> None:
    value: list[object] = []
    VAR.set(value)
    assert PROXY.__wrapped__ is value
    assert inspect.unwrap(PROXY) is value


def test_a_value_within_itself() -> None:
    value: list[object] = []
    VAR.set(value)
    value.append(PROXY)
    assert repr(PROXY) == "[[...]]"
    loaded = pickle.loads(pickle.dumps(PROXY))
    assert loaded[0] is loaded
    copied = copy.deepcopy(PROXY)
    assert copied[0] is copied is not value


def test_a_proxy_of_a_proxy() -> None:
    outer: ContextVar[Any] = ContextVar("outer")
    VAR.set([1])
    outer.set(PROXY)
    proxy = outer.proxy()
    proxy.append(2)
    assert proxy == [1, 2]
    assert proxy + [3] == [1, 2, 3]
    assert isinstance(proxy, list)
    VAR.set(Everything())
    with proxy as entered:  # type: ignore[attr-defined]
        assert entered is VAR.get()


# ---- where the variable has no value ----

TEXT = (
    r"^<ContextVar name='thing' at 0x[0-9a-f]+> has no value in the current Context, so its proxy stands for nothing: "
    "set the variable first, or give it a default$"
)


@pytest.mark.parametrize(
    "use",
    [
        lambda: PROXY.name,
        lambda: hasattr(PROXY, "name"),
        lambda: getattr(PROXY, "name", None),
        lambda: setattr(PROXY, "name", 1),
        lambda: PROXY["name"],
        lambda: PROXY(),
        lambda: str(PROXY),
        lambda: bool(PROXY),
        lambda: 1 in PROXY,
        lambda: len(PROXY),
        lambda: iter(PROXY),
        lambda: hash(PROXY),
        lambda: PROXY == PROXY,
        lambda: PROXY + 1,
        lambda: 1 + PROXY,
        lambda: operator.iadd(PROXY, 1),  # type: ignore[no-untyped-call]
        lambda: contextlib.ExitStack().enter_context(PROXY),
        lambda: copy.copy(PROXY),
        lambda: copy.deepcopy(PROXY),
        lambda: pickle.dumps(PROXY),
    ],
)
def test_every_use_says_what_is_missing(use: Callable[[], object]) -> None:
    with pytest.raises(LookupError, match=TEXT):
        use()


def test_with_says_what_is_missing() -> None:
    with pytest.raises(LookupError, match=TEXT):
        with PROXY:
            pass

    async def main() -> None:
        with pytest.raises(LookupError, match=TEXT):
            await PROXY
        with pytest.raises(LookupError, match=TEXT):
            async with PROXY:
                pass

    asyncio.run(main())


def test_it_can_be_shown() -> None:
    assert repr(PROXY) == f"<Proxy of {VAR!r}, which has no value>"
    assert dir(PROXY) == []
    assert PROXY.__class__ is Proxy
    assert not isinstance(PROXY, dict)


def test_what_looks_at_all_objects_alike_takes_it_for_one_of_no_kind() -> None:
    with pytest.raises(AttributeError, match=TEXT):
        PROXY.__wrapped__
    assert inspect.unwrap(PROXY) is PROXY
    assert callable(PROXY)
    names = {name for name in dir(inspect) if name.startswith("is") and name != "iskeyword"}
    assert len(names) > 15
    assert [name for name in names if getattr(inspect, name)(PROXY)] == ["isawaitable"]
    assert not asyncio.iscoroutine(PROXY)
    assert inspect.getdoc(PROXY) in (None, inspect.getdoc(Proxy))
    assert inspect.getmembers(PROXY) == []


def test_doctest_finds_its_way_past_one() -> None:
    module = types.ModuleType("module", "A module.\n\n>>> 1 + 1\n2\n")
    module.request = PROXY  # type: ignore[attr-defined]
    (test,) = doctest.DocTestFinder().find(module)
    assert test.name == "module"


@pytest.mark.parametrize("value", [None, "text", Everything])
def test_mock_puts_something_in_its_place(value: object) -> None:
    if value is not None:
        VAR.set(value() if callable(value) else value)
    namespace = types.SimpleNamespace(request=PROXY)
    with unittest.mock.patch.object(namespace, "request") as replacement:
        assert namespace.request is replacement
    with unittest.mock.patch.object(namespace, "request", autospec=True):
        assert namespace.request is not PROXY
    assert namespace.request is PROXY
    assert isinstance(unittest.mock.Mock(spec=PROXY), unittest.mock.Mock)


def test_mock_patches_an_attribute_of_the_value() -> None:
    value: Any = Everything()
    VAR.set(value)
    with unittest.mock.patch.object(PROXY, "method", return_value=3):
        assert value.method() == 3
    assert value.method() == ((), {})


def test_it_is_only_what_it_is() -> None:
    with pytest.raises(TypeError):
        type("Mine", (Proxy,), {})
    with pytest.raises(TypeError):
        Proxy()  # type: ignore[call-arg]


def test_a_variable_of_the_standard_library() -> None:
    import contextvars

    proxy = Proxy(contextvars.ContextVar("theirs", default=1))
    assert proxy + 1 == 2  # type: ignore[operator]


@pytest.mark.parametrize("wrong", ["x", {}, None, ContextVar], ids=repr)
def test_of_a_variable_alone(wrong: Any) -> None:
    with refuses(TypeError, f"Proxy() takes a ContextVar, not {wrong!r}"):
        Proxy(wrong)
