"""What was recorded, and the answers to questions about it."""

from __future__ import annotations

import gc
import json
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from linecache import getline
from types import FrameType
from typing import Any, NamedTuple

from .. import Context, ContextVar, current_context
from .._places import Place

# How those Contexts are told of that nobody saw being made.
_WITHOUT_MAKER = {
    "start": "there from the start",
    "unknown": "of unknown origin",
}
# What a way to make a Context is called, if by another name than its own.
_CALLED = {"reader": "add_reader", "thread": "Thread.start", "capsule": "a capsule's arrival"}


class RecordedContext:
    """A Context of the program: what made it, where, and of which one it is a copy.

    It does not keep the Context alive.
    """

    __slots__ = (
        "_alive", "_task", "born", "inherited", "made_by", "maker", "number", "parent", "place", "seen_until", "task",
        "thread", "time",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        made_by: str,
        maker: int | None,
        is_copy: bool,
        place: Place | None,
        time: float,
        born: int,
        thread: int,
        task: int | None,
        alive: Callable[[], Any],
    ) -> None:
        self.number, self.made_by, self.place, self.time, self.born = number, made_by, place, time, born
        self.thread, self.task = thread, task
        # The Context in which it was made, and whose values it began with.
        self.maker, self.parent = maker, maker if is_copy else None
        # The values that it had when it was first seen, if it is no copy of a recorded one; by numbers of variables.
        self.inherited: dict[int, str] = {}
        self.seen_until = time
        self._alive = alive
        # The one that it was made for.
        self._task: Callable[[], Any] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the program still holds the Context."""
        return self._alive() is not None

    def __repr__(self) -> str:
        return f"<Context {self.number}, {self.described}>"

    @property
    def described(self) -> str:
        """What made it, in words."""
        if self.made_by == "unknown" and self.parent is not None:
            return f"first seen with the values of Context {self.parent}"
        return _WITHOUT_MAKER.get(self.made_by) or f"made {_made_by(self)}"


class Event(NamedTuple):
    """Something that happened to a variable or a Context. Values are reprs, None for an unset variable."""

    number: int
    time: float
    kind: str
    context: int
    thread: int
    task: int | None
    variable: int | None
    # Of a copy, the number of the new Context; of a reset that was refused, that of the token's.
    value: Any
    old_value: str | None
    place: Place | None


class Answer:
    """Why a variable is set or unset, in words, with the lines that made it so."""

    __slots__ = ("is_set", "places", "text")

    def __init__(self, text: str, is_set: bool, *places: Place | None) -> None:
        self.text, self.is_set = text, is_set
        self.places = [place for place in places if place is not None]

    def __repr__(self) -> str:
        return self.text


class History:
    """What happened to one variable, one line an event."""

    __slots__ = ("events", "_lines")

    def __init__(self, events: list[Event], lines: list[str]) -> None:
        self.events, self._lines = events, lines

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        return "\n".join(self._lines) or "nothing happened to it"


class Tree:
    """Which Context was made in which, one line each, copies below what they were copied from."""

    __slots__ = ("children", "contexts", "roots")

    def __init__(self, contexts: dict[int, RecordedContext]) -> None:
        self.contexts = contexts
        self.children: dict[int, list[int]] = {}
        self.roots = []
        for number, context in contexts.items():
            if context.maker in contexts:
                self.children.setdefault(context.maker, []).append(number)
            else:
                self.roots.append(number)

    def __repr__(self) -> str:
        lines = []
        pending = [(number, 0) for number in reversed(self.roots)]
        while pending:
            number, depth = pending.pop()
            lines.append(f"{'  ' * depth}Context {number}: {self.contexts[number].described}")
            pending += [(child, depth + 1) for child in reversed(self.children.get(number, ()))]
        return "\n".join(lines)


class Leak(NamedTuple):
    """Something that outlives what it was for."""

    kind: str
    text: str
    context: int
    variable: int | None
    event: int | None
    held_by: list[str]

    def __repr__(self) -> str:
        return self.text


class NeverReset(NamedTuple):
    """Sets of one variable on one line, whose tokens nobody used."""

    text: str
    variable: int
    place: Place | None
    times: int

    def __repr__(self) -> str:
        return self.text


CHANGES = ("set", "reset", "unset")
# By variable and Context, what set, reset and unset it there, in order.
_Changes = dict[int, dict[int, list[Event]]]


class Recording:
    """What happened to the program's variables and Contexts. `record` makes it.

    >>> user = ContextVar("user")
    >>> with record() as recording:
    ...     token = user.set("ada")
    >>> [(event.kind, event.value) for event in recording.history(user)]
    [('set', "'ada'")]
    """

    def __init__(self, limit: int, started: datetime, about: dict[str, Any]) -> None:
        self._about = about
        self.limit = limit
        self.started = started
        self.seconds = 0.0
        # Before this, nothing is known.
        self.beginning = "the recording began"
        self.threads: list[str] = []
        # By their numbers, their names and threads.
        self.tasks: dict[int, tuple[str, int]] = {}
        self.variables: list[ContextVar[Any]] = []
        self.secret: list[bool] = []
        self.defaults: list[str | None] = []
        self.contexts: dict[int, RecordedContext] = {}
        # The oldest make room for the newest.
        self.events: deque[Event] = deque(maxlen=limit)
        # How many events there were, also those that are gone.
        self.count = 0
        # By the recorder: the number of a Context that is alive, or None.
        self._number_of: Callable[[Context | None], int | None] = lambda context: None

    @property
    def dropped(self) -> int:
        """How many of the oldest events were dropped, because there were more than the limit."""
        return self.count - len(self.events)

    def __repr__(self) -> str:
        dropped = f", {self.dropped} earlier ones dropped," if self.dropped else ""
        return (
            f"<Recording of {len(self.events)} events{dropped} in {len(self.contexts)} Contexts, {self.seconds:.3f} s>"
        )

    # ---- questions ----

    def why(self, var: ContextVar[Any], context: Context | None = None) -> Answer:
        """Why the variable is set or unset in a Context, the current one unless another is given. O(n) for n events."""
        is_set = var in (current_context() if context is None else context)
        variable = self._number(var)
        number = self._number_of(context)
        if variable is None:
            return self._unseen(var.name, is_set, f"nothing has set or asked for it since {self.beginning}")
        if number is None:
            return self._unseen(var.name, is_set, f"nothing has happened in this Context since {self.beginning}")
        return self._why(variable, number, self.count, self._changes(variable), is_set)

    def answers(self) -> list[tuple[Event, Answer]]:
        """Why each read of an unset variable found none: one for each line of the program, and at most a hundred. O(n)
        for n events, and for each answer."""
        found: dict[tuple[int | None, Place | None], tuple[Event, Answer]] = {}
        changes = self._changes()
        for event in list(self.events):
            key = event.variable, event.place
            # Nothing is known of a Context that was forgotten.
            if event.kind == "read" and event.context in self.contexts and key not in found and len(found) < 100:
                assert event.variable is not None
                found[key] = event, self._why(event.variable, event.context, event.number, changes, False)
        return list(found.values())

    def history(self, var: ContextVar[Any]) -> History:
        """All that happened to the variable, in any Context. O(n) for n events."""
        variable = self._number(var)
        events = [event for event in list(self.events) if event.variable == variable] if variable is not None else []
        return History(events, [self._told(event) for event in events])

    def tree(self) -> Tree:
        """Which Context was made in which. O(n) for n Contexts."""
        return Tree(dict(self.contexts))

    def holders(self, context: RecordedContext) -> list[str]:
        """What holds a Context: reprs of the objects that refer to it, without their contents. O(n) for n objects of
        the process."""
        found = context._alive()
        return [] if found is None else _holders_of(found)

    def leaks(self) -> list[Leak]:
        """Values that are left in a Context that goes on, tokens that were used in another Context than their own, and
        Contexts that are alive although their task has ended.

        It collects garbage first. O(n) for n events, and for each Context that is found O(m) for m objects.
        """
        gc.collect()
        changes = self._changes()
        leaks = [self._refused(event, changes) for event in list(self.events) if event.kind == "refuse"]
        for number, context in list(self.contexts.items()):
            if not context.is_alive:
                continue
            if context._task is not None:
                task = context._task()
                if task is None or task.done():
                    leaks.append(self._outliving(context, changes))
            # In others, whoever made them may still need the value.
            if context.made_by not in ("start", "thread"):
                continue
            for variable, of_contexts in changes.items():
                last = of_contexts[number][-1] if number in of_contexts else None
                if last is not None and last.kind == "set":
                    text = f"{self._name(variable)} is left at {last.value}: set{self._by(last)}, and not reset there"
                    leaks.append(Leak("value left", text, number, variable, last.number, []))
        return leaks

    def never_reset(self) -> list[NeverReset]:
        """The lines that set a variable and whose tokens were certainly not used, the most frequent first. O(n) for n
        events.

        Where each task has a Context of its own, that is no fault: the value ends with the task. Elsewhere it stays.
        """
        times: dict[tuple[int, Place | None], int] = {}
        for variable, of_contexts in self._changes().items():
            for events in of_contexts.values():
                for event in _not_reset(events):
                    key = variable, event.place
                    times[key] = times.get(key, 0) + 1
        return [
            NeverReset(
                f"{self._name(variable)} was set {'once' if count == 1 else f'{count} times'}"
                f"{'' if place is None else f' at {place}'}, and not reset",
                variable,
                place,
                count,
            )
            for (variable, place), count in sorted(times.items(), key=lambda item: -item[1])
        ]

    def _refused(self, event: Event, changes: _Changes) -> Leak:
        assert event.variable is not None
        made_in = self.contexts.get(-1 if event.value is None else event.value)
        text = f"{self._name(event.variable)} was not reset{_at(event)}, where its token is of another Context"
        if made_in is not None:
            sets = [each for each in _sets_of(event.variable, event.number, changes) if each.context == made_in.number]
            text += f", which was {made_in.described}"
            text += f"; there it was last set{self._by(max(sets))}" if sets else ""
        return Leak("token used elsewhere", text, event.context, event.variable, event.number, [])

    def _outliving(self, context: RecordedContext, changes: _Changes) -> Leak:
        held_by = self.holders(context)
        text = f"a task's Context, {context.described}, is still held"
        text += f" by {', '.join(held_by)}" if held_by else ""
        for variable in range(len(self.variables)):
            answer = self._derived(variable, context.number, self.count, changes)
            if isinstance(answer, Answer) and answer.is_set:
                text += f"; {answer.text}"
        return Leak("Context outlives its task", text, context.number, None, None, held_by)

    # ---- why ----

    def _number(self, var: ContextVar[Any]) -> int | None:
        return next((number for number, known in enumerate(self.variables) if known is var), None)

    def _name(self, variable: int) -> str:
        return self.variables[variable].name

    def _changes(self, only: int | None = None) -> _Changes:
        changes: _Changes = {}
        for event in list(self.events):
            variable = event.variable
            if variable is not None and (only is None or variable == only) and event.kind in CHANGES:
                changes.setdefault(variable, {}).setdefault(event.context, []).append(event)
        return changes

    def _why(self, variable: int, number: int, before: int, changes: _Changes, is_set: bool) -> Answer:
        """`is_set` is the truth, which what was recorded may not explain: not everything is seen."""
        answer = self._derived(variable, number, before, changes)
        if not isinstance(answer, Answer):
            return self._unseen(self._name(variable), is_set, f"why is not known, since {answer}")
        if answer.is_set == is_set:
            return answer
        return self._unseen(self._name(variable), is_set, "what made it so was not seen")

    def _unseen(self, name: str, is_set: bool, why: str) -> Answer:
        return Answer(f"{name} is {'set' if is_set else 'unset'} here: {why}", is_set)

    def _derived(self, variable: int, number: int, before: int, changes: _Changes) -> Answer | str:
        """From what happened to it in the Context, and in those that it comes from, as each was when it was copied; or
        the reason why that is not known."""
        of_contexts = changes.get(variable, {})
        first_kept = self.events[0].number if self.dropped else 0
        copies: list[RecordedContext] = []
        # The nearest set that came too late, and the Contexts on the way there.
        missed: tuple[Event, list[RecordedContext]] | None = None
        here: int | None = number
        until = before
        while here is not None:
            context = self.contexts.get(here)
            if context is None:
                return "a Context that it comes from is forgotten"
            events = of_contexts.get(here, [])
            past = [event for event in events if event.number < until]
            if copies and missed is None:
                later = [event for event in events if event.kind == "set" and until <= event.number < before]
                missed = (later[0], copies[:]) if later else None
            if past and (past[-1].value is not None or missed is None):
                return self._explained(variable, past, copies)
            if past:
                break
            if context.born < first_kept:
                return f"{self.dropped} earlier events were dropped"
            if variable in context.inherited:
                text = f"{self._name(variable)} is {context.inherited[variable]}: it was so when "
                text += self.beginning if context.made_by == "start" else f"{context!r} was first seen"
                return Answer(text, True)
            copies.append(context)
            until, here = context.born, context.parent
        if missed is not None:
            return self._too_late(variable, *missed)
        return self._never_inherited(variable, number, copies, _sets_of(variable, before, changes))

    def _explained(self, variable: int, past: list[Event], copies: list[RecordedContext]) -> Answer:
        name, last = self._name(variable), past[-1]
        if last.value is not None:
            text = f"{name} is {last.value}: {last.kind}{self._by(last)}"
            if copies:
                text += (
                    f", and inherited by the copy {', then by the one '.join(c.described for c in reversed(copies))}"
                )
            return Answer(text, True, last.place, *(copy.place for copy in reversed(copies)))
        set_before = [event for event in past if event.kind == "set"]
        text = f"{name} is unset here: "
        if set_before:
            text += f"it was set{self._by(set_before[-1])}, and {last.kind}{self._by(last)}"
        else:
            text += f"it was {last.kind}{self._by(last)}"
        if len(copies) == 1:
            text += f", before this Context was {copies[0].described}"
        elif copies:
            text += f", before the Context that this one comes from was {copies[-1].described}"
        return Answer(text, False, *(event.place for event in set_before[-1:]), last.place)

    def _too_late(self, variable: int, event: Event, copies: list[RecordedContext]) -> Answer:
        copied = copies[-1]
        which = "this Context" if len(copies) == 1 else "the Context that this one comes from"
        text = f"{self._name(variable)} is unset here: it was set{self._by(event)}, but {which} "
        if copied.made_by == "unknown":
            return Answer(f"{text}has its values from before that; what copied it was not seen", False, event.place)
        text += f"was copied before that, {_made_by(copied)}"
        return Answer(text, False, event.place, copied.place)

    def _never_inherited(
        self, variable: int, number: int, copies: list[RecordedContext], sets: list[Event]
    ) -> Answer | str:
        name = self._name(variable)
        if not sets:
            if self.dropped:
                return f"{self.dropped} earlier events were dropped"
            return Answer(f"{name} is unset here: nothing has set it since {self.beginning}", False)
        # What was set in a copy of this Context, or where its thread was started, is more likely to be missed than what
        # was set elsewhere.
        root = copies[-1]
        in_copies = [event for event in sets if self._comes_from(event.context, number)]
        in_maker = [event for event in sets if root.maker is not None and event.context == root.maker]
        last = max(in_copies or in_maker or sets)
        setter = self.contexts.get(last.context)
        where = "another Context" if setter is None else f"another Context, {setter.described}"
        if in_copies and setter is not None:
            text = f"{name} is unset here: it was set{self._by(last)}, in a copy of this Context, {setter.described}, "
            return Answer(f"{text}and what is set in a copy stays there", False, last.place, setter.place)
        text = f"{name} is unset here: it was {'' if in_maker else 'last '}set{self._by(last)}, "
        if root.made_by == "thread":
            text += f"and thread {self.threads[root.thread]} did not inherit it: "
            text += f"a thread begins with an empty Context, and this one was {root.described}"
            return Answer(text, False, last.place, root.place)
        if root.made_by == "unknown":
            text += f"in {where}; how this one was made is unknown, since no Python code saw it"
            return Answer(text, False, last.place)
        return Answer(f"{text}in {where}, and this one has not inherited it", False, last.place)

    def _comes_from(self, context: int, origin: int) -> bool:
        """Whether a Context is a copy of another, or of a copy of it."""
        here: int | None = context
        while here in self.contexts and here != origin:
            here = self.contexts[here].parent
        return here == origin

    def _told(self, event: Event) -> str:
        subject = "" if event.variable is None else f" {self._name(event.variable)}"
        if event.kind == "copy":
            subject = f", as Context {event.value}"
        if event.kind in ("set", "reset") and event.value is not None:
            subject += f" to {event.value}"
        elif event.kind == "read":
            subject += ", unset: " + ("LookupError" if event.value is None else f"got {event.value}")
        task = "" if event.task is None else f", task {self.tasks[event.task][0]}"
        who = f"Context {event.context}, thread {self.threads[event.thread]}{task}"
        return f"{event.time:.6f} {event.kind}{subject}{_at(event)} ({who})"

    def _by(self, event: Event) -> str:
        """Where it happened, and in which task, or else in which thread."""
        if event.task is None:
            return f"{_at(event)}, in thread {self.threads[event.thread]}"
        return f"{_at(event)}, in task {self.tasks[event.task][0]}"

    # ---- for others ----

    def to_text(self) -> str:
        """Return all of it as lines of text: answers, leaks, Contexts, events. O(n)."""
        parts = {
            "Reads of unset variables": [f"{self._told(event)}\n  {answer}" for event, answer in self.answers()],
            "Leaks": [leak.text for leak in self.leaks()],
            "Contexts": [repr(self.tree())],
            "Sets without a reset": [each.text for each in self.never_reset()],
            "Events": [self._told(event) for event in list(self.events)],
        }
        shown = "\n\n".join("\n".join([f"{title}:", *lines]) for title, lines in parts.items() if lines)
        return f"{self!r}\n\n{shown}\n"

    def to_html(self) -> str:
        """Return a page for the browser, which needs no network. O(n)."""
        from .page import html_of

        return html_of(self._as_data())

    def to_json(self) -> str:
        """Return all of it as text in JSON. O(n)."""
        return json.dumps(self._as_data())

    def _as_data(self) -> dict[str, Any]:
        files: dict[str, int] = {}
        sources: dict[str, dict[str, str]] = {}

        def place_of(place: Place | None) -> list[Any] | None:
            if place is None:
                return None
            file = files.setdefault(place.file, len(files))
            lines = sources.setdefault(str(file), {})
            if str(place.line) not in lines:
                lines[str(place.line)] = getline(place.file, place.line).rstrip("\n")
            return [file, place.line, place.function]

        index = {number: position for position, number in enumerate(self.contexts)}
        tasks = {number: position for position, number in enumerate(self.tasks)}
        contexts = [
            {
                "made_by": context.made_by,
                "parent": index.get(-1 if context.parent is None else context.parent),
                "time": context.time,
                "place": place_of(context.place),
                "thread": context.thread,
                "task": None if context.task is None else tasks.get(context.task),
                "inherited": {str(variable): value for variable, value in context.inherited.items()},
                "seen_until": context.seen_until,
                "alive": context.is_alive,
            }
            for context in self.contexts.values()
        ]
        events: list[list[Any]] = []
        positions: dict[int, int] = {}
        for event in list(self.events):
            if event.context not in index:
                continue
            positions[event.number] = len(events)
            value = index.get(event.value) if event.kind in ("copy", "refuse") else event.value
            place = place_of(event.place) or [None, None, None]
            task = None if event.task is None else tasks.get(event.task)
            numbers = [index[event.context], event.thread, task, event.variable]
            events.append([event.time, event.kind, *numbers, value, event.old_value, *place])
        return {
            "format": 1,
            **self._about,
            "started": self.started.isoformat(),
            "seconds": self.seconds,
            "limit": self.limit,
            "dropped": self.dropped,
            "threads": [{"name": name} for name in self.threads],
            "tasks": [{"name": name, "thread": thread} for name, thread in self.tasks.values()],
            "variables": [
                {"name": var.name, "secret": secret, "default": default}
                for var, secret, default in zip(self.variables, self.secret, self.defaults)
            ],
            "contexts": contexts,
            "events": events,
            "leaks": [
                {
                    **leak._asdict(),
                    "context": index.get(leak.context),
                    "event": None if leak.event is None else positions.get(leak.event),
                }
                for leak in self.leaks()
            ],
            "never_reset": [
                {"text": each.text, "variable": each.variable, "place": place_of(each.place), "times": each.times}
                for each in self.never_reset()
            ],
            "answers": [
                {
                    "variable": event.variable,
                    "context": index[event.context],
                    "event": positions[event.number],
                    "text": answer.text,
                    "places": [place_of(place) for place in answer.places],
                }
                for event, answer in self.answers()
            ],
            "files": list(files),
            "sources": sources,
        }


def _at(event: Event) -> str:
    return "" if event.place is None else f" at {event.place}"


def _made_by(context: RecordedContext) -> str:
    way = _CALLED.get(context.made_by, context.made_by)
    return f"by {way}" + ("" if context.place is None else f" at {context.place}")


def _sets_of(variable: int, before: int, changes: _Changes) -> list[Event]:
    of_contexts = changes.get(variable, {}).values()
    return [event for events in of_contexts for event in events if event.kind == "set" and event.number < before]


def _not_reset(events: list[Event]) -> list[Event]:
    """Of the changes of a variable in one Context, the sets that certainly no reset has undone."""
    pending: list[Event] = []
    for event in events:
        if event.kind == "set":
            pending.append(event)
        elif event.kind == "reset":
            # A reset brings back the value from before the set that it undoes. It may be one of several.
            undone = [each for each in pending if each.old_value == event.value] or pending
            if len({each.place for each in undone}) == 1:
                undone = undone[-1:]
            pending = [each for each in pending if each not in undone]
    return pending


def _holders_of(found: Any) -> list[str]:
    told = []
    for holder in gc.get_referrers(found):
        if isinstance(holder, FrameType):
            if holder.f_globals.get("__name__") != __name__:
                told.append(
                    f"a local variable of {holder.f_code.co_name} ({holder.f_code.co_filename}:{holder.f_lineno})"
                )
        elif type(holder).__module__ != __name__:
            told.append(f"a {type(holder).__module__}.{type(holder).__qualname__}".replace("builtins.", ""))
    return sorted(told)
