"""Registered values travel as text, to whom they may, and nothing that arrives can do harm."""

from __future__ import annotations

import enum
import json
import math
import os
import pickle
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextvars_cy import Context, ContextVar, travel
from contextvars_cy.travel import (
    Capsule,
    TravelError,
    TravelWarning,
    capture,
    environment,
    extract,
    inject,
    register,
    restore,
)
from helpers import run_python

pytestmark = pytest.mark.usefixtures("nothing_registered", "context_of_its_own")

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def registered(name: str, **settings: Any) -> ContextVar[Any]:
    var: ContextVar[Any] = ContextVar(name)
    register(var, name, **settings)
    return var


def arrived(capsule: Capsule, var: ContextVar[Any]) -> Any:
    """What a new Context has after `restore`."""

    def look() -> Any:
        restore(capsule)
        return var.get(None)

    return Context().run(look)


# ---- register ----


def test_the_same_registration_again_does_nothing() -> None:
    var = registered("a", codec=int, audience="public", max_size=10)
    before = travel._registered
    register(var, "a", codec=int, audience="public", max_size=10)
    assert travel._registered is before


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"name": "taken"}, ValueError, "is registered for another variable"),
        ({"name": "has space"}, ValueError, "is no name"),
        ({"name": ""}, ValueError, "is no name"),
        ({"name": "ä"}, ValueError, "is no name"),
        ({"name": "a\n"}, ValueError, "is no name"),
        ({"name": 1}, ValueError, "is no name"),
        ({"audience": "everybody"}, ValueError, "choose one of process, trusted, public"),
        ({"audience": None}, ValueError, "choose one of process, trusted, public"),
        ({"max_size": 0}, ValueError, "max_size"),
        ({"max_size": "many"}, ValueError, "max_size"),
        ({"codec": dict}, TypeError, "a codec is str, int, float, bool, bytes, the module json"),
        ({"codec": None}, TypeError, "a codec is"),
        ({"var": "a"}, TypeError, "takes a ContextVar of contextvars_cy"),
    ],
)
def test_wrong_registrations(settings: dict[str, Any], error: type[Exception], said: str) -> None:
    registered("taken")
    before = travel._registered
    given = {"var": ContextVar("new"), "name": "new", **settings}
    with pytest.raises(error, match=said):
        register(given.pop("var"), given.pop("name"), **given)
    assert travel._registered is before


def test_a_variable_has_one_registration() -> None:
    var = registered("a")
    for name, settings in (("b", {}), ("a", {"codec": int}), ("a", {"audience": "public"}), ("a", {"max_size": 1})):
        with pytest.raises(ValueError, match="is registered already"):
            register(var, name, **settings)


