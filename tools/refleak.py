"""Count what each operation leaves behind: references and blocks of memory, on a debug build of CPython.

    python3-dbg tools/refleak.py

A debug build counts every reference there is. Each scenario runs some rounds to warm up, so that caches are full, and
then some more; a scenario that leaks adds something in each round, and is named. Exit status 0: none does.
CONTEXTVARS_CY_BACKEND and CONTEXTVARS_CY_HOST choose what is tested.
"""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import contextvars_cy
from contextvars_cy import (
    Context,
    ContextVar,
    Hamt,
    HamtSet,
    Token,
    apply,
    assign,
    bind,
    copy_context,
    current_context,
    fresh,
    install,
    thread_state,
    tracing,
    travel,
    uninstall,
    watch,
)
from contextvars_cy.executors import Thread

WARM_UP, ROUNDS = 40, 200
# The type cache keeps the names that were looked up, which an event loop adds to for hundreds of rounds.
clear_caches = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache  # before 3.13
SCENARIOS: dict[str, Callable[[], object]] = {}

VAR: ContextVar[Any] = ContextVar("VAR", default="default")
BARE: ContextVar[Any] = ContextVar("BARE")
TRAVELLING: ContextVar[str] = ContextVar("TRAVELLING")
travel.register(TRAVELLING, "travelling", audience="trusted")


class Value:
    """Can be told from all others, and can hold what holds it."""


class BadKey:
    """One hash for all, and an equality that raises."""

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError


def scenario(function: Callable[[], object]) -> Callable[[], object]:
    SCENARIOS[function.__name__] = function
    return function


def refused(function: Callable[..., object], *args: object, **kwargs: object) -> None:
    """Call what has to raise; this reveals a scenario that no longer does what it says."""
    try:
        function(*args, **kwargs)
    except Exception:
        return
    raise AssertionError(f"{function!r} was expected to raise")


# ---- variables and tokens ----


@scenario
def variables() -> None:
    var = ContextVar("var", default=Value())
    var.name, repr(var), hash(var), ContextVar[int]
    for args in ((), (1,), ("a", "b")):
        refused(ContextVar, *args)
    refused(ContextVar, "a", other=1)
    refused(var.__reduce_ex__, 2)


@scenario
def get_and_set() -> None:
    def body() -> None:
        refused(BARE.get)
        VAR.get(), BARE.get(Value())
        for _ in range(3):
            token = BARE.set(Value())
        BARE.get()
        token.var, token.old_value, repr(token), Token[int]
        refused(hash, token)

    Context().run(body)


@scenario
def reset() -> None:
    def body() -> None:
        token = VAR.set(Value())
        refused(BARE.reset, token)
        refused(VAR.reset, 1)
        refused(Context().run, VAR.reset, token)
        VAR.reset(token)
        refused(VAR.reset, token)
        with VAR.set(Value()):
            pass
        try:
            with VAR.set(Value()):
                1 / 0  # noqa: B018
        except ZeroDivisionError:
            pass
        refused(Token)

    Context().run(body)


@scenario
def assignments() -> None:
    def body() -> None:
        with assign({VAR: Value(), BARE: Value()}) as assignment:
            # In place, and with a copy that shares the values.
            assign({VAR: Value(), BARE: Value()}).undo()
            context = copy_context()
            assign({VAR: assignment, BARE: Value()})
            refused(context.run, assignment.undo)
        refused(assignment.undo)
        refused(assign, {VAR: Value(), 1: Value()})

    Context().run(body)


@scenario
def unset_and_made() -> None:
    def body() -> None:
        made = ContextVar("made", default_factory=Value)
        refused(ContextVar, "made", default=1, default_factory=Value)
        refused(ContextVar, "made", default_factory=1)
        made.is_set(), made.get(), made.get(1), repr(made)
        with made.unset():
            made.get()
        token = made.set(Value())
        Context().run(made.try_reset, token), made.try_reset(token)
        refused(made.try_reset, token)
        refused(ContextVar("failing", default_factory=lambda: 1 / 0).get)

    Context().run(body)


@scenario
def watching() -> None:
    events: list[object] = []

    def body() -> None:
        with watch(events.append), VAR.watch(lambda event: VAR.set(Value())) as watcher:
            with VAR.set(Value()), assign({VAR: Value(), BARE: Value()}), VAR.unset():
                copy_context().run(VAR.set, Value())
                current_context().copy().run(BARE.get, Value())
                token = VAR.set(Value())
                Context().run(VAR.try_reset, token)
                refused(Context().run, VAR.reset, token)
                refused(Context().run, BARE.get)
                with copy_context():
                    refused(VAR.reset, 1)
            refused(Context().run, lambda: 1 / 0)
            watcher.cancel()
        refused(watch, 1)

    Context().run(body)


