"""The interpreter's end: whatever still runs, holds or finalises something then, its exit is silent and successful."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import run_python
from interpreters import threads_outlive_their_interpreter

BEGIN = """
import atexit, sys, threading, time
from contextvars_cy import Context, ContextVar, Hamt, HamtSet, Token, copy_context, current_context, thread_state

var = ContextVar("var", default=0)
context = Context()

def use(get=var.get, set=var.set, reset=var.reset, copy_context=copy_context, current_context=current_context,
        thread_state=thread_state, Context=Context, Hamt=Hamt):
    token = set(1)
    assert get() == 1
    reset(token)
    with Context() as inner:
        set(2)
        assert current_context() is inner and inner.run is not None
    copy_context().run(set, 3)
    thread_state().enter(inner)
    thread_state().exit(inner)
    assert len(Hamt(a=1).set("b", get())) == 2
"""
PROGRAMS = {
    "values are set and Contexts entered": """
var.set(object())
thread_state().enter(context)
var.set([context, current_context(), thread_state(), iter(context.items())])
copy = copy_context()
""",
    "atexit handlers use them": """
atexit.register(use)
context.run(atexit.register, use)
atexit.register(context.run, use)
thread_state().enter(Context())
""",
    "finalisers use them": """
class Value:
    def __init__(self, *held):
        self.held = held
    def __del__(self, use=use):
        use()

var.set(Value())
context.run(var.set, Value(context))
thread_state().enter(Context())
var.set(Value(current_context(), Hamt({"a": Value()}), HamtSet([Value()])))
sys.value_in_sys = Value()
cycle = Value()
cycle.cycle = cycle
""",
    "generators are inside": """
def generator():
    with context:
        with var.set(1):
            yield
held = generator()
next(held)
""",
    "daemon threads run in Contexts": """
def work(number):
    own = Context()
    def loop():
        while True:
            with var.set(number):
                with copy_context():
                    var.set(None)
                use()
    own.run(loop)
for number in range(4):
    threading.Thread(target=work, args=[number], daemon=True).start()
time.sleep(0.05)
""",
    "daemon threads wait in Contexts": """
def work(number):
    with Context():
        var.set(number)
        time.sleep(1000)
for number in range(4):
    threading.Thread(target=work, args=[number], daemon=True).start()
time.sleep(0.01)
""",
    "an interrupt hook keeps a Context": """
def install(context, before=sys.excepthook):
    sys.excepthook = sys.unraisablehook = threading.excepthook = lambda *given: (context.get(var), before(*given))
install(current_context())
""",
    "a thread is still to end": """
def work():
    threading.main_thread().join()
    use()
    var.set(Context())
threading.Thread(target=work).start()
""",
    "an exit in a Context": """
with context, var.set(1):
    context.copy().run(sys.exit)
""",
}
TIMES = 3
MARKS = {"daemon threads run in Contexts": threads_outlive_their_interpreter}


@pytest.mark.parametrize("host", ["native", "thread"])
@pytest.mark.parametrize("backend", ["pure", "cython"])
@pytest.mark.parametrize("program", [pytest.param(name, marks=MARKS.get(name, ())) for name in PROGRAMS])
def test_the_exit_is_silent(program: str, backend: str, host: str, tmp_path: Path) -> None:
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
    for _ in range(TIMES):
        done = run_python(["-X", "dev", "-c", BEGIN + PROGRAMS[program]], cwd=tmp_path, env=env)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("host", ["native", "thread"])
@pytest.mark.parametrize("backend", ["pure", "cython"])
@pytest.mark.parametrize("seed", range(15))
def test_random_finalisers_are_silent(seed: int, backend: str, host: str, tmp_path: Path) -> None:
    env = {
        "CONTEXTVARS_CY_BACKEND": backend,
        "CONTEXTVARS_CY_HOST": host,
        "PYTHONPATH": str(Path(__file__).parents[1] / "support"),
    }
    done = run_python(["-c", f"import endings; endings.main({seed})"], cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


LATE = """
import builtins, os, sys, threading
import contextvars_cy
from contextvars_cy import (
    Context, ContextVar, Hamt, HamtSet, Local, Proxy, apply, assign, bind, copy_context, current_context, isolated,
    thread_state, watch
)
from contextvars_cy import executors
from contextvars_cy.executors import Thread, ThreadPoolExecutor, run_in_executor

class Request(Local):
    __slots__ = ("user",)
    def user_or_none(self):
        return getattr(self, "user", None)

@isolated
def rows():
    with var.set(1):
        yield var.get()

@isolated
async def work():
    return var.get()

var = ContextVar("var", default=0)
proxy = var.proxy()
local, request = Local(), Request()
bound = bind(var.get)
started = rows()
next(started)
watcher = watch(lambda event: None)

