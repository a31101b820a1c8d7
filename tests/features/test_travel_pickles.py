"""What goes through a pickle: registered variables by name, bound functions with their values, and changes back."""

from __future__ import annotations

import copy
import decimal
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contextvars_cy import ContextVar, apply, assign, bind, travel
from helpers import run_python
from refusals import refuses

pytestmark = pytest.mark.usefixtures("nothing_registered", "context_of_its_own")

USER: ContextVar[Any] = ContextVar("user", default="nobody")
ROWS: ContextVar[Any] = ContextVar("rows", default=0)
SECRET: ContextVar[Any] = ContextVar("secret", default="unset")


@pytest.fixture(autouse=True)
def two_registered(nothing_registered: None) -> None:
    travel.register(USER, "user")
    travel.register(ROWS, "rows", codec=int)


def seen(*more: object) -> list[object]:
    return [USER.get(), ROWS.get(), SECRET.get(), *more]


def add_rows(number: int) -> str:
    ROWS.set(ROWS.get() + number)
    USER.set("somebody else")
    SECRET.set("changed")
    return "added"


def there_and_back(thing: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> Any:
    return pickle.loads(pickle.dumps(thing, protocol))


# ---- variables ----


@pytest.mark.parametrize("protocol", range(6))
def test_a_registered_variable_pickles_by_its_name(protocol: int) -> None:
    assert there_and_back(USER, protocol) is USER
    assert there_and_back({"key": [USER, ROWS]}, protocol) == {"key": [USER, ROWS]}
    assert b"nobody" not in pickle.dumps(USER, protocol)


def test_a_name_that_is_unknown_on_the_other_side() -> None:
    data = pickle.dumps(USER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(travel, "_registered", travel._Registrations())
        refusal = "user: no variable is registered by this name here; import the module that does it"
        refusal += f"; over there it was {__name__!r}"
        with refuses(travel.TravelError, refusal):
            pickle.loads(data)


def test_another_variable_says_how_to_register_it() -> None:
    with pytest.raises(TypeError, match=r"contextvars_cy\.travel\.register\(variable, \"its-name\"\)"):
        pickle.dumps(SECRET)


def test_code_that_is_of_no_module_may_register() -> None:
    names: dict[str, Any] = {"register": travel.register, "var": ContextVar("var")}
    exec("register(var, 'of-no-module')", names)
    assert there_and_back(names["var"]) is names["var"]
    with names["var"].set("a"):
        assert dict(there_and_back(travel.capture())) == {"of-no-module": "a"}


# ---- bound functions ----


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_bound_function_takes_registered_values_along(protocol: int) -> None:
    with assign({USER: "ada", ROWS: 3, SECRET: "password"}):
        bound = bind(seen)
        data = pickle.dumps(bound, protocol)
        assert bound("here") == ["ada", 3, "password", "here"]
    with USER.set("of the other process"), SECRET.set("of the other process"):
        arrived = pickle.loads(data)
        assert arrived("there") == ["ada", 3, "unset", "there"]
        assert USER.get() == "of the other process"
    assert b"password" not in data
    assert (arrived.__name__, arrived.__wrapped__) == ("seen", seen)


def test_it_may_travel_on() -> None:
    with assign({USER: "ada", ROWS: 3}):
        bound = bind(seen)
    assert there_and_back(there_and_back(bound))() == ["ada", 3, "unset"]


def test_only_the_variables_that_it_was_bound_to() -> None:
    with assign({USER: "ada", ROWS: 3}):
        bound = bind(seen, only=[ROWS])
    assert there_and_back(bound)() == ["nobody", 3, "unset"]


def test_each_call_over_there_has_a_copy_of_its_own() -> None:
    with ROWS.set(1):
        arrived = there_and_back(bind(add_rows, returns=[ROWS]))
    for _ in range(2):
        value, changes = arrived(10)
        assert (value, dict(changes)) == ("added", {ROWS: 11})


def test_a_value_that_does_not_travel_does_not_stop_the_function() -> None:
    with assign({USER: "ada", ROWS: "many"}):
        bound = bind(seen)
        with pytest.warns(travel.TravelWarning, match="rows: its value is a str"):
            data = pickle.dumps(bound)
    assert pickle.loads(data)() == ["ada", 0, "unset"]


def test_a_function_that_does_not_pickle_says_so_itself() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(bind(lambda: None))  # type: ignore[misc]


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy])
def test_copies_keep_what_is_not_registered(act: Callable[[Any], Any]) -> None:
    with SECRET.set("password"):
        bound = bind(seen)
    assert act(bound) is bound
    value, changes = act(bind(add_rows, returns=[SECRET])(1))
    assert value == "added" and changes[SECRET] == "changed"
    assert act({"key": bound})["key"]() == ["nobody", 0, "password"]


# ---- changes that come back ----


def test_changes_come_back_where_they_are_asked_for() -> None:
    bound = bind(add_rows, returns=[ROWS, SECRET])
    for call in (bound, there_and_back(bind(add_rows, returns=[ROWS]))):
        value, changes = call(2)
        assert value == "added"
        assert seen() == ["nobody", 0, "unset"]
        with apply(changes):
            assert ROWS.get() == 2 and USER.get() == "nobody"
        assert ROWS.get() == 0


def test_changes_come_back_through_a_pickle() -> None:
    value, changes = there_and_back(bind(add_rows, returns=[ROWS])(2))
    assert (value, dict(changes)) == ("added", {ROWS: 2})


def test_what_was_not_changed_stays_as_it_is_here() -> None:
    with assign({ROWS: 1, USER: "ada"}):
        _, changes = bind(seen, returns=[ROWS, USER])()
    assert dict(changes) == {}


