"""Being told of changes: `watch`, `ContextVar.watch`, their events and their end."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contextvars_cy import (
    MISSING,
    Context,
    ContextVar,
    WatchEvent,
    assign,
    backend,
    bind,
    copy_context,
    current_context,
    thread_state,
    watch,
)
from contextvars_cy._features import watch as watch_module
from interpreters import needs_room_at_the_end, needs_room_to_leave


class Value:
    """Can be referred to weakly."""


VAR: ContextVar[Any] = ContextVar("VAR")
OTHER: ContextVar[Any] = ContextVar("OTHER")


@pytest.fixture
def home() -> Iterator[Context]:
    with copy_context() as context:
        yield context


@pytest.fixture
def events() -> list[WatchEvent]:
    return []


def told(events: list[WatchEvent]) -> list[tuple[object, ...]]:
    """The events without their Contexts, the variables by name."""
    return [
        (event.kind, event.variable and event.variable.name, event.old_value, event.value)
        for event in events
        if event.kind != "switch"
    ]


def test_each_change_is_told_with_what_was_and_what_is(home: Context, events: list[WatchEvent]) -> None:
    with watch(events.append):
        token = VAR.set(1)
        with VAR.set(2):
            pass
        VAR.unset()
        VAR.unset()
        VAR.reset(token)
    assert told(events) == [
        ("set", "VAR", MISSING, 1),
        ("set", "VAR", 1, 2),
        ("reset", "VAR", 2, 1),
        ("unset", "VAR", 1, MISSING),
        ("unset", "VAR", MISSING, MISSING),
        ("reset", "VAR", MISSING, MISSING),
    ]
    assert all(event.context is home for event in events)


def test_assign_and_its_undo_are_told_for_each_variable(home: Context, events: list[WatchEvent]) -> None:
    VAR.set(1)
    with watch(events.append):
        assignment = assign({VAR: 2, OTHER: 3})
        assignment.undo()
    assert sorted(told(events), key=repr) == sorted(
        [
            ("set", "VAR", 1, 2),
            ("set", "OTHER", MISSING, 3),
            ("reset", "VAR", 2, 1),
            ("reset", "OTHER", 3, MISSING),
        ],
        key=repr,
    )
    assert [event.kind for event in events] == ["set", "set", "reset", "reset"]


def test_a_value_made_on_demand_is_told(home: Context, events: list[WatchEvent]) -> None:
    var = ContextVar("var", default_factory=int)
    with watch(events.append):
        var.get()
        var.get()
    assert told(events) == [("set", "var", MISSING, 0)]


def test_what_changes_nothing_is_not_told(home: Context, events: list[WatchEvent]) -> None:
    var = ContextVar("var", default=1)
    used = var.set(1)
    var.reset(used)
    with watch(events.append):
        var.is_set()
        copied = home.get(var), var in home, Context()
        for refused in (
            lambda: var.reset(used),
            lambda: var.reset(None),  # type: ignore[arg-type]
            lambda: assign({1: 1}),  # type: ignore[dict-item]
            lambda: home.run(len),  # type: ignore[call-arg]
        ):
            with pytest.raises((RuntimeError, TypeError)):
                refused()
    assert told(events) == [] and copied[:2] == (None, False)


@pytest.mark.parametrize(
    "make", [copy_context, lambda: current_context().copy(), lambda: copy.copy(current_context())], ids=["1", "2", "3"]
)
def test_a_copy_is_told(make: Callable[[], Context], home: Context, events: list[WatchEvent]) -> None:
    with watch(events.append):
        copied = make()
    assert told(events) == [("copy", None, MISSING, copied)]
    assert events[0].value is copied and events[0].context is home


def test_a_copy_that_bind_makes_is_told(home: Context, events: list[WatchEvent]) -> None:
    with watch(events.append):
        bound = bind(int)
        # It may give the copy a decimal context of its own, which is a switch.
        assert [event.context for event in events if event.kind != "switch"] == [home]
        bound()
    assert [event.kind for event in events if event.kind != "switch"] == ["copy", "copy", "enter", "exit"]


def test_a_read_of_an_unset_variable_is_told(home: Context, events: list[WatchEvent]) -> None:
    var = ContextVar("var", default=1)
    with watch(events.append):
        assert (var.get(), var.get(2)) == (1, 2)
        with pytest.raises(LookupError):
            VAR.get()
        with VAR.set(3):
            VAR.get()
    assert told(events)[:3] == [
        ("read", "var", MISSING, 1),
        ("read", "var", MISSING, 2),
        ("read", "VAR", MISSING, MISSING),
    ]
    assert [event.kind for event in events[3:]] == ["set", "reset"]
    assert all(event.context is home for event in events)


def test_a_token_of_another_context_is_told(home: Context, events: list[WatchEvent]) -> None:
    elsewhere = Context().run(VAR.set, 2)
    with watch(events.append):
        assert VAR.try_reset(elsewhere) is False
        with pytest.raises(ValueError):
            VAR.reset(elsewhere)
        with pytest.raises(ValueError):
            OTHER.reset(elsewhere)
    assert [(kind, name, old) for kind, name, old, _ in told(events)] == [("refuse", "VAR", MISSING)] * 2
    # The Context of the token.
    assert [event.value[VAR] for event in events] == [2, 2]
    assert all(event.context is home for event in events)


def test_who_watches_one_variable_is_told_of_its_changes_alone(home: Context, events: list[WatchEvent]) -> None:
    var = ContextVar("var", default=1)
    with var.watch(events.append):
        var.get()
        copy_context()
    assert events == []


@pytest.mark.parametrize("way", ["run", "with", "thread state"])
def test_entering_and_leaving_a_context_is_told(way: str, home: Context, events: list[WatchEvent]) -> None:
    context = Context()
    with watch(events.append):
        if way == "run":
            assert context.run(current_context) is context
        elif way == "with":
            with context:
                pass
        else:
            thread_state().enter(context)
            thread_state().exit(context)
    assert told(events) == [("enter", None, MISSING, MISSING), ("exit", None, MISSING, MISSING)]
    assert [event.context for event in events if event.kind != "switch"] == [context, context]


@pytest.mark.parametrize("way", ["run", "with"])
def test_what_was_left_is_let_go(way: str, home: Context, events: list[WatchEvent]) -> None:
    values = [Value() for _ in range(3)]
    references = [weakref.ref(value) for value in values]
    with VAR.watch(lambda event: None):
        while values:
            context = Context()
            context.run(OTHER.set, values.pop())
            if way == "run":
                context.run(int)
            else:
                with context:
                    pass
            del context
            gc.collect()
        assert [reference() for reference in references] == [None] * 3


def test_the_callback_runs_in_the_current_context(home: Context) -> None:
    context, seen = Context(), []
    with watch(lambda event: seen.append((event.kind, current_context() is context))):
        context.run(VAR.set, 1)
    assert [entry for entry in seen if entry[0] != "switch"] == [("enter", True), ("set", True), ("exit", False)]


def test_a_context_that_cannot_be_entered_or_left_is_not_told(home: Context, events: list[WatchEvent]) -> None:
    with watch(events.append):
        for refused in (lambda: home.run(len), home.__enter__, lambda: thread_state().exit(Context())):  # type: ignore[call-arg]
            with pytest.raises(RuntimeError):
                refused()
    assert told(events) == []


def test_a_call_that_fails_has_left_its_context_and_the_error_is_the_callables(
    home: Context, events: list[WatchEvent]
) -> None:
    with watch(events.append), pytest.raises(ZeroDivisionError):
        Context().run(lambda: 1 / 0)
    assert [event[0] for event in told(events)] == ["enter", "exit"]


def test_a_variable_is_watched_alone_and_through_contexts(home: Context, events: list[WatchEvent]) -> None:
    VAR.set("outside")
    inside, same = Context(), copy_context()
    inside.run(VAR.set, "inside")
    with VAR.watch(events.append):
        OTHER.set(1)
        inside.run(lambda: None)
        same.run(lambda: None)
        Context().run(VAR.set, "new")
        VAR.set("changed")
    assert told(events) == [
        ("enter", "VAR", "outside", "inside"),
        ("exit", "VAR", "inside", "outside"),
        ("enter", "VAR", "outside", MISSING),
        ("set", "VAR", MISSING, "new"),
        ("exit", "VAR", "new", "outside"),
        ("set", "VAR", "outside", "changed"),
    ]


def test_watching_ends_by_cancel_or_with_its_block(home: Context, events: list[WatchEvent]) -> None:
    watcher = watch(events.append)
    with VAR.watch(events.append) as other:
        VAR.set(1)
        assert len(events) == 2
        watcher.cancel()
        watcher.cancel()
        VAR.set(2)
        assert len(events) == 3
    other.cancel()
    VAR.set(3)
    assert len(events) == 3


def test_a_watcher_that_was_cancelled_keeps_no_value(home: Context) -> None:
    watcher = VAR.watch(lambda event: None)
    value = Value()
    reference = weakref.ref(value)
    with VAR.set(value):
        pass
    VAR.set(value)
    watcher.cancel()
    VAR.unset()
    del value
    gc.collect()
    assert reference() is None


def test_a_callback_that_watches_twice_is_called_twice_and_each_is_cancelled_by_itself(
    home: Context, events: list[WatchEvent]
) -> None:
    first, second = watch(events.append), watch(events.append)
    VAR.set(1)
    first.cancel()
    VAR.set(2)
    second.cancel()
    VAR.set(3)
    assert [event.value for event in events] == [1, 1, 2]


def test_a_callback_may_cancel_itself(home: Context, events: list[WatchEvent]) -> None:
    def once(event: WatchEvent) -> None:
        watcher.cancel()
        events.append(event)

    watcher = watch(once)
    VAR.set(1)
    VAR.set(2)
    assert [event.value for event in events] == [1]


def test_a_callback_that_sets_variables_does_not_tell_itself(home: Context, events: list[WatchEvent]) -> None:
    def answer(event: WatchEvent) -> None:
        events.append(event)
        VAR.set(event.value + 1)
        assign({OTHER: event.value})

    with watch(answer):
        VAR.set(1)
    assert told(events) == [("set", "VAR", MISSING, 1)]
    assert (VAR.get(), OTHER.get()) == (2, 1)


def test_two_callbacks_that_answer_each_other_come_to_an_end(home: Context, events: list[object]) -> None:
    def answer(event: WatchEvent) -> None:
        events.append(event.value)
        VAR.set(event.value + 1)

    with watch(answer), watch(lambda event: answer(event)):
        VAR.set(0)
    assert len(events) == 4 and VAR.get() == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_an_error_in_a_callback_goes_to_the_hook_and_the_change_stays(
    error: BaseException, home: Context, monkeypatch: pytest.MonkeyPatch, events: list[WatchEvent]
) -> None:
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(unraisable.exc_value))

    def fail(event: WatchEvent) -> None:
        raise error

    with watch(fail), watch(events.append):
        token = VAR.set(1)
        assert VAR.get() == 1
        VAR.reset(token)
        assert not VAR.is_set()
    # Where nothing counts references.
    gc.collect()
    assert sorted(map(id, seen)) == [id(error)] * 2
    assert [event[0] for event in told(events)] == ["set", "reset"]


if backend == "cython":
    # In the pure twin it goes to the caller.

    @pytest.mark.parametrize("error", [ValueError(), SystemExit()], ids=repr)
    def test_an_interrupt_before_the_watchers_are_told_goes_to_that_hook_alone(
        error: BaseException, home: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen, printed = [], []
        monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(unraisable.exc_value))
        monkeypatch.setattr(sys, "excepthook", lambda *error: printed.append(error))

        def interrupt(*told: object) -> None:
            raise error

        with watch(print):
            monkeypatch.setattr(watch_module, "_tell", interrupt)
            # Anew, with the interrupted one.
            watch(print).cancel()
            VAR.set(1)
        assert VAR.get() == 1
        assert (seen, printed) == ([error], [])


def test_an_error_in_a_callback_keeps_nothing(home: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)

    def fail(event: WatchEvent) -> None:
        raise ValueError

    value = Value()
    kept = weakref.ref(value)
    counted = sys.implementation.name == "cpython"
    if counted:
        gc.disable()
    try:
        with VAR.watch(fail), VAR.set(value):
            del value
        if not counted:
            # One finalises, the next finds what that has let go of.
            gc.collect(), gc.collect()
        assert kept() is None
    finally:
        gc.enable()


def with_block(context: Context) -> None:
    with context:
        pass


# What ctypes says, of either, the pure backend takes for a lack of memory.
NO_ROOM = (RecursionError, MemoryError)


@needs_room_at_the_end
@needs_room_to_leave
@pytest.mark.parametrize("enter", [lambda context: context.run(int), with_block], ids=["run", "with"])
def test_no_room_left_on_the_stack_leaves_no_context_entered(
    enter: Callable[[Context], object], home: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    entered = []

    def go_down() -> None:
        try:
            go_down()
        except RecursionError:
            pass
        before, context = current_context(), copy_context()
        try:
            enter(context)
        except NO_ROOM:
            if current_context() is not before:
                thread_state().exit(context)
                entered.append(context)

    limit = sys.getrecursionlimit()
    with watch(lambda event: None):
        sys.setrecursionlimit(300)
        try:
            go_down()
        except NO_ROOM:
            pass
        finally:
            sys.setrecursionlimit(limit)
    # While the hook is there.
    gc.collect()
    assert not entered


def test_who_is_cancelled_by_another_callback_is_not_told_of_the_same_event(
    home: Context, events: list[WatchEvent]
) -> None:
    with VAR.watch(lambda event: later.cancel()), VAR.watch(events.append) as later:
        VAR.set(1)
    assert not events


FINALISER = """
import gc
from contextvars_cy import ContextVar, watch

