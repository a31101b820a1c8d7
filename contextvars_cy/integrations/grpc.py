"""gRPC: registered variables travel with each call, and are set for the handler that serves it.

- `client_interceptor` and `server_interceptor` are for `grpc.intercept_channel` and `grpc.server`;
- `aio_client_interceptors` and `aio_server_interceptor` are for the channels and servers of `grpc.aio`.

They serve all four kinds of calls. The values are the call's metadata `baggage`, of which the entries of other programs
stay.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from functools import update_wrapper
from typing import Any
from warnings import warn

from .. import ContextVar, assign, bind, isolated
from .._late import keep_builtins
from ..travel import HEADER, Audience, TravelWarning, check_audience, inject
from ._arriving import arrived
from ._needed import needed

with needed("grpc"):
    import grpc
    from grpc import aio

__all__ = ["aio_client_interceptors", "aio_server_interceptor", "client_interceptor", "server_interceptor"]

# gRPC's default for all of a call's metadata, each entry counted with 32 bytes more; what exceeds it fails the call.
# Others add to it on the way.
MOST_BYTES = 8192 - 1024


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]


def client_interceptor(audience: Audience = "public") -> grpc.UnaryUnaryClientInterceptor:
    """Return an interceptor that sends what the audience may see with each call of a channel. O(n) a call.

    The values are those at the moment of the call. ValueError if the audience is unknown.

    >>> channel = grpc.intercept_channel(grpc.insecure_channel("localhost:0"), client_interceptor("trusted"))
    >>> channel.close()
    """
    return _ClientInterceptor(audience)


def server_interceptor(audience: Audience = "public") -> grpc.ServerInterceptor:
    """Return an interceptor that sets what a call brings, for its handler and for the interceptors after it.

    The variables are set while the handler runs, and at each step of the responses that it yields, in a Context of the
    call's own, so the next call in the same thread sees nothing of it. `audience` says who may call: from the
    `"public"` only variables that are registered as public come in. ValueError if it is unknown. Put it first.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> server = grpc.server(ThreadPoolExecutor(), interceptors=[server_interceptor()])
    """
    return _ServerInterceptor(audience)


def aio_client_interceptors(audience: Audience = "public") -> list[aio.ClientInterceptor]:
    """Return interceptors, one for each kind of call, that send what the audience may see. O(n) a call.

    The values are those at the moment of the call. ValueError if the audience is unknown.

    >>> import asyncio
    >>> async def main():
    ...     async with grpc.aio.insecure_channel("localhost:0", interceptors=aio_client_interceptors("trusted")):
    ...         pass
    >>> asyncio.run(main())
    """
    return [kind(audience) for kind in (_AioUnaryUnary, _AioUnaryStream, _AioStreamUnary, _AioStreamStream)]


def aio_server_interceptor(audience: Audience = "public") -> aio.ServerInterceptor:
    """Return an interceptor that sets what a call brings, in the task that serves it.

    Handlers that are no coroutines run in threads: they, and each step of the responses that they yield, run in a copy
    of the task's Context, and so see too what other interceptors have set. `audience` is that of `server_interceptor`.

    >>> import asyncio
    >>> async def main():
    ...     server = grpc.aio.server(interceptors=[aio_server_interceptor()])
    ...     await server.stop(None)
    >>> asyncio.run(main())
    """
    return _AioServerInterceptor(audience)


class _ForAudience:
    def __init__(self, audience: Audience) -> None:
        check_audience(audience)
        self._audience: Audience = audience


# ---- clients ----


class _Details(grpc.ClientCallDetails):
    """Those of an interceptor's own class, with other metadata; what they lack, this lacks too."""

    def __init__(self, details: grpc.ClientCallDetails, metadata: Any) -> None:
        self._details = details
        self.metadata = metadata

    def __getattr__(self, name: str) -> Any:
        return getattr(self._details, name)