# ---- Contexts ----


@scenario
def mapping() -> None:
    context = Context()
    context.run(VAR.set, Value())
    list(context), list(context.keys()), list(context.values()), list(context.items())
    context[VAR], context.get(VAR), context.get(BARE), VAR in context, len(context), repr(context)
    context == context.copy(), context == Context(), context != 1
    next(context.items())
    for act in (context.__getitem__, context.get, context.__contains__):
        refused(act, "VAR")
    refused(context.__getitem__, BARE)
    refused(hash, context)
    refused(reversed, context)
    refused(Context, 1)
    refused(setattr, context, "attribute", 1)
    refused(context.__reduce_ex__, 2)


@scenario
def run() -> None:
    context = copy_context()
    context.run(int), context.run(int, "1", base=3), context.run(copy_context)
    refused(context.run)
    refused(context.run, int, "x")
    refused(context.run, context.run, int)
    refused(context.run, BARE.get)


@scenario
def enter_and_exit() -> None:
    context, state = Context(), thread_state()
    with context:
        VAR.set(Value())
        refused(context.__enter__)
        refused(context.run, int)
    refused(context.__exit__, None, None, None)
    state.enter(context)
    state.context, current_context(), repr(state)
    refused(state.exit, Context())
    state.exit(context)
    refused(state.exit, context)
    refused(state.enter, 1)
    refused(type(state))
    if contextvars_cy.host == "native":
        context.native.run(VAR.get), context.native.run(current_context)
    else:
        refused(getattr, context, "native")


@scenario
def cycles() -> None:
    context = Context()
    value: Any = Value()
    context.run(VAR.set, value)
    value.context, value.copy, value.items = context, context.copy(), context.items()
    value.token = context.run(VAR.set, None)
    value.reference = weakref.ref(context)


@scenario
def threads() -> None:
    context = copy_context()

    def work() -> None:
        VAR.set(Value())
        thread_state()
        context.run(VAR.set, Value())
        current_context()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@scenario
def carried() -> None:
    def body() -> None:
        VAR.set(Value())
        value, changes = bind(BARE.set, returns=[BARE])(Value())
        apply(changes).undo()
        bind(VAR.get, only=[VAR])()
        thread = Thread(target=VAR.get)
        thread.start()
        thread.join()

    Context().run(body)


@scenario
def fresh_ones() -> None:
    block = fresh(keep=[VAR])

    @block
    def steps() -> Iterator[object]:
        yield BARE.set(Value())
        yield VAR.set(Value())

    def body() -> None:
        VAR.set(Value()), BARE.set(Value())
        with block:
            refused(BARE.get)
            next(steps())
        refused(fresh, keep=1)

    Context().run(body)


@scenario
def travelling() -> None:
    def body() -> None:
        TRAVELLING.set("text")
        headers: dict[str, str] = {}
        travel.inject(headers, audience="trusted")
        with travel.restore(travel.extract(headers)), travel.restore(travel.capture()):
            TRAVELLING.get()
        refused(travel.restore, headers)

    Context().run(body)


@scenario
def snapshots() -> None:
    def work() -> None:
        with copy_context(), VAR.set(Value()):
            begun.set()
            end.wait()

    begun, end = threading.Event(), threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    str(tracing.snapshot()), tracing.snapshot().to_json()
    end.set()
    thread.join()


@scenario
def recordings() -> None:
    def body() -> None:
        refused(BARE.get)
        with VAR.set(Value()):
            held = copy_context()
            held.run(VAR.set, held)
        recording.why(BARE, held), recording.history(VAR), recording.tree(), recording.leaks()

    with tracing.record() as recording:
        Context().run(body)
    recording.to_json()


@scenario
def installing() -> None:
    install()
    import contextvars

    var: contextvars.ContextVar[int] = contextvars.ContextVar("var")
    contextvars.Context().run(var.set, 1)
    uninstall()


@scenario
def event_loop() -> None:
    import asyncio

    if contextvars_cy.host == "thread":
        return

    async def work() -> None:
        VAR.set(Value())
        await asyncio.sleep(0)
        context: Any = copy_context()
        asyncio.get_running_loop().call_soon(VAR.get, context=context)

    async def main() -> None:
        await asyncio.gather(work(), work())
        await asyncio.create_task(work(), context=Context().native)
        await asyncio.to_thread(VAR.get)

    asyncio.run(main())


# ---- maps ----


