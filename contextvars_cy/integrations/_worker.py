"""Where a worker runs a task: with a capsule's values, and with the standard library's variables, which others use."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, TypeVar

from .. import Context, copy_context, current_context, travel

R = TypeVar("R")


def context_of(capsule: travel.Capsule, keep: Container[Any] = ()) -> Context:
    """A copy of the current Context that has, of our variables, the capsule's values alone, and those to keep."""
    context = copy_context()
    context.run(_have_only, capsule, keep)
    return context


def _have_only(capsule: travel.Capsule, keep: Container[Any]) -> None:
    for var in list(current_context()):
        if var not in keep:
            var.unset()
    if capsule:
        travel.restore(capsule)


def call_here(capsule: travel.Capsule, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
    return context_of(capsule).run(fn, *args, **kwargs)
