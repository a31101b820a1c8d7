"""The thread host's own stack of Contexts."""

from __future__ import annotations

import threading

from contextvars_cy import Context, thread_state
from interpreters import too_long_to_trace


@too_long_to_trace
def test_a_thread_ends_that_has_left_none_of_very_many_contexts() -> None:
    contexts = [Context() for _ in range(1_000_000)]

    def enter() -> None:
        for context in contexts:
            thread_state().enter(context)
        # The stack alone keeps them now.
        contexts.clear()

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert contexts == []
