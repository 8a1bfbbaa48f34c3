"""The gRPC door: passes calls on to agents as bytes, whatever their types and in all four kinds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import grpc

from weft import rpc
from weft.gateway.doors.grpc_peer import certificate_of
from weft.gateway.failures import AgentUnknown, NotServedHere
from weft.gateway.guarded import REPLAYED, Guarded, Headers, told_of
from weft.gateway.guards.admission import Admission
from weft.gateway.guards.call_limits import units_in
from weft.gateway.guards.idempotency import KEY, parse_key
from weft.gateway.jobs.asked import PREFER, is_asked
from weft.gateway.metadata import Beside
from weft.gateway.records import RequestLog
from weft.gateway.transcoding.catalog import Method
from weft.rpc.call import TRACEPARENT_KEY, Call, Metadata, serve_as
from weft.rpc.errors import abort
from weft.rpc.methods import DEFAULT_TIMEOUT
from weft.rpc.status import SERVER_FAULTS
from weft.rpc.tracing import begin_span, end_span, keep_served, trace_id_of
from weft.telemetry import Telemetry

log = logging.getLogger("weft.gateway")

C = grpc.StatusCode
Context = grpc.aio.ServicerContext[bytes, bytes]

# Credentials are for the gateway alone; the rest is set anew on the way out.
_CREDENTIALS = frozenset({"authorization", "x-api-key"})
_NOT_FORWARDED = _CREDENTIALS | {"user-agent", TRACEPARENT_KEY, rpc.DETAILS_KEY}
_PREFER = PREFER.decode()
_CACHE_CONTROL = "cache-control"
# What guards say of an answer, as far as it means something beside HTTP.
_TOLD = frozenset({REPLAYED, b"age", b"weft-stale"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the calls of a method go.

    Attributes:
        method: the method.
        agent: name of the agent.
        unary: whether both sides send one message.
        repeatable: whether its calls have no effect; an idempotency key means nothing then.
        timeout: seconds for callers that name no deadline; None: as long as the stream lasts.
        scopes: what its callers need.
    """

    method: Method = field(repr=False)
    agent: str
    unary: bool
    repeatable: bool = False
    timeout: float | None = DEFAULT_TIMEOUT
    scopes: tuple[str, ...] = ()


