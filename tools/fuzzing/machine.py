"""The machine that runs programs: what it holds, how it runs a list of operations, and how it logs them.

A program is a list of operations, each a list of its name and arguments: numbers, and programs (bodies). An operation
is a method of a machine, marked with the kinds of its arguments; a number picks one of what the machine holds of that
kind, so that every program can run. The log has no addresses and no implementation's name, so that the logs of two
implementations can be compared as they are.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Program = list[list[Any]]

# What an implementation may raise; anything else that leaves an operation is a defect, of it or of the fuzzer.
REFUSALS = (LookupError, TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError)


class Escape(Exception):
    """Raised by a program, to pass through whatever it runs in."""


class BaseEscape(BaseException):
    """The same, past every `except Exception`."""


ESCAPES = (Escape, BaseEscape)


class Defect(BaseException):
    """An operation did what no operation should."""


class Uncomparable:
    def __eq__(self, other: object) -> bool:
        raise ValueError("a value that cannot be compared")

    def __repr__(self) -> str:
        return "Uncomparable()"


NAN = float("nan")
VALUES = (0, 1, True, 1.0, "text", None, NAN, (1, NAN), [2], Uncomparable())
# No name without a hash: CPython 3.13 frees memory that it has not initialised then.
NAMES = ("name", "", "a name\n", "ä", 1, None, b"bytes")
WRONG: tuple[object, ...] = (1, "v0", None, [], {}, (), object, NAN)


def operation(*arguments: str) -> Callable[[Any], Any]:
    """Marks a method as an operation; `arguments` are the kinds of its arguments.

    A coroutine function waits, so code that cannot wait runs the operation's bodies in its place.
    """

    def mark(method: Any) -> Any:
        method.arguments = arguments
        method.surrounds = False
        return method

    return mark


def surrounding(*arguments: str, may_wait: bool = True) -> Callable[[Any], Any]:
    """Marks a context manager as an operation, with a body as its last argument that runs in it.

    If a coroutine or a generator meets one that may not wait, the body runs without waiting.
    """

    def mark(method: Any) -> Any:
        method = contextmanager(method)
        method.arguments = (*arguments, "body")
        method.surrounds = True
        method.may_wait = may_wait
        return method

    return mark


def operations(machine: type[BaseMachine]) -> dict[str, tuple[str, ...]]:
    """The names of all operations of a machine, and the kinds of their arguments."""
    return {
        name: method.arguments
        for name, method in inspect.getmembers(machine)
        if getattr(method, "arguments", None) is not None
    }


class BaseMachine:
    """One flow of control."""

    # Whether a Context that was entered must be left before anything else runs, as event loops expect.
    balanced = True

    def __init__(self, implementation: Any) -> None:
        self.api = implementation
        self.variables = [
            self.api.ContextVar(f"v{number}", **({"default": f"default {number}"} if number % 2 else {}))
            for number in range(4)
        ]
        self.log: list[Any] = []
        self.contexts = [self.api.Context()]
        self.tokens: list[Any] = []
        self.assignments: list[Any] = []
        self.iterators: list[Any] = []
        self.generators: list[Any] = []

    def fork(self) -> Any:
        """A flow beside this one, with its own log, because chance decides which comes first.

        So it shares nothing mutable: it has copies of the Contexts, no tokens and no assignments.
        """
        child = copy.copy(self)
        child.log = []
        self.log.append(child.log)
        child.contexts = [context.copy() for context in self.contexts]
        child.variables = list(self.variables)
        child.tokens, child.assignments, child.iterators, child.generators = [], [], [], []
        return child

    # ---- what it logs ----

    def note(self, *words: Any) -> None:
        self.log.append(self.blotted(" ".join(map(str, words))))

    def blotted(self, text: str) -> str:
        """Without addresses and modules' names."""
        text = re.sub(r"0x[0-9a-fA-F]+", "0x…", text)
        return re.sub(r"\b(_contextvars|contextvars_cy(\._context\.context_(cy|py))?)\.", "", text)

    @contextmanager
    def noting(self, *words: Any) -> Iterator[None]:
        """Notes what an implementation refuses, and lets everything else pass."""
        try:
            yield
        except Escape:
            raise
        except REFUSALS as error:
            self.note(*words, "->", type(error).__name__, error)

    @contextmanager
    def catch(self) -> Iterator[None]:
        try:
            yield
        except ESCAPES as error:
            self.note("caught", repr(error))

    def attempt(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Notes what a call returns or refuses, and returns it."""
        with self.noting(name):
            result = function(*args, **kwargs)
            self.note(name, "->", repr(result))
            return result

    def look_around(self) -> None:
        self.note([var.get("unset") for var in self.variables[:8]])

    # ---- how it runs ----

    def resolve(self, kind: str, argument: Any) -> Any:
        """What an operation's argument stands for; LookupError if there is nothing of its kind yet."""
        if kind in ("body", "number"):
            return argument
        held = {
            "variable": self.variables,
            "context": self.contexts,
            "token": self.tokens,
            "assignment": self.assignments,
            "iterator": self.iterators,
            "generator": self.generators,
            "value": VALUES,
            "name": NAMES,
            "wrong": WRONG,
        }[kind]
        if not held:
            raise LookupError(kind)
        return held[argument % len(held)]

    def find(self, name: str, arguments: list[Any]) -> tuple[Any, list[Any]]:
        """An operation's method and arguments; one without anything to work on does nothing."""
        method: Any = getattr(self, name, None)
        if getattr(method, "arguments", None) is None:
            raise Defect(f"programs of this kind have no operation {name!r}")
        if len(method.arguments) != len(arguments):
            raise Defect(f"{name} takes {len(method.arguments)} arguments: {', '.join(method.arguments)}")
        try:
            return method, [self.resolve(*pair) for pair in zip(method.arguments, arguments)]
        except LookupError:
            return self.nothing, []

    @operation()
    def nothing(self) -> None:
        pass

    def block(self, program: Program) -> int:
        """Runs a program where nothing can wait."""
        for name, *arguments in program:
            method, found = self.find(name, arguments)
            with self.blaming(name):
                if method.surrounds:
                    with self.noting(name), method(*found[:-1]):
                        self.block(found[-1])
                elif inspect.iscoroutinefunction(method):
                    for kind, argument in zip(method.arguments, found):
                        if kind == "body":
                            self.block(argument)
                else:
                    method(*found)
            self.look_around()
        return len(program)

    def stepwise(self, program: Program) -> Iterator[None]:
        """Runs a program with a pause after each operation."""
        for name, *arguments in program:
            method, found = self.find(name, arguments)
            if method.surrounds and (method.may_wait or not self.balanced):
                with self.blaming(name), self.noting(name), method(*found[:-1]):
                    yield from self.stepwise(found[-1])
            else:
                self.block([[name, *arguments]])
            yield

    @contextmanager
    def blaming(self, name: str) -> Iterator[None]:
        """What leaves an operation without being noted is a defect, but for what programs raise themselves."""
        try:
            yield
        except (Escape, StopIteration):
            raise
        except Exception as error:
            raise Defect(f"{name}: {type(error).__name__}: {error}") from error

    def finish(self) -> None:
        """Ends what the program has left unfinished."""
        for generator in self.generators:
            with self.catch():
                self.attempt("close at the end", generator.close)
