"""The engine of the twin that runs: public names, and the hooks for capabilities."""

from typing import TYPE_CHECKING

from .._backend import backend

if TYPE_CHECKING or backend == "pure":
    from .context_py import (
        Assignment,
        Context,
        ContextVar,
        ThreadState,
        Token,
        assign,
        contexts_of_threads,
        copy_context,
        current_context,
        give_tasks_native_contexts,
        implement,
        in_native_context,
        note_changes_by,
        show_native_variables,
        tell_changes_to,
        thread_state,
    )
else:
    from .context_cy import (
        Assignment,
        Context,
        ContextVar,
        ThreadState,
        Token,
        assign,
        contexts_of_threads,
        copy_context,
        current_context,
        give_tasks_native_contexts,
        implement,
        in_native_context,
        note_changes_by,
        show_native_variables,
        tell_changes_to,
        thread_state,
    )

__all__ = [
    "Assignment",
    "Context",
    "ContextVar",
    "ThreadState",
    "Token",
    "assign",
    "contexts_of_threads",
    "copy_context",
    "current_context",
    "give_tasks_native_contexts",
    "implement",
    "in_native_context",
    "note_changes_by",
    "show_native_variables",
    "tell_changes_to",
    "thread_state",
]