class GrpcDoor(grpc.GenericRpcHandler):
    """Serves every method of every agent.

    Args:
        guarded: the way to agents, with all guards.
        admission: finds out who calls.
        telemetry: where calls are counted and traced.
        requests: where calls are logged; None: nowhere.
        encrypted: whether connections may bring a certificate.
        longest: most seconds a caller may ask for.
    """

    def __init__(
        self,
        guarded: Guarded,
        admission: Admission,
        *,
        telemetry: Telemetry | None = None,
        requests: RequestLog | None = None,
        encrypted: bool = False,
        longest: float = math.inf,
    ) -> None:
        self._guarded = guarded
        self._admission = admission
        self._telemetry = telemetry
        self._longest = longest
        self._requests = requests
        self._encrypted = encrypted
        self._handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def serve(self, targets: Mapping[str, Target]) -> None:
        """Takes the methods to serve, by "/package.Service/Method"; replaces those before."""
        self._handlers = {path: self._handler(path, target) for path, target in targets.items()}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of a method; one that answers NOT_FOUND where no agent has it."""
        found = self._handlers.get(handler_call_details.method)
        return found or grpc.stream_stream_rpc_method_handler(_unknown)

    def _handler(self, path: str, target: Target) -> grpc.RpcMethodHandler[Any, Any]:
        passing = _Passing(path, target, self._guarded, self._admission, self._telemetry)
        passing.longest = self._longest
        passing.requests = self._requests
        passing.encrypted = self._encrypted
        if target.unary:
            return grpc.unary_unary_rpc_method_handler(passing.unary)
        return grpc.stream_stream_rpc_method_handler(passing.stream)


class _Passing:
    """Passes on the calls of one method."""

    __slots__ = (
        "_admission",
        "_attributes",
        "_guarded",
        "_path",
        "_record",
        "_target",
        "_telemetry",
        "_upstream",
        "encrypted",
        "longest",
        "requests",
    )

    def __init__(
        self,
        path: str,
        target: Target,
        guarded: Guarded,
        admission: Admission,
        telemetry: Telemetry | None,
    ) -> None:
        self._path = path
        self._target = target
        self._attributes = {"rpc.system.name": "grpc", "rpc.method": path.lstrip("/")}
        self._guarded = guarded
        self._upstream = guarded.upstream
        self._admission = admission
        self._telemetry = telemetry if telemetry and telemetry.tracer else None
        self._record = telemetry.metrics.door_call("grpc", path.lstrip("/")) if telemetry else None
        self.longest = math.inf
        self.encrypted = False
        self.requests: RequestLog | None = None

    async def unary(self, request: bytes, context: Context) -> bytes:
        started = perf_counter()
        call = None
        code = C.OK
        told: Headers = []
        response = b""
        try:
            call, sent = await self._enter(context)
            if self._is_job(sent):
                await self._later(call, sent, request, context)
                return b""
            beside = Beside(sent=sent)
            response = await self._guarded.unary(
                self._target.method,
                call,
                request,
                headers=told,
                beside=beside,
                key=self._key(sent),
                control=self._control(sent),
            )
            if beside.leading:
                await context.send_initial_metadata(beside.leading)
            _end_with(context, call, (*beside.trailing, *_as_metadata(told)))
        except rpc.Error as error:
            code = error.code
            await abort(context, error)
        except asyncio.CancelledError:
            code = C.CANCELLED
            raise
        else:
            return response
        finally:
            self._end(call, code, started, len(request), len(response))

    def _is_job(self, sent: Metadata) -> bool:
        method = self._target.method
        if not method.skill.as_job and all(name != _PREFER for name, _ in sent):
            return False  # of most calls that is all there is to see
        return is_asked(method, _headers(sent))

    async def _later(self, call: Call, sent: Metadata, request: bytes, context: Context) -> None:
        """Begins a job, whose id is in the trailers."""
        method = self._target.method
        if method.client_streaming:
            raise NotServedHere("A stream of requests cannot be a job.")
        asked = await self._guarded.later(method, call, request, _headers(sent), headers=[])
        told = [("job", asked.job.id), ("preference-applied", "respond-async")]
        if asked.secret:
            told.append(("job-webhook-secret", asked.secret))
        context.set_trailing_metadata(tuple(told))

    async def _streams_later(
        self, call: Call, sent: Metadata, requests: AsyncIterator[bytes], context: Context
    ) -> bool:
        """Begins a job where the caller prefers one; whether it did."""
        if self._is_job(sent):
            await self._later(call, sent, await _only(requests), context)
            return True
        if self._key(sent) is not None:
            raise rpc.InvalidArgument("a stream cannot be replayed; leave it out", field=KEY)
        return False

    def _key(self, sent: Metadata) -> str | None:
        if self._target.repeatable:
            return None
        return next((parse_key(str(value)) for name, value in sent if name == KEY), None)

    def _control(self, sent: Metadata) -> bytes:
        if not self._target.method.skill.cache_ttl:
            return b""
        return b",".join(_as_bytes(value) for name, value in sent if name == _CACHE_CONTROL)

    async def stream(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        started = perf_counter()
        call = None
        code = C.OK
        size = _Size()
        if self.requests is not None:
            requests = size.of(requests)
        try:
            call, sent = await self._enter(context)
            if await self._streams_later(call, sent, requests, context):
                return
            with self._guarded.noted(self._target.method, call):
                async with contextlib.aclosing(
                    self._passed(requests, call, sent, context)
                ) as responses:
                    async for response in responses:
                        size.sent += len(response)
                        yield response
        except rpc.Error as error:
            code = error.code
            await abort(context, told_of(self._target.method, error))
        except asyncio.CancelledError:
            code = C.CANCELLED
            raise
        finally:
            self._end(call, code, started, size.received, size.sent)

    async def _passed(
        self, requests: AsyncIterator[bytes], call: Call, sent: Metadata, context: Context
    ) -> AsyncGenerator[bytes, None]:
        method = self._target.method
        entry = await self._guarded.enter(method, call, [])
        beside = Beside(sent=sent)
        place = (self._target.agent, self._path)
        try:
            if method.client_streaming:
                responses = self._upstream.converse(
                    *place,
                    requests,
                    call.deadline,
                    beside,
                    answered=context.send_initial_metadata,
                )
            else:
                responses = self._upstream.stream(
                    *place,
                    await _only(requests),
                    call.deadline,
                    beside,
                    repeatable=method.idempotency.repeatable,
                    answered=context.send_initial_metadata,
                )
            async with contextlib.aclosing(responses):
                async for response in responses:
                    yield response
            _end_with(context, call, beside.trailing)
        finally:
            if entry is not None:
                entry.done(units_in(beside.trailing))

    async def _enter(self, context: Context) -> tuple[Call, Metadata]:
        traced: Metadata = ()
        credentials: list[tuple[bytes, bytes]] = []
        sent: list[tuple[str, str | bytes]] = []
        for key, value in context.invocation_metadata() or ():
            if key in _NOT_FORWARDED:
                if key == TRACEPARENT_KEY:
                    traced = ((key, value),)
                elif key in _CREDENTIALS:
                    credentials.append((key.encode(), _as_bytes(value)))
            elif not key.startswith("weft-"):
                sent.append((key, value))
        certificate = certificate_of(context) if self.encrypted else None
        caller = await self._admission.admit(
            credentials, self._path, self._target.scopes, certificate
        )
        left = context.time_remaining()
        seconds = self._target.timeout if left is None else min(left, self.longest)
        deadline = rpc.Deadline.after_seconds(math.inf if seconds is None else seconds)
        call = Call.at_door(self._path, traced, deadline)
        call.trust(caller.entry, caller.identity)
        serve_as(call)
        if self._telemetry is not None:
            begin_span(self._telemetry, call, self._attributes, may_begin_trace=True)
        return call, tuple(sent)

    def _end(
        self, call: Call | None, code: grpc.StatusCode, started: float, received: int, sent: int
    ) -> None:
        seconds = perf_counter() - started
        trace_id = self._trace(call, code, seconds)
        if self._record is not None:
            self._record(code, seconds, trace_id)
        if self.requests is not None:
            self.requests.ended(
                "grpc", self._path[1:], code, seconds, call=call, received=received, sent=sent
            )

    def _trace(self, call: Call | None, code: grpc.StatusCode, seconds: float) -> str:
        """Ends the span of a call, or writes one now if it failed or took long; its trace, empty: none."""
        if call is None:
            return ""
        if call.span is not None:
            end_span(call.span, code)
            return trace_id_of(call.span)
        late = self._telemetry.late if self._telemetry is not None else None
        if late is None or not late.keeps(
            failed=code is not C.OK and code in SERVER_FAULTS,
            seconds=seconds if self._target.unary else 0.0,
        ):
            return ""
        return keep_served(late, call, self._attributes, code, seconds)


class _Size:
    """Bytes of the messages of a stream."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0

    async def of(self, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same messages, counted."""
        async for request in requests:
            self.received += len(request)
            yield request


def _headers(sent: Metadata) -> Headers:
    return [(name.encode(), _as_bytes(value)) for name, value in sent]


async def _only(requests: AsyncIterator[bytes]) -> bytes:
    async for request in requests:
        return request
    raise rpc.InvalidArgument("The stream has no request.")


def _end_with(context: Context, call: Call, trailing: Metadata) -> None:
    # As HTTP doors do in a header; a caller whose call is not traced has no use for the trace.
    traced = () if call.span is None else ((TRACEPARENT_KEY, call.traceparent),)
    if trailing or traced:
        context.set_trailing_metadata((*trailing, *traced))


def _as_metadata(told: Headers) -> Metadata:
    return tuple((name.decode(), value.decode()) for name, value in told if name in _TOLD)


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


async def _unknown(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
    del requests
    await abort(context, AgentUnknown())
    yield b""