@scenario
def maps() -> None:
    hamt: Hamt[Any, Any] = Hamt({number: Value() for number in range(100)})
    hamt = hamt.set(1, Value()).delete(2).discard(3).update({"four": Value()}, five=5) | {6: Value()}
    hamt.get(1), hamt.find(1), hamt[1], 1 in hamt, len(hamt), repr(Hamt(a=1)), hash(Hamt(a=1)), Hamt[int, int]
    list(hamt), list(hamt.items()), list(hamt.values()), hamt.keys() & {1}, hamt == hamt.set(1, 1)
    Hamt(a=1).__reduce_ex__(2), Hamt.fromkeys("ab"), weakref.ref(hamt), next(iter(hamt.items()))
    for name in ("__getitem__", "delete"):
        refused(getattr(hamt, name), "missing")
    for name in ("get", "set", "discard", "__contains__"):
        refused(getattr(hamt, name), [], *([1] if name == "set" else []))
    sources: list[Any] = [1, [1], [(1, 2, 3)], [([], 1)]]
    for source in sources:
        refused(Hamt, source)
        refused(hamt.update, source)
    refused(hash, Hamt(a=[]))


@scenario
def hostile_keys() -> None:
    hamt = Hamt({BadKey(): 1})
    for act in (hamt.get, hamt.discard, hamt.__contains__, hamt.__getitem__):
        refused(act, BadKey())
    refused(hamt.set, BadKey(), 1)
    refused(Hamt, [(BadKey(), 1), (BadKey(), 2)])
    refused(hamt.mutate().set, BadKey(), 1)
    refused(hamt.diff, Hamt({BadKey(): 1}))


@scenario
def mutations() -> None:
    hamt: Hamt[Any, Any] = Hamt({number: Value() for number in range(50)})
    mutation = hamt.mutate()
    mutation[1] = Value()
    del mutation[2]
    mutation.update({3: Value()})
    mutation.pop(4), mutation.pop("missing", None), mutation.get(1), len(mutation), repr(mutation)
    refused(mutation.__delitem__, "missing")
    refused(mutation.pop, "missing")
    refused(mutation.update, [1])
    mutation.finish()
    refused(mutation.__setitem__, 1, 1)
    with hamt.mutate() as mutation:
        mutation["a"] = mutation


@scenario
def differences_and_merges() -> None:
    base: Hamt[Any, Any] = Hamt({number: Value() for number in range(50)})
    mine, theirs = base.set(1, Value()).delete(2), base.set(1, Value()).set("new", Value())
    base.diff(mine), mine.diff(theirs)
    base.merge(mine, theirs, resolve=lambda key, old, one, two: one)
    refused(base.merge, mine, theirs)
    refused(base.merge, mine, theirs, resolve=lambda *_: 1 / 0)
    refused(base.diff, 1)


@scenario
def sets() -> None:
    one: HamtSet[Any] = HamtSet(range(40))
    two = HamtSet(range(20, 60))
    one | two, one & two, one - two, one ^ two, one == two, one <= two, repr(HamtSet("a")), hash(one)
    one.add(Value()), one.remove(1), one.discard("missing"), 1 in one, list(one), one.isdisjoint(two)
    refused(one.remove, "missing")
    refused(one.add, [])
    refused(HamtSet, 1)


# ---- counting ----


def totals() -> tuple[int, int]:
    clear_caches()
    for _ in range(3):
        gc.collect()
    return sys.gettotalrefcount(), sys.getallocatedblocks()


def growth(function: Callable[[], object]) -> tuple[int, int]:
    """The references and blocks that the rounds have added."""
    for _ in range(WARM_UP):
        function()
    references, blocks = totals()
    for _ in range(ROUNDS):
        function()
    more_references, more_blocks = totals()
    return more_references - references, more_blocks - blocks


def main() -> int:
    if not hasattr(sys, "gettotalrefcount"):
        sys.exit("this Python does not count its references; run a debug build (python3.14-dbg)")
    print(f"{sys.version.split()[0]}, {contextvars_cy.backend} backend, {contextvars_cy.host} host: added in", end=" ")
    print(f"{ROUNDS} rounds\n{'scenario':<24}{'references':>12}{'blocks':>8}")
    leaking = []
    for name, function in SCENARIOS.items():
        references, blocks = growth(function)
        # A leak adds at least one in each round; the counting itself, and caches, add a few in all of them.
        leaks = max(references, blocks) >= ROUNDS
        print(f"{name:<24}{references:>12}{blocks:>8}{'  leaks' if leaks else ''}")
        if leaks:
            leaking.append(name)
    print(f"leaks: {', '.join(leaking)}" if leaking else "flat")
    return bool(leaking)


if __name__ == "__main__":
    sys.exit(main())