def test_threads_that_register_lose_none() -> None:
    names = [f"name-{number}" for number in range(64)]
    threads = [threading.Thread(target=registered, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(travel._registered.by_name) == sorted(names)


# ---- what values become ----


class Enum:
    """A codec of the user's own."""

    def encode(self, value: Any) -> Any:
        return {1: "one", 2: b"two"}[value]

    def decode(self, text: str) -> Any:
        return {"one": 1}[text]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


class Failing:
    """A codec whose errors fail themselves."""

    def encode(self, value: Any) -> str:
        raise Unspeakable

    def decode(self, text: str) -> Any:
        raise Unspeakable


class Level(str, enum.Enum):
    HIGH = "high"


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        (str, ""),
        (str, ' ä+%,;=\\"\x00\n€😀'),
        (int, -(10**30)),
        (float, -0.0),
        (float, 1e-300),
        (float, math.inf),
        (bool, True),
        (bool, False),
        (bytes, bytes(range(256))),
        (json, {"a": [1, None, "ä"]}),
        (Enum(), 1),
    ],
)
def test_values_arrive_as_they_were(codec: Any, value: Any) -> None:
    var = registered("a", codec=codec, audience="public")
    var.set(value)
    headers: dict[str, str] = {}
    inject(headers, audience="public")
    assert headers["baggage"].isascii() and not set(headers["baggage"]) & set(' ",;\\')
    for capsule in (capture(), extract(headers), Capsule.from_bytes(capture().to_bytes())):
        found = arrived(capsule, var)
        assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("codec", "value"),
    [(str, 1), (int, True), (int, "1"), (float, 1), (bool, 1), (bytes, "a"), (json, {1, 2}), (json, math.nan)]
    + [(json, value) for value in ((1, 2), [{1: 2}], {None: 1, "null": 2}, [Level.HIGH], [[math.inf]], "\ud800")]
    + [(Enum(), 2), (Enum(), 3), (Failing(), 1), (str, "\ud800"), (str, "x" * 5000), (str, Level.HIGH)],
)
def test_what_cannot_be_encoded_stays_and_the_rest_travels(codec: Any, value: Any) -> None:
    var, other = registered("a", codec=codec), registered("b")
    var.set(value)
    other.set("travels")
    with pytest.warns(TravelWarning, match="a value does not travel: a: ") as warned:
        assert dict(capture()) == {"b": "travels"}
    assert [warning.filename for warning in warned] == [__file__]
    with pytest.raises(TravelError, match="^a: "):
        capture(strict=True)
    assert dict(capture(only=[other])) == {"b": "travels"}


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        (int, ""),
        (int, "1_0"),
        (int, " 1"),
        (int, "٣"),
        (int, "9" * 5000),
        (float, "1_0"),
        (float, "infinity"),
        (bool, "1"),
    ]
    + [(json, text) for text in ("{", "NaN", "[-Infinity]", "1e999", '"\\ud800"', "[" * 4000)]
    + [(bytes, "a"), (bytes, "%"), (Enum(), "two"), (Failing(), ""), (str, "x" * 5000)],
)
def test_what_cannot_be_decoded_is_left_out(codec: Any, text: str) -> None:
    var, other = registered("a", codec=codec), registered("b")
    capsule = Capsule({"a": text, "b": "set"})
    with pytest.warns(TravelWarning, match="a value does not travel: a: "), restore(capsule):
        assert (var.get(None), other.get()) == (None, "set")
    with pytest.raises(TravelError, match="^a: "):
        restore(capsule, strict=True)
    assert other.get(None) is None


def test_one_error_lists_all() -> None:
    registered("a", codec=int)
    with pytest.raises(TravelError, match=r"^a: .*; b: no variable is registered by this name here"):
        restore(Capsule({"a": "x", "b": "y"}), strict=True)


# ---- who may see what ----

AUDIENCES = ["process", "trusted", "public"]


@pytest.mark.parametrize("audience", AUDIENCES)
def test_nothing_leaves_but_to_its_audience(audience: Any) -> None:
    for name in AUDIENCES:
        registered(name, audience=name).set("value")
    others: ContextVar[str] = ContextVar("not registered")
    others.set("value")
    may_leave = AUDIENCES[AUDIENCES.index(audience) :]
    headers: dict[str, str] = {}
    inject(headers, audience=audience)
    assert sorted(capture(audience=audience)) == sorted(may_leave)
    assert sorted(name.partition("=")[0] for name in headers["baggage"].split(",")) == sorted(may_leave)


@pytest.mark.parametrize("audience", AUDIENCES)
def test_nothing_comes_in_but_from_its_audience(audience: Any) -> None:
    for name in AUDIENCES:
        registered(name, audience=name)
    header = ",".join(f"{name}=value" for name in [*AUDIENCES, "unknown"])
    may_come = AUDIENCES[AUDIENCES.index(audience) :]
    assert sorted(extract({"baggage": header}, audience=audience)) == sorted(may_come)
    assert sorted(extract({"baggage": header})) == ["public", "trusted"]


def test_only_names_registered_variables_of_the_audience() -> None:
    var, other = registered("a"), registered("b", audience="public")
    var.set("1")
    other.set("2")
    assert dict(capture(only=[other])) == {"b": "2"}
    with restore(Capsule({"a": "3", "b": "4"}), only=[var]):
        assert (var.get(), other.get()) == ("3", "2")
    for wrong in (ContextVar("unregistered"), var):
        with pytest.raises(ValueError, match="is not registered for the audience 'public'"):
            capture(only=[wrong], audience="public")
    with pytest.raises(TypeError, match=r"write only=\[variable\]"):
        capture(only=var)  # type: ignore[arg-type]