def test_an_unregistered_variable_cannot_come_back_from_elsewhere() -> None:
    with pytest.raises(TypeError, match=r"contextvars_cy\.travel\.register"):
        pickle.dumps(bind(add_rows, returns=[SECRET]))


def test_an_error_passes_and_brings_nothing() -> None:
    def fail() -> None:
        ROWS.set(5)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bind(fail, returns=[ROWS])()
    assert ROWS.get() == 0


def test_what_returns_may_be() -> None:
    async def coroutine() -> None:
        pass

    with refuses(
        TypeError, f"bind() takes an iterable of variables as returns, not {ROWS!r}: write returns=[variable]"
    ):
        bind(seen, returns=ROWS)  # type: ignore[call-overload]
    with refuses(TypeError, "a ContextVar key was expected, got 'rows'"):
        bind(seen, returns=["rows"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"^bind\(\) takes no returns for a coroutine function"):
        bind(coroutine, returns=[ROWS])
    assert bind(add_rows, returns=iter([ROWS]))(1)[1][ROWS] == 1


# ---- other processes, really ----

SHARED = """
from contextvars_cy import ContextVar, travel

user = ContextVar("user", default="nobody")
travel.register(user, "user")


def greet(greeting):
    return f"{greeting}, {user.get()}"
"""


def test_a_pickle_is_read_by_a_new_process(tmp_path: Path) -> None:
    """It imports what has registered the variables."""
    (tmp_path / "shared.py").write_text(SHARED, encoding="utf-8")
    send = "import pickle, shared; from contextvars_cy import bind\n"
    send += "with shared.user.set('ada'): print([*pickle.dumps([shared.user, bind(shared.greet)])])"
    read = f"import pickle; var, greet = pickle.loads(bytes({json.loads(run_python(['-c', send], tmp_path).stdout)}))\n"
    read += "print(greet('hello'), var.get())"
    done = run_python(["-W", "error", "-c", read], tmp_path)
    assert done.stdout == "hello, ada nobody\n", done.stderr


def sent_by(program: str, folder: Path) -> str:
    """A program's code that makes `arrived`, the object that another program has pickled as `sent`."""
    done = run_python(["-W", "error", "-c", f"import pickle\n{program}\nprint([*pickle.dumps(sent)])"], folder)
    assert done.stderr == ""
    return f"import pickle\narrived = pickle.loads(bytes({done.stdout.strip()}))\n"


SLOW = """
import sys
import time
from contextvars_cy import ContextVar, travel

user = ContextVar("user", default="nobody")
if "threads" in sys.argv:
    threads = sys.modules["__main__"].threads
    threads[1].start()
    # Until the other thread is about to wait for this import, or was not made to.
    time.sleep(0.3)
travel.register(user, "user")
"""
IN_TWO_THREADS = """
import threading


def arrive():
{work}
    print(shared.user.get())


threads = [threading.Thread(target=arrive) for _ in "12"]
threads[0].start()
for thread in threads:
    while thread.ident is None:
        pass
    thread.join()
"""


@pytest.mark.parametrize("sent", ["shared.user", "travel.capture()"])
def test_a_module_that_another_thread_is_importing_is_waited_for(sent: str, tmp_path: Path) -> None:
    (tmp_path / "shared.py").write_text(SLOW, encoding="utf-8")
    send = f"import shared\nfrom contextvars_cy import travel\nshared.user.set('ada')\nsent = {sent}"
    work = sent_by(send, tmp_path)
    if "capture" in sent:
        work += "from contextvars_cy.travel import restore\nrestore(arrived)\n"
    else:
        work += "arrived.set('ada')\n"
    work = "".join(f"    {line}\n" for line in f"{work}import shared".splitlines())
    done = run_python(["-W", "error", "-c", IN_TWO_THREADS.format(work=work), "threads"], tmp_path)
    assert (done.stdout, done.stderr) == ("ada\nada\n", "")


FAILING = """
import os
from contextvars_cy import ContextVar, travel

{before}
level = ContextVar("level", default="unset")
travel.register(level, "level")
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("os.environ['LEVEL']", "settings registers variables, and its import fails here: 'LEVEL'"),
        ("if 'LEVEL' not in os.environ: import missing", "No module named 'missing'"),
    ],
)
def test_a_module_that_fails_over_there_costs_its_own_values_alone(before: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text(FAILING.format(before=before), encoding="utf-8")
    (tmp_path / "shared.py").write_text(SHARED, encoding="utf-8")
    send = "import os; os.environ['LEVEL'] = '1'\nimport settings, shared\nfrom contextvars_cy import bind\n{}"
    send += "shared.user.set('ada')\nsent = bind(shared.greet)"
    done = run_python(["-W", "error", "-c", sent_by(send.format(""), tmp_path) + "print(arrived('hello'))"], tmp_path)
    assert (done.stdout, done.stderr) == ("hello, ada\n", "")
    needed = sent_by(send.format("settings.level.set('high')\n"), tmp_path)
    done = run_python(["-c", needed + "print(arrived('hello'))"], tmp_path)
    assert done.stdout == "hello, ada\n"
    assert f"a value does not travel: {said}" in done.stderr or said in done.stderr
    assert "a value does not travel: level: no variable is registered by this name here" in done.stderr
    variable = sent_by(send.format("").replace("bind(shared.greet)", "settings.level"), tmp_path)
    done = run_python(["-c", variable], tmp_path)
    assert "TravelError: level: no variable is registered by this name here" in done.stderr and said in done.stderr


def test_a_bound_class_that_defines_how_its_instances_pickle() -> None:
    assert there_and_back(bind(decimal.Decimal))("1.5") == decimal.Decimal("1.5")
