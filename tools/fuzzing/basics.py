"""The operations that need no event loop and no thread: on variables, tokens, Contexts, and generators."""

from __future__ import annotations

import itertools
import operator
import pickle
from collections.abc import Iterator
from typing import Any

from .machine import ESCAPES, BaseMachine, Program, Uncomparable, operation, surrounding

# What Contexts, variables and tokens refuse, in the interpreter's words, which name the type in their own way: only the
# error's type counts. Copies are no part of it: ours of a variable and of a Context are that and its `copy()`.
REFUSED = (
    hash,
    pickle.dumps,
    reversed,
    len,
    iter,
    lambda value: value < value,
    lambda value: value[0:1],
    lambda value: value + value,
    lambda value: operator.setitem(value, 0, 0),
    lambda value: operator.delitem(value, 0),
    lambda value: setattr(value, "attribute", 1),
    lambda value: setattr(value, "name", 1),
    lambda value: setattr(value, "var", 1),
    lambda value: setattr(value, "old_value", 1),
    lambda value: type("Derived", (type(value),), {}),
    lambda value: value(),
)


class Machine(BaseMachine):
    # ---- variables ----

    @operation("name")
    def create(self, name: Any) -> None:
        self.keep(self.variables, self.attempt("create", self.api.ContextVar, name))

    @operation("name", "value")
    def create_with_default(self, name: Any, value: Any) -> None:
        self.keep(self.variables, self.attempt("create", self.api.ContextVar, name, default=value))

    @operation("number")
    def create_many(self, number: int) -> None:
        """Enough variables for a map of several levels."""
        for value in range(number % 50):
            var = self.api.ContextVar(f"many {value}")
            var.set(value)
            self.variables.append(var)

    @operation("variable", "value")
    def set(self, var: Any, value: Any) -> None:
        token = self.attempt("set", var.set, value)
        self.keep(self.tokens, token)

    @operation("variable")
    def get(self, var: Any) -> None:
        self.attempt("get", var.get)

    @operation("variable", "value")
    def get_default(self, var: Any, value: Any) -> None:
        self.attempt("get", var.get, value)

    @operation("variable", "token")
    def reset(self, var: Any, token: Any) -> None:
        self.attempt("reset", self.api.reset, var, token)

    @operation("token")
    def reset_own(self, token: Any) -> None:
        self.attempt("reset", self.api.reset, token.var, token)

    @operation("variable", "wrong")
    def reset_wrong(self, var: Any, wrong: Any) -> None:
        self.attempt("reset", var.reset, wrong)
        self.attempt("reset", var.reset, var)

    @operation("variable")
    def describe(self, var: Any) -> None:
        self.note("describe", repr(var), repr(var.name), var == var, hash(var) == hash(var), var == self.variables[0])

    # ---- tokens ----

    @operation("token")
    def look_at_token(self, token: Any) -> None:
        missing = token.old_value is self.api.Token.MISSING
        self.note("token", repr(token), token.var in self.variables, repr(token.old_value), missing, token == token)

    @operation("token")
    def undo(self, token: Any) -> None:
        """`with` a token that was made before, and perhaps used."""
        with self.noting("undo"):
            with self.api.undoing(token) as entered:
                self.note("undo", entered is token)

    @operation()
    def make_token(self) -> None:
        self.attempt("make a token", self.api.Token)

    @surrounding("variable", "value")
    def with_set(self, var: Any, value: Any) -> Iterator[None]:
        token = var.set(value)
        self.tokens.append(token)
        with self.api.undoing(token):
            yield

    @surrounding("token")
    def with_token(self, token: Any) -> Iterator[None]:
        with self.api.undoing(token):
            yield

    # ---- Contexts ----

    @operation()
    def new(self) -> None:
        self.contexts.append(self.api.Context())

    @operation()
    def copy_current(self) -> None:
        self.contexts.append(self.api.copy_context())

    @operation("context")
    def copy(self, context: Any) -> None:
        self.contexts.append(context.copy())

    @operation()
    def current(self) -> None:
        context = self.api.current_context()
        # A Context that is held is found again as the same object.
        numbers = [number for number, held in enumerate(self.contexts) if held is context]
        self.note("current", numbers, self.same(context, self.api.copy_context()))
        if not numbers and self.may_hold(context):
            self.contexts.append(context)

    def may_hold(self, context: Any) -> bool:
        return True

    @operation("context", "body")
    def run(self, context: Any, body: Program) -> None:
        self.attempt("run", context.run, self.block, body)

    @operation("body")
    def run_copy(self, body: Program) -> None:
        self.attempt("run", self.api.copy_context().run, self.block, body)

    @operation("context", "variable", "value")
    def run_method(self, context: Any, var: Any, value: Any) -> None:
        """Runs C code, and brings a token out of the Context it belongs to."""
        self.keep(self.tokens, self.attempt("run", context.run, var.set, value))

    @operation("context", "wrong")
    def run_wrong(self, context: Any, wrong: Any) -> None:
        self.attempt("run", context.run, wrong, wrong)

    @operation("context", "value")
    def run_arguments(self, context: Any, value: Any) -> None:
        def called(*args: Any, **kwargs: Any) -> Any:
            return args, kwargs

        self.attempt("run", context.run, called, value, self=value, callable=1, context=2)

    @surrounding("context", may_wait=False)
    def with_context(self, context: Any) -> Iterator[None]:
        with self.api.entered(context):
            yield

    @operation("context")
    def look(self, context: Any) -> None:
        items = list(context.items())
        own = [(var, value) for var, value in items if var in self.variables]
        foreign = len(items) - len(own)
        keys, values = list(context.keys()), list(context.values())
        # The order is each implementation's own, but it is one order.
        in_step = keys == list(context) == [var for var, _ in items] and all(
            one is other for one, (_, other) in zip(values, items)
        )
        self.note("look", len(context) - foreign, in_step, len(values) - foreign)
        self.note(sorted(f"{self.variables.index(var)} {var.name!r}={value!r}" for var, value in own))

    @operation("context", "variable")
    def look_up(self, context: Any, var: Any) -> None:
        self.attempt("look up", context.__getitem__, var)
        with self.noting("look up"):
            self.note("look up", repr(context.get(var)), repr(context.get(var, "none")), var in context)

    @operation("context", "wrong")
    def look_up_wrong(self, context: Any, wrong: Any) -> None:
        self.attempt("look up", lambda: context[wrong])
        self.attempt("look up", context.get, wrong)
        self.attempt("look up", context.get, wrong, "none")
        self.attempt("look up", lambda: wrong in context)

    @operation("context", "context")
    def compare(self, one: Any, other: Any) -> None:
        with self.noting("compare"):
            self.note("compare", one is other, self.same(one, other))

    @operation("context", "wrong")
    def compare_wrong(self, context: Any, wrong: Any) -> None:
        self.note("compare", context == wrong, context != wrong, wrong == context)

    def same(self, one: Any, other: Any) -> Any:
        """Whether two Contexts are equal, as far as all implementations can agree on it."""
        if any(var not in self.variables for context in (one, other) for var in context):
            # Libraries set variables of the standard library, which are in the oracle's Contexts alone.
            one, other = ({var: context[var] for var in context if var in self.variables} for context in (one, other))
        differ = [var for var in self.variables if one.get(var, one) is not other.get(var, one)]
        if len(differ) > 1 and any(type(side.get(var)) is Uncomparable for side in (one, other) for var in differ):
            return "depends on which value is compared first"
        return one == other, one != other

    @operation("context", "number")
    def iterate(self, context: Any, number: int) -> None:
        """Begin an iteration, for later: it shows the Context as it is now."""
        iterator = (context.__iter__, context.keys, context.values, context.items)[number % 4]()
        begun = list(itertools.islice(iterator, number % 3))
        self.iterators.append((number % 4, begun, iterator))

    @operation("iterator")
    def exhaust(self, held: Any) -> None:
        which, begun, iterator = held
        found = [*begun, *iterator]
        begun.clear()
        if which == 3:
            found = [var for var, _ in found]
        # Libraries set variables of the standard library; values do not tell whose they are.
        count = "" if which == 2 else sum(var in self.variables for var in found)
        self.note("exhaust", which, count, list(iterator), iter(iterator) is iterator)

    @operation("context", "variable", "token", "number")
    def refused(self, context: Any, var: Any, token: Any, number: int) -> None:
        function = REFUSED[number % len(REFUSED)]
        for thing in (context, var, token):
            try:
                function(thing)
            except Exception as error:
                self.note("refused", number % len(REFUSED), type(thing).__name__, type(error).__name__)
            else:
                self.note("not refused", number % len(REFUSED), type(thing).__name__)

    # ---- what the standard library lacks ----

    @operation("variable")
    def unset(self, var: Any) -> None:
        self.keep(self.tokens, self.attempt("unset", self.api.unset, var))

    @operation("variable")
    def is_set(self, var: Any) -> None:
        self.attempt("is set", self.api.is_set, var)

    @operation("variable", "token")
    def try_reset(self, var: Any, token: Any) -> None:
        self.attempt("try reset", self.api.try_reset, var, token)

    @operation("token")
    def try_reset_own(self, token: Any) -> None:
        self.attempt("try reset", self.api.try_reset, token.var, token)

    @operation("variable", "variable", "value")
    def assign(self, one: Any, other: Any, value: Any) -> None:
        self.keep(self.assignments, self.attempt("assign", self.api.assign, {one: value, other: repr(value)}))

    @operation("variable", "value", "wrong")
    def assign_wrong(self, var: Any, value: Any, wrong: Any) -> None:
        self.attempt("assign", self.api.assign, [(var, value), (wrong, value)])

    @operation("assignment")
    def undo_assignment(self, assignment: Any) -> None:
        self.attempt("undo assignment", assignment.undo)

    @surrounding("variable", "variable", "value")
    def with_assigned(self, one: Any, other: Any, value: Any) -> Iterator[None]:
        with self.api.assign({one: value, other: repr(value)}):
            yield

    @operation("context", "context")
    def difference(self, one: Any, other: Any) -> None:
        if any(type(value) is Uncomparable for context in (one, other) for value in context.values()):
            return
        for part, found in zip(("added", "removed", "changed"), self.api.difference(one, other)):
            own = [(self.variables.index(var), value) for var, value in found.items() if var in self.variables]
            self.note(part, sorted(f"{number} {value!r}" for number, value in own))

    @surrounding()
    def watched(self) -> Iterator[None]:
        with self.api.watched():
            yield

    # ---- exceptions and generators ----

    @operation("number")
    def throw(self, number: int) -> None:
        raise ESCAPES[number % 2](number)

    @surrounding()
    def try_(self) -> Iterator[None]:
        with self.catch():
            yield

    @operation("body", "body")
    def generator(self, body: Program, at_the_end: Program) -> None:
        def generate() -> Iterator[None]:
            try:
                yield from self.stepwise(body)
            finally:
                self.block(at_the_end)

        self.generators.append(generate())

    @operation("generator")
    def advance(self, generator: Any) -> None:
        self.attempt("advance", next, generator, "exhausted")

    @operation("generator", "number")
    def throw_into(self, generator: Any, number: int) -> None:
        with self.noting("throw into"), self.catch():
            generator.throw(ESCAPES[number % 2](number))
            self.note("throw into", "passed over")

    @operation("generator")
    def close(self, generator: Any) -> None:
        self.attempt("close", generator.close)

    def keep(self, held: list[Any], result: Any) -> None:
        """Holds what a call returned, if it did."""
        if result is not None:
            held.append(result)


class Unbalanced(Machine):
    """Enters and leaves Contexts in any order; an event loop would stumble over it."""

    balanced = False

    @operation("context")
    def enter(self, context: Any) -> None:
        self.attempt("enter", self.api.enter, context)

    @operation("context")
    def leave(self, context: Any) -> None:
        self.attempt("leave", self.api.leave, context)

    @operation()
    def leave_current(self) -> None:
        self.attempt("leave", self.api.leave, self.api.current_context())
