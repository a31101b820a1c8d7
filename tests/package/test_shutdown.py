"""The interpreter's end: whatever still runs, holds or finalises something then, its exit is silent and successful."""

from pathlib import Path

import pytest

from helpers import run_python

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


@pytest.mark.parametrize("host", ["native", "thread"])
@pytest.mark.parametrize("backend", ["pure", "cython"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_exit_is_silent(program, backend, host, tmp_path):
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host}
    for _ in range(TIMES):
        done = run_python(["-X", "dev", "-c", BEGIN + PROGRAMS[program]], cwd=tmp_path, env=env)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("host", ["native", "thread"])
@pytest.mark.parametrize("backend", ["pure", "cython"])
@pytest.mark.parametrize("seed", range(15))
def test_random_finalisers_are_silent(seed, backend, host, tmp_path):
    env = {"CONTEXTVARS_CY_BACKEND": backend, "CONTEXTVARS_CY_HOST": host, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = run_python(["-c", f"import endings; endings.main({seed})"], cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