def _with_values(details: Any, audience: Audience, kind: Callable[..., Any]) -> Any:
    """The details of a call, whose metadata have the values."""
    old = list(getattr(details, "metadata", None) or ())
    metadata = [entry for entry in old if entry[0].lower() != HEADER]
    carrier: dict[str, Any] = {HEADER: [entry[1] for entry in old if entry[0].lower() == HEADER]}
    inject(carrier, audience=audience)
    header = carrier.get(HEADER)
    if not header:
        new = metadata
    else:
        new = [*metadata, (HEADER, header)]
        size = sum(len(key) + len(value) + 32 for key, value in new)
        if size > MOST_BYTES and header not in (entry[1] for entry in old):
            warn(
                f"no value travels with this call: its metadata would have {size} bytes, and at most {MOST_BYTES} are "
                "safe: register variables with a smaller max_size",
                TravelWarning,
                stacklevel=2,
            )
            new = old
    if "metadata" in getattr(details, "_fields", ()):
        # A named tuple, as gRPC's own; other interceptors may use that.
        return details._replace(metadata=kind(new))
    return _Details(details, kind(new))


class _ClientInterceptor(
    _ForAudience,
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def _intercept(self, continuation: Callable[..., Any], client_call_details: Any, requests: Any) -> Any:
        return continuation(_with_values(client_call_details, self._audience, tuple), requests)

    intercept_unary_unary: Any = _intercept
    intercept_unary_stream: Any = _intercept
    intercept_stream_unary: Any = _intercept
    intercept_stream_stream: Any = _intercept


class _AioClientInterceptor(_ForAudience):
    async def _intercept(
        self, continuation: Callable[..., Awaitable[Any]], client_call_details: Any, requests: Any
    ) -> Any:
        details = _with_values(client_call_details, self._audience, lambda metadata: aio.Metadata(*metadata))
        return await continuation(details, requests)


# A channel takes each for one kind alone.
class _AioUnaryUnary(_AioClientInterceptor, aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary: Any = _AioClientInterceptor._intercept


class _AioUnaryStream(_AioClientInterceptor, aio.UnaryStreamClientInterceptor):
    intercept_unary_stream: Any = _AioClientInterceptor._intercept


class _AioStreamUnary(_AioClientInterceptor, aio.StreamUnaryClientInterceptor):
    intercept_stream_unary: Any = _AioClientInterceptor._intercept


class _AioStreamStream(_AioClientInterceptor, aio.StreamStreamClientInterceptor):
    intercept_stream_stream: Any = _AioClientInterceptor._intercept


# ---- servers ----


def _values(details: grpc.HandlerCallDetails, audience: Audience) -> dict[ContextVar[Any], Any]:
    """What the call brings, decoded."""
    # Only of keys that end in "-bin" values are bytes.
    texts = [str(value) for key, value in details.invocation_metadata or () if key == HEADER]
    return arrived(",".join(texts), audience)


def _kind_of(handler: grpc.RpcMethodHandler) -> str:
    one, many = "unary", "stream"
    return f"{many if handler.request_streaming else one}_{many if handler.response_streaming else one}"


def _with_behaviour(handler: grpc.RpcMethodHandler, behaviour: Callable[..., Any]) -> grpc.RpcMethodHandler:
    make = getattr(grpc, f"{_kind_of(handler)}_rpc_method_handler")
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


def _stepped(handler: grpc.RpcMethodHandler) -> Callable[..., Any]:
    """The handler's function; if it yields responses, it returns a generator, whose steps `isolated` can take."""
    behaviour: Callable[..., Any] = getattr(handler, _kind_of(handler))
    if not handler.response_streaming:
        return behaviour

    def stepped(*args: Any) -> Iterator[Any] | None:
        responses = behaviour(*args)
        # A function that sends its responses by a callback returns none.
        return None if responses is None else _steps(responses)

    update_wrapper(stepped, behaviour)
    return stepped


def _steps(responses: Iterator[Any]) -> Iterator[Any]:
    yield from responses


class _ServerInterceptor(_ForAudience, grpc.ServerInterceptor):
    def intercept_service(self, continuation: Callable[..., Any], handler_call_details: Any) -> Any:
        values = _values(handler_call_details, self._audience)
        with assign(values):
            handler = continuation(handler_call_details)
        if handler is None:
            return None
        behaviour = _stepped(handler)

        def behave(*args: Any) -> Any:
            # In a Context that ends with the call, so nothing undoes it.
            assign(values)
            return behaviour(*args)

        update_wrapper(behave, behaviour)
        return _with_behaviour(handler, isolated(behave))


class _AioServerInterceptor(_ForAudience, aio.ServerInterceptor):
    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        # The task ends with the call, so nothing undoes it.
        assign(_values(handler_call_details, self._audience))
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        behaviour = getattr(handler, _kind_of(handler))
        if inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour):
            return handler
        return _with_behaviour(handler, bind(isolated(_stepped(handler))))


keep_builtins()