def test_defaults_do_not_travel_and_another_context_can_be_captured() -> None:
    var: ContextVar[str] = ContextVar("a", default="default")
    register(var, "a")
    assert dict(capture()) == {}
    context = Context()
    context.run(var.set, "there")
    assert dict(capture(context)) == {"a": "there"}
    with pytest.raises(TypeError, match="takes a Context of contextvars_cy"):
        capture({var: "x"})  # type: ignore[arg-type]


def test_restoring_is_undone_at_once() -> None:
    var, other = registered("a"), registered("b", codec=int)
    other.set(1)
    with restore(Capsule({"a": "x", "b": "2"})):
        assert (var.get(), other.get()) == ("x", 2)
    assert (var.get(None), other.get()) == (None, 1)


# ---- capsules ----


@given(st.dictionaries(st.from_regex(r"[a-z0-9!#$%&'*+.^_`|~-]{1,8}", fullmatch=True), TEXTS, max_size=6))
def test_a_capsule_pickles_compares_and_becomes_bytes(entries: dict[str, str]) -> None:
    capsule = Capsule(entries)
    for again in (pickle.loads(pickle.dumps(capsule)), Capsule.from_bytes(capsule.to_bytes()), Capsule(capsule)):
        assert again == capsule == entries and hash(again) == hash(capsule) and type(again) is Capsule
    assert capsule != {**entries, "more": ""}
    assert repr(capsule) == f"<Capsule of {', '.join(entries) or 'nothing'}>"


@pytest.mark.parametrize("wrong", [{"a b": "x"}, {1: "x"}, {"a": 1}, {"a": "\ud800"}, {"": ""}])
def test_a_capsule_holds_names_and_text(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Capsule(wrong)


def test_a_capsule_holds_text_itself_and_no_subclass() -> None:
    class Loud(str):
        def __str__(self) -> str:
            return "loud"

    capsule = Capsule({Loud("a"): Loud("quiet")})
    assert [type(text) for entry in capsule.items() for text in entry] == [str, str]
    assert capsule.to_bytes() == b"a=quiet"


@given(st.binary(max_size=60) | TEXTS.map(str.encode))
def test_any_bytes_make_a_capsule_or_one_error(data: bytes) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        capsule = Capsule.from_bytes(data)
    assert Capsule.from_bytes(capsule.to_bytes()) == capsule
    if warned:
        assert {warning.category for warning in warned} == {TravelWarning}
        with pytest.raises(TravelError):
            Capsule.from_bytes(data, strict=True)


# ---- headers ----


def test_members_of_other_programs_stay_and_old_ones_of_ours_go() -> None:
    var = registered("ours", audience="public")
    headers = {"Baggage": "theirs=1;p=2 , ours=old, more = %20"}
    with var.set("new"):
        inject(headers, audience="public")
    assert headers == {"Baggage": "theirs=1;p=2,more = %20,ours=new"}
    inject(headers, audience="public")
    assert headers == {"Baggage": "theirs=1;p=2,more = %20"}
    headers = {"baggage": "ours=old"}
    inject(headers, audience="public")
    assert headers == {}


@pytest.mark.parametrize("value", [None, "new"])
def test_no_spelling_of_the_header_keeps_an_old_value(value: str | None) -> None:
    var = registered("ours", audience="trusted")
    headers = {"BaggagE": "ours=old,more=2", "baggage": "theirs=1,ours=old", "Baggage": None, "other": "baggage"}
    if value:
        var.set(value)
    inject(headers, audience="trusted")
    assert headers == {
        "BaggagE": f"more=2,theirs=1{',ours=new' if value else ''}",
        "Baggage": None,
        "other": "baggage",
    }


def test_all_spellings_of_the_header_are_read() -> None:
    for name in "abc":
        registered(name, audience="trusted")
    assert dict(extract({"Baggage": "a=1", "baggage": "b=2", "BAGGAGE": "c=3"})) == {"a": "1", "b": "2", "c": "3"}


def test_a_setter_leaves_no_old_value_in_a_mapping() -> None:
    class Setter:
        def set(self, carrier: dict[str, str], key: str, value: str) -> None:
            carrier[key] = value

    var = registered("ours", audience="trusted")
    headers = {"Baggage": "theirs=1,ours=old"}
    with var.set("new"):
        inject(headers, audience="trusted", setter=Setter())
    assert headers == {"baggage": "theirs=1,ours=new"}
    inject(headers, audience="public", setter=Setter())
    assert headers == {"baggage": "theirs=1"}
    headers = {"Baggage": "ours=old"}
    inject(headers, audience="public", setter=Setter())
    assert headers == {}


def test_limits_of_the_header() -> None:
    for number in range(200):
        registered(f"v{number}", audience="public").set("x" * number)
    headers: dict[str, str] = {}
    with pytest.warns(TravelWarning, match="no room"):
        inject(headers, audience="public")
    assert len(headers["baggage"]) <= 8192 and headers["baggage"].count(",") < 180
    assert set(extract(headers)) == {member.partition("=")[0] for member in headers["baggage"].split(",")}
    with pytest.raises(TravelError, match="no room"):
        inject(headers, audience="public", strict=True)


def test_a_member_that_grows_by_its_encoding() -> None:
    registered("a", audience="public").set("€" * 1300)
    headers: dict[str, str] = {}
    with pytest.warns(TravelWarning, match="a member of 11702 bytes, where baggage has at most 4096"):
        inject(headers, audience="public")
    assert headers == {} and len(capture()["a"]) == 1300


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("a=%zz", "its encoding is broken"),
        ("a=%ff", "its encoding is broken"),
        ("a=\xe4", "its encoding is broken"),
        ("a", "this is no name=value"),
        ("a=1,a=2", "it came before"),
        ("a=" + "x" * 5000, "more than 4096 bytes"),
        ("b=1," * 200 + "a=1", "the first 180 are read"),
        ("b=1," * 3000 + "a=1", "more than 8192 bytes, and is not read"),
    ],
)
def test_broken_headers(header: str, said: str) -> None:
    registered("a", audience="public")
    with pytest.warns(TravelWarning, match=said):
        assert dict(extract({"baggage": header})) in ({}, {"a": "1"})
    with pytest.raises(TravelError, match=said):
        extract({"baggage": header}, strict=True)


