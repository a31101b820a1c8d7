"""The Context that stands for a native one: the same for as long as somebody holds it, and after that another."""

from __future__ import annotations

import contextvars
import gc
import weakref

from contextvars_cy import Context, ContextVar, current_context

VAR: ContextVar[int] = ContextVar("VAR")


def test_the_current_context_is_asked_for_while_what_stood_for_it_dies() -> None:
    answers: list[Context] = []

    def ask() -> None:
        VAR.set(1)
        context = current_context()
        reference = weakref.ref(context, lambda _: answers.append(current_context()))
        del context
        # Where nothing counts references.
        gc.collect()
        assert reference() is None
        assert [answer[VAR] for answer in answers] == [1]
        assert current_context() is answers[0]

    contextvars.Context().run(ask)
    assert VAR not in current_context()
