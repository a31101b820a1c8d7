"""A recording tells what happened to variables and Contexts, keeps no value, and answers why one is unset."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import threading
import weakref
from typing import Any

import pytest

from contextvars_cy import Context, ContextVar, bind, copy_context, executors, tracing
from contextvars_cy.tracing import record

pytestmark = pytest.mark.usefixtures("context_of_its_own")


def test_each_event_has_its_line_and_its_values() -> None:
    user = ContextVar("user", default="-")
    with record() as recording:
        token = user.set("ada")
        user.reset(token)
        user.get()
    told = [(event.kind, event.value, event.old_value) for event in recording.history(user)]
    assert told == [("set", "'ada'", None), ("reset", None, "'ada'"), ("read", "'-'", None)]
    assert {(place.file, place.function) for place in (event.place for event in recording.events) if place} == {
        (__file__, "test_each_event_has_its_line_and_its_values")
    }
    lines = repr(recording.history(user)).splitlines()
    assert len(lines) == 3 and "set user to 'ada' at" in lines[0] and "read user, unset: got '-'" in lines[2]


def test_why() -> None:
    user: ContextVar[str] = ContextVar("user")
    with record() as recording:
        assert (
            str(recording.why(user)) == "user is unset here: nothing has set or asked for it since the recording began"
        )
        with user.set("ada"):
            assert str(recording.why(user)).startswith("user is 'ada': set at")
            copy = copy_context()
        assert "and reset at" in str(recording.why(user))
        answer = recording.why(user, copy)
        assert answer.is_set and "inherited by the copy made by copy_context at" in answer.text
        early = copy_context()
        user.set("bob")
        answer = recording.why(user, early)
        assert not answer.is_set and "it was set at" in answer.text
        child = bind(user.set)
        child("eve")
        empty = Context()
        with pytest.raises(LookupError):
            empty.run(user.get)
        assert "how this one was made is unknown" in str(recording.why(user, empty))
        assert "nothing has happened in this Context" in str(recording.why(user, Context()))


def test_a_copy_before_the_set() -> None:
    user: ContextVar[str] = ContextVar("user")
    with record() as recording:
        early = copy_context()
        user.set("ada")
        answer = recording.why(user, early)
    assert "but this Context was copied before that, by copy_context at" in answer.text
    assert [place.function for place in answer.places] == ["test_a_copy_before_the_set"] * 2


def test_what_a_copy_sets_stays_there() -> None:
    user: ContextVar[str] = ContextVar("user")
    with record() as recording:
        copy_context().run(user.set, "ada")
        assert "in a copy of this Context, made by copy_context at" in str(recording.why(user))


def test_a_thread_that_does_not_inherit() -> None:
    user: ContextVar[str] = ContextVar("user", default="-")
    answers = []

    def work() -> None:
        user.get()
        answers.append(str(recording.why(user)))

    with record() as recording:
        user.set("ada")
        thread = threading.Thread(target=work, name="worker")
        thread.start()
        thread.join()
    assert "and thread worker did not inherit it: a thread begins with an empty Context" in answers[0]
    assert "made by Thread.start at" in answers[0]


def test_a_token_of_another_context() -> None:
    user: ContextVar[str] = ContextVar("user")
    with record() as recording:
        token = user.set("ada")
        assert copy_context().run(user.try_reset, token) is False
        (leak,) = [leak for leak in recording.leaks() if leak.kind == "token used elsewhere"]
        assert "user was not reset at" in leak.text and "there it was last set at" in leak.text
        user.reset(token)


def test_no_value_is_kept_and_a_repr_may_fail() -> None:
    class Value:
        def __repr__(self) -> str:
            raise OSError("no repr")

    var: ContextVar[Any] = ContextVar("var")
    value = Value()
    gone = weakref.ref(value)
    with record() as recording, var.set(value):
        del value
    gc.collect()
    assert gone() is None
    assert [event.value for event in recording.history(var)] == ["<Value, whose repr raises OSError>", None]


def test_a_recording_is_not_kept_until_asyncio_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "asyncio")
    finders = sys.meta_path.copy()
    recorder = record()
    var: ContextVar[int] = ContextVar("var")
    with recorder as recording:
        var.set(1)
    gone = weakref.ref(recorder)
    del recorder, recording
    gc.collect()
    assert gone() is None and sys.meta_path == finders


def test_long_values_are_cut_and_secret_ones_are_not_written() -> None:
    long: ContextVar[str] = ContextVar("long")
    password: ContextVar[str] = ContextVar("password")
    tracing.secret(password)
    # Lines of source are written, and may hold what they hold.
    hidden = "-".join(["hunter", "2"])
    password.set(hidden)
    with record() as recording, long.set("x" * 1000), password.set(hidden):
        pass
    assert all(len(event.value or "") <= 200 for event in recording.history(long))
    everything = recording.to_json() + recording.to_text() + recording.to_html()
    assert hidden not in everything and "<secret>" in recording.to_json()


def test_only_and_limit() -> None:
    one: ContextVar[int] = ContextVar("one")
    two: ContextVar[int] = ContextVar("two")
    three: ContextVar[int] = ContextVar("three")
    with record(only=[one, "two"], limit=3) as recording:
        for var in (one, two, three):
            with var.set(1):
                pass
    assert [event.kind for event in recording.events] == ["reset", "set", "reset"] and recording.dropped == 1
    assert len(recording.history(three)) == 0
    assert json.loads(recording.to_json())["dropped"] == 1


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"only": "user"}, TypeError),
        ({"only": [1]}, TypeError),
        ({"limit": 0}, ValueError),
        ({"limit": "1"}, ValueError),
    ],
)
def test_wrong_arguments(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        record(**settings)
    with pytest.raises(TypeError):
        tracing.secret("user")


def test_nothing_stays_replaced() -> None:
    start = threading.Thread.start
    with record():
        assert threading.Thread.start is not start
    assert threading.Thread.start is start


def test_two_recordings_at_a_time() -> None:
    var: ContextVar[int] = ContextVar("var")
    with record() as outer:
        with record() as inner, var.set(1):
            pass
        var.set(2).var.unset()
    assert (len(inner.history(var)), len(outer.history(var))) == (2, 4)


def test_the_json_has_what_the_page_needs() -> None:
    user: ContextVar[str] = ContextVar("user", default="-")
    # Without what other tests have left.
    with Context(), record() as recording:
        copied = copy_context()
        user.set("</script>\ud800")
        copied.run(user.get)
    data = json.loads(recording.to_json())
    assert data["variables"] == [{"name": "user", "secret": False, "default": "'-'"}]
    assert [context["made_by"] for context in data["contexts"]] == ["start", "copy_context"]
    assert [event[1] for event in data["events"] if event[1] in ("copy", "set", "read")] == ["copy", "set", "read"]
    (answer,) = data["answers"]
    assert "copied before that" in answer["text"]
    assert "</script>\\ud800" not in recording.to_html().split("application/json")[1].split("</script>")[0]


def test_what_was_read_in_a_context_that_is_forgotten() -> None:
    user: ContextVar[str] = ContextVar("user", default="-")
    with record(limit=4) as recording:
        early = copy_context()
        copy_context().run(user.set, "ada")
        early.run(user.get)
        del early
        gc.collect()
        # Each has a Context, and no event.
        for _ in range(20):
            thread = threading.Thread()
            thread.start()
            thread.join()
            gc.collect()
    # From Python 3.14 on a thread's own Context is entered, which are events, and the read is dropped.
    read = [event for event in recording.history(user) if event.kind == "read"]
    assert not [event for event in read if event.context in recording.contexts]
    assert ("read user" in recording.to_text()) == bool(read)
    assert json.loads(recording.to_json())["answers"] == []


def test_sets_without_a_reset_are_counted_by_line() -> None:
    user: ContextVar[str] = ContextVar("user")
    with record() as recording:
        for name in ("ada", "bob"):
            copy_context().run(user.set, name)
        first = user.set("eve")
        with user.set("joe"):
            user.set("zoe")
        user.reset(first)
    line = test_sets_without_a_reset_are_counted_by_line.__code__.co_firstlineno
    found = [(each.place and each.place.line - line, each.times) for each in recording.never_reset()]
    assert found == [(4, 2), (7, 1)]
    assert re.fullmatch(r"user was set 2 times at .*, and not reset", recording.never_reset()[0].text)
    assert "Sets without a reset:\nuser was set 2 times" in recording.to_text()
    assert [each["times"] for each in json.loads(recording.to_json())["never_reset"]] == [2, 1]


# ---- never a guess ----


def test_a_value_from_before_the_recording() -> None:
    user: ContextVar[str] = ContextVar("user")
    user.set("ada")
    with record() as recording:
        copy_context().run(user.set, "eve")
        assert str(recording.why(user)) == "user is 'ada': it was so when the recording began"


def test_threads_with_the_same_number_are_told_apart() -> None:
    user: ContextVar[str] = ContextVar("user", default="-")
    with record() as recording:
        user.set("ada")
        for name in ("first", "second"):
            thread = threading.Thread(target=user.get, name=name)
            thread.start()
            thread.join()
    read = [event for event in recording.history(user) if event.kind == "read"]
    assert [recording.threads[event.thread] for event in read] == ["first", "second"]
    assert [recording.contexts[event.context].made_by for event in read] == ["thread", "thread"]
    texts = [text for _, text in recording.answers()]
    assert "thread first did not inherit it" in str(texts[0])


def test_a_thread_misses_what_was_set_where_it_was_started() -> None:
    user: ContextVar[str] = ContextVar("user", default="-")
    go_on = threading.Event()
    thread = threading.Thread(target=lambda: go_on.wait(30) and user.get())

    def first() -> None:
        user.set("ada")
        thread.start()

    def second() -> None:
        user.set("bob")

    with record() as recording:
        copy_context().run(first)
        copy_context().run(second)
        go_on.set()
        thread.join()
    ((_, answer),) = recording.answers()
    assert "it was set at" in answer.text and " in first, in thread MainThread, and thread" in answer.text


def test_dropped_events_leave_it_open() -> None:
    user: ContextVar[str] = ContextVar("user")
    other: ContextVar[int] = ContextVar("other")

    def fill() -> None:
        for number in range(20):
            other.set(number)

    with record(limit=10) as recording:
        child = copy_context()
        child.run(user.set, "eve")
        user.set("ada")
        fill()
        assert str(recording.why(user)) == (
            f"user is set here: why is not known, since {recording.dropped} earlier events were dropped"
        )
        assert str(recording.why(user, child)).startswith("user is set here: why is not known")
    assert f"{recording.dropped} earlier ones dropped" in repr(recording)


def test_what_is_set_beside_is_not_told_as_set_in_a_copy_of_this() -> None:
    user: ContextVar[str] = ContextVar("user")
    with record() as recording:
        one, two = copy_context(), copy_context()
        one.run(user.set, "ada")
        answer = recording.why(user, two)
    assert "in another Context, made by copy_context at" in answer.text
    assert answer.text.endswith("and this one has not inherited it")


def test_the_set_that_came_too_late_is_told_and_not_an_earlier_one() -> None:
    user: ContextVar[str] = ContextVar("user")
    with record() as recording:
        user.reset(user.set("old"))
        early = copy_context()
        user.set("ada")
        grandchild = early.run(copy_context)
        line = recording.history(user).events[-1].place
    assert str(line) in recording.why(user, early).text
    assert "but this Context was copied before that" in recording.why(user, early).text
    assert "but the Context that this one comes from was copied before that" in recording.why(user, grandchild).text


def test_a_value_that_is_inherited_is_not_told_as_lost() -> None:
    user: ContextVar[str] = ContextVar("user")
    with record() as recording:
        user.set("ada")
        child = copy_context()
        grandchild = child.run(copy_context)
        child.run(user.set, "eve")
        answer = recording.why(user, grandchild)
    assert answer.is_set and answer.text.startswith("user is 'ada': set at")


def test_a_token_that_was_used_is_not_told_as_unused() -> None:
    user: ContextVar[str] = ContextVar("user")
    with record() as recording:
        user.set("same")
        first = user.set("same")
        user.set("same")
        user.reset(first)
    # The second and the third set replaced equal values: it may have been either.
    line = test_a_token_that_was_used_is_not_told_as_unused.__code__.co_firstlineno
    assert [(each.place and each.place.line - line, each.times) for each in recording.never_reset()] == [(3, 1)]


# ---- what the program does meanwhile ----


def test_a_repr_may_wait_for_another_thread() -> None:
    var: ContextVar[Any] = ContextVar("var")
    asked, changed = threading.Event(), threading.Event()

    class Waits:
        def __repr__(self) -> str:
            asked.set()
            return f"<waited: {changed.wait(30)}>"

    def work() -> None:
        asked.wait(30)
        var.set(1)
        changed.set()

    with record() as recording:
        thread = threading.Thread(target=work)
        thread.start()
        var.set(Waits())
        thread.join()
    assert "<waited: True>" in [event.value for event in recording.history(var)]


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit])
def test_a_repr_may_raise_anything(error: type[BaseException]) -> None:
    class Meta(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]
            raise RuntimeError

    class Value(metaclass=Meta):
        def __repr__(self) -> str:
            raise error

    var: ContextVar[Any] = ContextVar("var")
    with record() as recording:
        var.set(Value())
    assert [event.value for event in recording.history(var)] == [f"<Value, whose repr raises {error.__name__}>"]
    with var.set(Value()):
        assert tracing.snapshot().here.context.values["var"].startswith("<Value")  # type: ignore[union-attr]


def test_recordings_that_overlap_leave_nothing_replaced() -> None:
    before = threading.Thread.start, asyncio.BaseEventLoop.call_soon
    for _ in range(3):
        one, other = record(), record()
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        other.__exit__(None, None, None)
    assert (threading.Thread.start, asyncio.BaseEventLoop.call_soon) == before


def test_a_recording_is_made_once() -> None:
    recorder = record()
    with recorder:
        pass
    with pytest.raises(RuntimeError, match="call record\\(\\) again"):
        recorder.__enter__()


def test_many_tasks_are_not_remembered_for_ever() -> None:
    user: ContextVar[int] = ContextVar("user")

    async def handle(number: int) -> None:
        user.set(number)

    async def main() -> None:
        for number in range(300):
            await asyncio.create_task(handle(number))
            if number % 20 == 0:
                gc.collect()

    with record(limit=20) as recording:
        asyncio.run(main())
    assert len(recording.tasks) < 100 and len(recording.contexts) < 100
    data = json.loads(recording.to_json())
    assert all(event[4] is None or event[4] < len(data["tasks"]) for event in data["events"])


def test_our_pools_and_threads_say_what_made_their_contexts() -> None:
    user: ContextVar[str] = ContextVar("user", default="-")
    with record() as recording:
        user.set("ada")
        with executors.ThreadPoolExecutor(1) as pool:
            pool.submit(user.set, "bob").result()
            list(pool.map(user.set, ["eve"]))
        thread = executors.Thread(target=user.set, args=("joe",))
        thread.start()
        thread.join()
    contexts = [recording.contexts[event.context] for event in recording.history(user) if event.kind == "set"]
    # `map` makes one for all its calls, of which each has a copy.
    assert [context.made_by for context in contexts] == ["start", "submit", "bind", "thread"]
    assert [recording.contexts[context.parent or 0].made_by for context in contexts] == [
        "start",
        "start",
        "map",
        "start",
    ]
    assert contexts[-1].described.startswith("made by Thread.start at")