CARRIERS: list[Callable[[str], Any]] = [
    lambda header: {"baggage": header},
    lambda header: {"BAGGAGE": header},
    lambda header: {"bAgGaGe": header.encode("latin-1", "replace")},
    lambda header: {"Baggage": [header, "later=1"]},
]


@given(st.sampled_from(CARRIERS), TEXTS | st.from_regex(r"(\s*a\s*=[ -~]*;?[,;]?)*", fullmatch=True))
def test_no_header_does_harm(carrier: Callable[[str], Any], header: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(travel, "_registered", travel._Registrations())
        var = registered("a", audience="public")
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            capsule = extract(carrier(header))
        assert set(capsule) <= {"a"} and {warning.category for warning in warned} <= {TravelWarning}
        assert arrived(capsule, var) == capsule.get("a")


def test_carriers_of_their_own_kind() -> None:
    class Pairs:
        """As OpenTelemetry's setters and getters are."""

        def set(self, carrier: list[tuple[str, str]], key: str, value: str) -> None:
            carrier.append((key, value))

        def get(self, carrier: list[tuple[str, str]], key: str) -> Any:
            return [value for name, value in carrier if name == key] or None

    var = registered("a", audience="public")
    pairs: list[tuple[str, str]] = []
    with var.set("x"):
        inject(pairs, audience="public", setter=Pairs())
    assert pairs == [("baggage", "a=x")] and dict(extract(pairs, getter=Pairs())) == {"a": "x"}
    assert dict(extract([], getter=Pairs())) == dict(extract({})) == {}
    for call in (lambda: inject(pairs, audience="public"), lambda: extract(pairs)):
        with pytest.raises(TypeError, match="takes a (mutable )?mapping, or a [gs]etter for a list"):
            call()


@given(st.dictionaries(st.sampled_from("abc"), TEXTS, min_size=1))
def test_others_that_write_a_space_as_plus(values: Mapping[str, str]) -> None:
    # `quote_plus` and `unquote_plus` are what OpenTelemetry's propagator for Python writes and reads with.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(travel, "_registered", travel._Registrations())
        for name in "abc":
            registered(name, audience="public")
        theirs = ",".join(f"{name}={quote_plus(text)}" for name, text in values.items())
        assert dict(extract({"baggage": theirs})) == values
        ours: dict[str, str] = {}
        with restore(Capsule(values)):
            inject(ours, audience="public")
        assert {n: unquote_plus(t) for n, _, t in (m.partition("=") for m in ours["baggage"].split(","))} == values


# ---- other processes ----

CHILD = """
import os
from contextvars_cy import ContextVar
from contextvars_cy.travel import extract, register, restore

request = ContextVar("request", default="-")
register(request, "request")
restore(extract(os.environ, audience="process"))
print(request.get())
"""


def test_a_subprocess_reads_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "child.py").write_text(CHILD, encoding="utf-8")
    monkeypatch.setenv("BAGGAGE", "theirs=1,request=old")
    request = registered("request")
    with request.set("r, 1"):
        env = environment()
    header = env.pop("BAGGAGE")
    assert header == "theirs=1,request=r%2C%201" and set(env) == set(os.environ) - {"BAGGAGE"}
    done = run_python(["child.py"], tmp_path, env={"BAGGAGE": header})
    assert (done.stdout, done.stderr) == ("r, 1\n", "")
    assert environment()["BAGGAGE"] == "theirs=1"
    monkeypatch.delenv("BAGGAGE")
    assert "BAGGAGE" not in environment()


