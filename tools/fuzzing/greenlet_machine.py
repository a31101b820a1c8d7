"""Programs of greenlets, each of which has a native Context of its own."""

from __future__ import annotations

import contextvars
from types import MethodType
from typing import Any

import greenlet

from .basics import Unbalanced
from .machine import ESCAPES, Program, operation
from .threads import in_new_thread


class GreenletMachine(Unbalanced):
    def __init__(self, implementation: Any) -> None:
        super().__init__(implementation)
        self.greenlets: list[greenlet.greenlet] = []

    def resolve(self, kind: str, argument: Any) -> Any:
        if kind != "greenlet":
            return super().resolve(kind, argument)
        if not self.greenlets:
            raise LookupError(kind)
        return self.greenlets[argument % len(self.greenlets)]

    def main(self, program: Program) -> None:
        in_new_thread(self.whole, program)

    def whole(self, program: Program) -> None:
        with self.catch():
            self.block(program)
        for child in self.greenlets:
            # One that was switched to from another greenlet ends in this one.
            child.parent = greenlet.getcurrent()
            self.switch(child.throw)
        self.finish()

    @operation("body", "body")
    def new_greenlet(self, body: Program, at_the_end: Program) -> None:
        def run(*_: Any) -> str:
            try:
                with self.catch():
                    self.block(body)
            finally:
                self.note("greenlet ends")
                with self.catch():
                    self.block(at_the_end)
            return "finished"

        self.greenlets.append(greenlet.greenlet(run))

    @operation("greenlet", "context")
    def give_context(self, child: Any, context: Any) -> None:
        """Only to one that is not running: another's Context cannot be taken from it."""
        if not child:
            child.gr_context = self.api.native(context)

    @operation("greenlet")
    def give_copy(self, child: Any) -> None:
        if not child:
            child.gr_context = contextvars.copy_context()

    @operation("greenlet")
    def switch_to(self, child: Any) -> None:
        """To begin or to go on; it comes back here."""
        self.switch(child.switch)

    @operation("greenlet", "number")
    def kill(self, child: Any, number: int) -> None:
        self.switch(child.throw, *((ESCAPES[number % 2],) if number % 3 else ()))

    def switch(self, function: MethodType, *args: Any) -> None:
        child: Any = function.__self__
        try:
            child.parent = greenlet.getcurrent()
        except ValueError:
            self.note("switch", "an ancestor of its own")
            return
        with self.catch(), self.noting("switch"):
            result = function(*args)
            self.note("switch", type(result).__name__)

    @operation()
    def pause(self) -> None:
        """Back to whoever switched here, from however deep."""
        parent = greenlet.getcurrent().parent
        if parent is not None:
            parent.switch()