class Follower:
    def __init__(self):
        self.cycle, self.watcher = self, watch(int)

    def __del__(self):
        self.watcher.cancel()

variables = [ContextVar(str(number)) for number in range(50)]
if hasattr(gc, "set_threshold"):
    gc.set_threshold(1)
for _ in range(100):
    Follower()
    for watcher in [variable.watch(int) for variable in variables]:
        watcher.cancel()
"""


def test_a_finaliser_may_cancel_while_its_thread_does() -> None:
    subprocess.run([sys.executable, "-c", FINALISER], check=True, timeout=60)


def test_a_change_in_another_thread_is_told_there(home: Context, events: list[WatchEvent]) -> None:
    names = []

    def work() -> None:
        Context().run(VAR.set, 1)

    with watch(lambda event: (events.append(event), names.append(threading.current_thread().name))):  # type: ignore[func-returns-value]
        thread = threading.Thread(target=work, name="worker")
        thread.start()
        thread.join()
    assert ("set", "VAR", MISSING, 1) in told(events)
    assert set(names) == {"worker"}


def test_threads_that_watch_and_cancel_disturb_nobody(home: Context) -> None:
    stop, errors = threading.Event(), []

    def work() -> None:
        try:
            while not stop.is_set():
                with watch(lambda event: None), VAR.watch(lambda event: None):
                    Context().run(VAR.set, 1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(300):
        with copy_context(), VAR.set(number):
            assert VAR.get() == number
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.parametrize("callback", [None, 1, "callback"], ids=repr)
def test_what_cannot_be_called_is_refused_and_nothing_is_watched(callback: Any, home: Context) -> None:
    with pytest.raises(TypeError, match=f"watch\\(\\) takes a callable, not {callback!r}"):
        watch(callback)
    with pytest.raises(TypeError, match="takes a callable"):
        VAR.watch(callback)


def test_a_signature_that_cannot_be_read_does_not_matter(home: Context, events: list[WatchEvent]) -> None:
    class Follow:
        @property
        def __signature__(self) -> None:
            # What an annotation that names nothing raises from Python 3.14 on.
            raise NameError

        def __call__(self, event: WatchEvent) -> None:
            events.append(event)

    with watch(Follow()):
        VAR.set(1)
    assert told(events) == [("set", "VAR", MISSING, 1)]


def test_the_repr_tells_what_is_watched(home: Context) -> None:
    with watch(print) as everything, VAR.watch(print) as one:
        assert repr(everything) == f"<Watcher of everything by {print!r}>"
        assert repr(one) == f"<Watcher of {VAR!r} by {print!r}>"


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_watcher_is_not_copied(act: Callable[[object], object]) -> None:
    var: ContextVar[object] = ContextVar("var")
    with var.watch(print) as watcher, pytest.raises(TypeError, match="^cannot pickle 'contextvars_cy.Watcher' object"):
        act(watcher)


@pytest.mark.parametrize("callback", [lambda: None, lambda one, two: None, lambda *, event: None, dict.get])
def test_a_callback_of_another_arity_is_refused(callback: Any) -> None:
    for begin in watch, ContextVar("var").watch:
        with pytest.raises(TypeError, match="^watch\\(\\) takes a callable of one argument, the WatchEvent"):
            begin(callback)


@pytest.mark.parametrize("callback", [print, lambda event, *more: None, lambda *events: None, [].append, type])
def test_callbacks_of_one_argument(callback: Callable[[object], object]) -> None:
    watch(callback).cancel()