def answer(capsule: Capsule) -> str:
    """In another process, which has imported this module, but not run the test."""
    var = registered("user")
    with restore(capsule):
        return str(var.get())


@pytest.mark.parametrize("method", sorted({"spawn", "forkserver"}.intersection(get_all_start_methods())))
def test_a_capsule_travels_to_a_pool_of_processes(method: str) -> None:
    user = registered("user")
    with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
        with user.set("ada"):
            capsule = capture()
        assert pool.submit(answer, capsule).result() == "ada"


@pytest.mark.parametrize(
    "value", [5, {"a": "1"}.items(), [["a=1"]], object()], ids=["int", "pairs", "nested", "object"]
)
def test_a_header_that_is_no_text_is_left_out(value: object) -> None:
    var = registered("a", audience="trusted")
    headers: dict[str, Any] = {"baggage": value}
    with pytest.warns(TravelWarning, match="baggage is no text, but a "):
        assert dict(extract(headers)) == {}
    with var.set("1"), pytest.warns(TravelWarning, match="baggage is no text, but a "):
        inject(headers, audience="trusted")
    assert headers == {"baggage": "a=1"}


def test_headers_of_bytes_and_of_many_lines() -> None:
    registered("a", audience="trusted")
    registered("b", audience="trusted")
    for value in (b"a=1,b=2", ["a=1", "b=2"], (b"a=1", b"b=2"), ["a=1", None, "b=2"]):
        assert dict(extract({"Baggage": value})) == {"a": "1", "b": "2"}


def test_no_warning_has_a_word_of_what_came_in() -> None:
    """A stranger chooses it, and Python keeps the text of each warning that it has shown."""

    class Decoder:
        def encode(self, value: str) -> str:
            return value

        def decode(self, text: str) -> str:
            raise LookupError(text)

    registered("a", audience="public", codec=int)
    registered("b", audience="public", codec=Decoder())
    registered("c", audience="public", codec=json, max_size=40)
    said = set()
    for word in ("zebra", "other", "third%", "%C3", "x" * 50, "[", "'" * 9000):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            header = f"{word},{word}=1,a={word},b={word},c={word},a={word}"
            restore(extract({"baggage": header}, audience="public"))
        said |= {str(warning.message) for warning in caught}
    assert not any(word in text for text in said for word in ("zebra", "other", "third", "xx", "''"))
    assert len(said) < 12