def use_variables():
    with var.set(1):
        assert var.get() == 1
    var.reset(var.set(2))
    assert var.try_reset(var.set(3)) and not var.is_set()
    var.unset()

def use_contexts():
    assert Context().run(var.set, 1).old_value is var.set(1).old_value
    assert thread_state().context is current_context()
    assert dict(copy_context()) == dict(current_context().copy())
    var.unset()

def use_assign_and_apply():
    context = Context()
    with assign({var: 1}), apply(context), apply(context, only=[var]):
        assert var.get() == 1

def use_local():
    for each in (local, request, Local(), Request()):
        each.user = each.other = 1
        assert each.user == 1 and dict(vars(each)) == {"user": 1, "other": 1}
        del each.user
    assert request.user_or_none() is None

def use_proxy():
    assert proxy + 1 == 1 and repr(proxy) == "0" and Proxy(var) == 0 and var.proxy() == 0

def use_bind():
    assert bound() == bind(var.get)() == bind(var.get, only=[var])() == 0

def use_watch():
    events = []
    with watch(events.append), var.watch(events.append):
        var.reset(var.set(1))
    watcher.cancel()
    assert len(events) == 4

def use_isolated():
    assert list(rows()) == list(isolated(rows.__wrapped__)()) == [1] and var.get() == 0
    started.close()
    try:
        work().send(None)
    except StopIteration as stop:
        assert stop.value == 0

def use_maps():
    hamt = Hamt(a=1).set("b", 2)
    assert len(hamt | {"c": 3}) == len({"c": 3} | hamt) == len(hamt | Hamt(c=3)) == 3
    assert HamtSet("ab") | HamtSet("c") == HamtSet("abc") == {"a", "b", "c"} and HamtSet("a") < frozenset("ab")
    with Hamt().mutate() as mutation:
        mutation["key"] = HamtSet("a")
    assert repr(mutation.finish()) == repr(Hamt(key=HamtSet("a"))) == "Hamt({'key': HamtSet({'a'})})"
    assert repr(Hamt().mutate()) == "HamtMutation({})"
    assert [repr(view()) for view in (hamt.keys, hamt.values, hamt.items)] and hamt.diff(Hamt(a=1)).removed == {"b": 2}

def use_install():
    contextvars_cy.install()
    contextvars_cy.uninstall()

def use_executors():
    for refused in (ThreadPoolExecutor(1).submit, lambda call: run_in_executor(None, call)):
        try:
            refused(int)
        except RuntimeError:
            pass
        else:
            assert False
    Thread(target=int, context=Context())

class Value:
    def __init__(self, use):
        self.use = use
    def __del__(self, write=os.write):
        self.use()
        write(1, self.use.__name__.encode() + b" ")

EARLY = [use for name, use in globals().items() if name.startswith("use_")]
# After all other modules the interpreter's own threads do not work any more, and there is no `sys.modules`.
LAST = [use for use in EARLY if use not in (use_install, use_executors)]
"""
EARLY = [
    f"use_{what}"
    for what in "variables contexts assign_and_apply local proxy bind watch isolated maps install executors".split()
]
HOLDERS = {
    "a module": "values = [Value(use) for use in EARLY]",
    "sys.modules": "sys.modules['values'] = [Value(use) for use in EARLY]",
    "the builtins": "builtins.values = [Value(use) for use in EARLY]",
    "a cycle": "values = [Value(use) for use in EARLY]; values.append(values); del values",
    "a threading.local": "uses = threading.local(); uses.values = [Value(use) for use in EARLY]",
}
LAST_HOLDERS = {
    "a hook": """
def hook(*args, values=[Value(use) for use in LAST]):
    pass
sys.excepthook = threading.excepthook = hook
del hook
""",
    "sys": "sys.values = [Value(use) for use in LAST]",
}


@pytest.mark.parametrize("host", ["native", "thread"])
@pytest.mark.parametrize("backend", ["pure", "cython"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_what_is_finalised_late_may_use_everything(holder: str, backend: str, host: str, tmp_path: Path) -> None:
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
    done = run_python(["-X", "dev", "-c", LATE + HOLDERS[holder]], cwd=tmp_path, env=env)
    assert (done.returncode, sorted(done.stdout.split()), done.stderr) == (0, sorted(EARLY), "")


@pytest.mark.parametrize("host", ["native", "thread"])
@pytest.mark.parametrize("backend", ["pure", "cython"])
@pytest.mark.parametrize("holder", LAST_HOLDERS)
def test_what_is_finalised_last_may_use_all_that_can_be_then(
    holder: str, backend: str, host: str, tmp_path: Path
) -> None:
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
    done = run_python(["-X", "dev", "-c", LATE + LAST_HOLDERS[holder]], cwd=tmp_path, env=env)
    assert (done.returncode, sorted(done.stdout.split()), done.stderr) == (0, sorted(EARLY[:-2]), "")
