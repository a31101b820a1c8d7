"""Values that travel with Celery's tasks, to whichever worker runs them, and end with the task.

`connect(app)`, in the module that makes the app, so that its publishers and its workers both do it.

Celery itself has nothing that carries a variable's value from `delay` to the worker (Celery issue 5415). And a worker
runs one task after the other in the same thread, where each sees what the one before has set and not reset.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

from .. import MISSING, Context, ContextVar, assign, copy_context, travel
from ..travel import HEADER, Audience
from ._arriving import arrived
from ._needed import needed

with needed("celery"):
    from celery import Celery, signals
    from celery.local import Proxy

__all__ = ["connect"]

# A message with this header has the values of whoever sent its canvas, or of the run that is tried again, and takes
# none of those that are set when a worker publishes it.
_SETTLED = "contextvars-cy-settled"

_audiences: WeakKeyDictionary[Celery, Audience] = WeakKeyDictionary()

# The values before the task that is running here.
_before: ContextVar[Context] = ContextVar("before the task of celery")


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]


def connect(app: Celery, *, audience: Audience = "trusted") -> None:
    """Let the registered values travel with the app's tasks. O(n) for each task, for n variables and signatures.

    Publishers and workers call it, best in the module that makes the app. Each message then carries the values that are
    set where it is sent, in a `baggage` header. A task sees those of its message; what it sets is gone when it ends.

    - All tasks of a chain, group or chord, and all callbacks, have the values of whoever sent the whole, not those that
      another of its tasks has set. A retry has those of the first try. What a task itself sends has the task's values.
    - In eager mode a task sees all that its caller has set, and the caller sees nothing of what the task sets.
    - `audience` is who can read and write the queue: only what is registered for it leaves or comes in.

    A value that cannot travel is a TravelWarning where it is sent; what is broken in a header is left out, and logged
    as a warning of `contextvars_cy.travel`. The task runs without it. The same call again does nothing; ValueError if
    the app is connected for another audience, or there is no such audience; TypeError for anything but a Celery app.

    >>> from celery import Celery
    >>> app = Celery("shop", task_always_eager=True)
    >>> connect(app)
    >>> user = ContextVar("user", default="nobody")
    >>> @app.task
    ... def sign_in(name):
    ...     user.set(name)
    ...     return user.get()
    >>> sign_in.delay("ada").get(), user.get()
    ('ada', 'nobody')
    """
    if isinstance(app, Proxy):
        app = app._get_current_object()
    if not isinstance(app, Celery):
        raise TypeError(f"connect() takes a Celery app, not {app!r}")
    travel.check_audience(audience)
    connected = _audiences.get(app)
    if connected == audience:
        return
    if connected is not None:
        raise ValueError(f"{app!r} is connected already, for the audience {connected!r}")
    _audiences[app] = audience
    # Whatever is published, by a task, a signature, a schedule or a name, goes through this method; the signal
    # before_task_publish does not tell which app publishes.
    app.send_task = _carrying(app.send_task, audience)
    signals.task_prerun.connect(_begin, weak=False)
    signals.task_postrun.connect(_end, weak=False)


def _carrying(send_task: Callable[..., Any], audience: Audience) -> Callable[..., Any]:
    @wraps(send_task)
    def send_task_with_values(*args: Any, **options: Any) -> Any:
        headers = options["headers"] = dict(options.get("headers") or {})
        if _SETTLED not in headers:
            travel.inject(headers, audience=audience)
        _settle(options, _settled(headers))
        return send_task(*args, **options)

    return send_task_with_values


def _begin(sender: Any, **_: Any) -> None:
    audience = _audiences.get(sender.app)
    if audience is None:
        return
    request = sender.request
    unfinished = _before.get(None)
    # An eager task runs inside of another one. Else a time limit has cut off the end of the one before.
    if unfinished is not None and not request.is_eager:
        _return_to(unfinished)
    _before.set(copy_context())
    headers = dict(request.headers or {})
    # Some programs send a mapping as the header "headers", and Celery takes it for all of them.
    came = request.get(HEADER, headers.get(HEADER))
    if came is None:
        travel.inject(headers, audience=audience)
    else:
        headers[HEADER] = came
    # For a retry, and for what Celery publishes when the task has ended, whatever the task has set by then.
    settled = _settled(headers)
    request.headers = {**headers, **settled}
    parts = {"link": request.callbacks, "link_error": request.errbacks, "chain": request.chain, "chord": request.chord}
    _settle(parts, settled)
    request.callbacks, request.errbacks, request.chain, request.chord = parts.values()
    if came is not None:
        assign(arrived(came, audience))


def _end(sender: Any, **_: Any) -> None:
    if sender.app in _audiences:
        before = _before.get(None)
        if before is not None:
            _return_to(before)


def _return_to(before: Context) -> None:
    """Give each variable the value that it had.

    The Context is not entered and left for the task, because Celery calls the receivers that begin a task, and those
    that end it, in one order: others, such as OpenTelemetry's, would begin outside of it and end inside.
    """
    now = copy_context()
    changed = {var: value for var, value in before.items() if now.get(var, MISSING) is not value}
    assign({var: value for var, value in changed.items() if type(var) is ContextVar})
    added = [var for var in now if type(var) is ContextVar and var not in before]
    # The mark of this run last: the next one does what a time limit cuts off here.
    for var in sorted(added, key=lambda var: var is _before):
        var.unset()


def _settled(headers: dict[str, Any]) -> dict[str, str]:
    return {HEADER: headers.get(HEADER, ""), _SETTLED: "1"}


def _settle(options: dict[str, Any], headers: dict[str, str]) -> None:
    """Give the signatures among a task's options these headers."""
    for name in ("link", "link_error", "chain", "chord"):
        if options.get(name):
            options[name] = _with_headers(options[name], headers)


def _with_headers(part: Any, headers: dict[str, str]) -> Any:
    """A copy of a signature, or of a list of them, that has the headers where it has none of its own."""
    if isinstance(part, (list, tuple)):
        return [_with_headers(signature, headers) for signature in part]
    if not isinstance(part, dict):
        return part
    signature = dict(part)
    options = signature["options"] = dict(signature.get("options") or {})
    _settle(options, headers)
    is_canvas = signature.get("subtask_type") in ("chain", "chord", "group")
    if is_canvas:
        signature["kwargs"] = {
            name: _with_headers(value, headers) if name in ("tasks", "header", "body") else value
            for name, value in signature["kwargs"].items()
        }
    # A canvas's headers take the place of its tasks' own.
    if options.get("headers") or not is_canvas:
        options["headers"] = {**headers, **(options.get("headers") or {})}
    return signature
