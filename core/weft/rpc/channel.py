"""A gRPC channel as every Weft process uses it: to an address, or to an agent by name.

A call made through it always has a deadline (the least of the caller's timeout, the current Deadline and the
method's default) and carries the identity, conversation and trace of the call being served. It is a
grpc.aio.Channel, so any generated stub takes it; what is added is added before the call starts, for interceptors
of grpc.aio would cost every call a task of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry import trace

from weft.rpc.addresses import Addresses
from weft.rpc.call import IDENTITY_KEY, Metadata, current_call
from weft.rpc.calling import Calling
from weft.rpc.methods import DEFAULT_TIMEOUT, default_timeout
from weft.rpc.server import MAX_MESSAGE_BYTES
from weft.rpc.status import BY_NUMBER, SERVER_FAULTS
from weft.telemetry import Telemetry
from weft.v1.identity_pb2 import Identity

_OK = grpc.StatusCode.OK
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A peer that hangs is noticed by pings; keep-alive alone does not see a stopped process.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    # A peer that comes back is used again soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # The name misleads: so long may an attempt to connect take, to a peer far away and with TLS as well.
    ("grpc.min_reconnect_backoff_ms", 2_000),
)


# A question that was on its way to a replica of the registry that died is asked of the next one.
_REPEATED = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": "weft.v1.RegistryService", "method": method}
                    for method in ("Resolve", "ListAgents", "ListReplicas", "GetDescriptors")
                ],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


class Channel(grpc.aio.Channel):
    """A channel to `target`.

    Args:
        target: "host:port", several of them joined by commas (see `Addresses`), or "xds:///AGENT" for an agent by name
            (see `use_registry`).
        telemetry: where calls are counted and traced; None: nowhere.
        default_timeout: of calls whose method declares none.
        identity: who calls, for calls made while no call is being served.
        options: further gRPC channel arguments.
        measured: whether its calls are counted; not where whoever makes them counts them as well.
    """

    def __init__(
        self,
        target: str,
        *,
        telemetry: Telemetry | None = None,
        default_timeout: timedelta = timedelta(seconds=DEFAULT_TIMEOUT),
        identity: Identity | None = None,
        options: Iterable[tuple[str, Any]] = (),
        measured: bool = True,
    ) -> None:
        self.target = target
        self._measured = measured
        self._telemetry = telemetry
        self._default_timeout = default_timeout.total_seconds()
        self._own: Metadata = (
            () if identity is None else ((IDENTITY_KEY, identity.SerializeToString()),)
        )
        place, all_options = target, (*_OPTIONS, *options)
        if "," in target:
            place = Addresses(target).target
            all_options = (*_OPTIONS, ("grpc.service_config", _REPEATED), *options)
        self._inner = grpc.aio.insecure_channel(place, options=all_options)

    def _calling(self, method: str, *, streaming: bool) -> Calling:
        implied = default_timeout(method, streaming=streaming)
        if implied == DEFAULT_TIMEOUT:
            implied = self._default_timeout
        return Calling(
            method,
            self._telemetry,
            implied,
            self._own,
            measured=self._measured,
            server=self.target,
            streaming=streaming,
        )

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 what generated stubs pass
    ) -> Any:
        """A callable for a unary method."""
        inner = self._inner.unary_unary(method, request_serializer, response_deserializer)
        return _Callable(inner, self._calling(method, streaming=False))

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 what generated stubs pass
    ) -> Any:
        """A callable for a server-streaming method."""
        inner = self._inner.unary_stream(method, request_serializer, response_deserializer)
        return _Callable(inner, self._calling(method, streaming=True))

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 what generated stubs pass
    ) -> Any:
        """A callable for a client-streaming method."""
        inner = self._inner.stream_unary(method, request_serializer, response_deserializer)
        return _Callable(inner, self._calling(method, streaming=True))

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 what generated stubs pass
    ) -> Any:
        """A callable for a bidirectional method."""
        inner = self._inner.stream_stream(method, request_serializer, response_deserializer)
        return _Callable(inner, self._calling(method, streaming=True))

    async def close(self, grace: float | None = None) -> None:
        """Closes the channel; running calls get `grace` seconds."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 gRPC's signature
        """Connectivity of the channel."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns when the connectivity is no longer `last_observed_state`."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns when the channel is connected."""
        await self._inner.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class _Sent(grpc.aio.Metadata):
    """Metadata that is sent as it is. grpc.aio makes such an object of whatever it is given, in four times the time."""

    def __init__(self, entries: Metadata) -> None:
        self._entries = entries

    def __iter__(self) -> Iterator[tuple[str, str | bytes]]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _observe(
    calling: Calling,
    started: float,
    span: trace.Span | None,
    sent: Metadata,
    given: Metadata | None,
) -> Callable[[Any], None]:
    record, slow = calling.record, calling.slow
    root = not given and current_call() is None

    def done(call: Any) -> None:
        code = _code_of(call)
        seconds = perf_counter() - started
        trace_id = ""
        if span is not None or seconds >= slow or (code is not _OK and code in SERVER_FAULTS):
            trace_id = calling.ended(code, seconds, span, sent, root=root)
        if record is not None:
            record(code, seconds, trace_id)

    return done


def _code_of(call: Any) -> grpc.StatusCode:
    # The public accessor is a coroutine; in a done callback the status is there already.
    status = getattr(call, "_cython_call", call)._status  # noqa: SLF001
    if status is None:
        return grpc.StatusCode.CANCELLED
    return BY_NUMBER.get(status.code(), grpc.StatusCode.UNKNOWN)


class _Callable:
    """A multi-callable of any kind, with deadline, metadata and observation added."""

    __slots__ = ("_calling", "_inner")

    def __init__(self, inner: Any, calling: Calling) -> None:
        self._inner = inner
        self._calling = calling

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        **further: Any,
    ) -> Any:
        calling = self._calling
        started = perf_counter()
        sent, span = calling.metadata(metadata)
        left = calling.timeout(timeout)
        if request is None:
            call = self._inner(timeout=left, metadata=_Sent(sent), **further)
        else:
            call = self._inner(request, timeout=left, metadata=_Sent(sent), **further)
        if calling.record is not None or span is not None or calling.late is not None:
            call.add_done_callback(_observe(calling, started, span, sent, metadata))
        return call
