"""The gRPC door: passes calls on to agents as bytes, whatever their types and in all four kinds."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import grpc

from weft import rpc
from weft.gateway.doors.calls import subject_of
from weft.gateway.failures import AgentUnknown, NotServedHere
from weft.gateway.guards.admission import Admission
from weft.gateway.guards.idempotency import KEY, IdempotentCalls, parse_key
from weft.gateway.jobs.asked import PREFER, Asking, is_asked
from weft.gateway.transcoding.catalog import Method
from weft.gateway.upstream import Upstream
from weft.rpc.call import TRACEPARENT_KEY, Call, Metadata, serve_as
from weft.rpc.errors import abort
from weft.rpc.methods import DEFAULT_TIMEOUT
from weft.rpc.tracing import begin_span, end_span
from weft.telemetry import Telemetry

log = logging.getLogger("weft.gateway")

C = grpc.StatusCode
Context = grpc.aio.ServicerContext[bytes, bytes]

# Credentials are for the gateway alone; the rest is set anew on the way out.
_CREDENTIALS = frozenset({"authorization", "x-api-key"})
_NOT_FORWARDED = _CREDENTIALS | {"user-agent", TRACEPARENT_KEY, rpc.DETAILS_KEY}
_PREFER = PREFER.decode()
_REPLAYED = ("idempotency-replayed", "true")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the calls of a method go.

    Attributes:
        agent: name of the agent.
        unary: whether both sides send one message.
        repeatable: whether its calls have no effect; an idempotency key means nothing then.
        timeout: seconds for callers that name no deadline; None: as long as the stream lasts.
        scopes: what its callers need.
        method: as the catalog has it, for jobs; None: it cannot be one.
    """

    agent: str
    unary: bool
    repeatable: bool = False
    timeout: float | None = DEFAULT_TIMEOUT
    scopes: tuple[str, ...] = ()
    method: Method | None = None


class GrpcDoor(grpc.GenericRpcHandler):
    """Serves every method of every agent.

    Args:
        upstream: the way to agents.
        admission: finds out who calls.
        idempotent: makes calls with an idempotency key once.
        asking: begins jobs.
        telemetry: where calls are counted and traced.
        longest: most seconds a caller may ask for.
    """

    def __init__(
        self,
        upstream: Upstream,
        admission: Admission,
        idempotent: IdempotentCalls,
        asking: Asking,
        *,
        telemetry: Telemetry | None = None,
        longest: float = math.inf,
    ) -> None:
        self._upstream = upstream
        self._admission = admission
        self._idempotent = idempotent
        self._asking = asking
        self._telemetry = telemetry
        self._longest = longest
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
        passing = _Passing(
            path, target, self._upstream, self._admission, self._idempotent, self._telemetry
        )
        passing.longest = self._longest
        passing.asking = self._asking
        if target.unary:
            return grpc.unary_unary_rpc_method_handler(passing.unary)
        return grpc.stream_stream_rpc_method_handler(passing.stream)


class _Passing:
    """Passes on the calls of one method."""

    __slots__ = (
        "_admission",
        "_attributes",
        "_breakers",
        "_call",
        "_idempotent",
        "_path",
        "_record",
        "_target",
        "_telemetry",
        "_upstream",
        "asking",
        "longest",
    )

    def __init__(
        self,
        path: str,
        target: Target,
        upstream: Upstream,
        admission: Admission,
        idempotent: IdempotentCalls,
        telemetry: Telemetry | None,
    ) -> None:
        self._path = path
        self._target = target
        self._attributes = {"rpc.system.name": "grpc", "rpc.method": path.lstrip("/")}
        self._upstream = upstream
        self._admission = admission
        self._idempotent = idempotent
        self._breakers = upstream.breakers
        self._telemetry = telemetry if telemetry and telemetry.tracer else None
        self._record = telemetry.metrics.door_call("grpc", path.lstrip("/")) if telemetry else None
        self.longest = math.inf
        self.asking: Asking | None = None
        channel = upstream.channel(target.agent)
        self._call: Any = channel.unary_unary(path) if target.unary else channel.stream_stream(path)

    async def unary(self, request: bytes, context: Context) -> bytes:
        started = perf_counter()
        call = None
        code = C.OK
        try:
            call, sent = await self._enter(context)
            if await self._later(call, sent, request, context):
                return b""
            if (key := self._key(sent)) is None:
                response, passed = await self._pass(request, call, sent)
            else:
                response, passed = await self._once(key, request, call, sent)
            if passed is None:
                context.set_trailing_metadata((_REPLAYED,))
            else:
                if leading := await passed.initial_metadata():
                    await context.send_initial_metadata(tuple(leading))
                _end_with(context, call, await passed.trailing_metadata())
        except rpc.Error as error:
            code = error.code
            await abort(context, error)
        except asyncio.CancelledError:
            code = C.CANCELLED
            raise
        else:
            return response
        finally:
            self._end(call, code, started)

    def _is_job(self, sent: Metadata) -> bool:
        asked = any(name == _PREFER for name, _ in sent)
        method = self._target.method
        return asked and method is not None and is_asked(method, _headers(sent))

    async def _later(self, call: Call, sent: Metadata, request: bytes, context: Context) -> bool:
        """Begins a job where the caller prefers that; whether it did. Its id is in the trailers."""
        if not self._is_job(sent):
            return False
        assert self.asking is not None
        assert self._target.method is not None
        if self._target.method.client_streaming:
            raise NotServedHere("A stream of requests cannot be a job.")
        asked = await self.asking.begin(call, self._target.method, request, _headers(sent))
        told = [("job", asked.job.id), ("preference-applied", "respond-async")]
        if asked.secret:
            told.append(("job-webhook-secret", asked.secret))
        context.set_trailing_metadata(tuple(told))
        return True

    def _key(self, sent: Metadata) -> str | None:
        if self._target.repeatable:
            return None
        return next((parse_key(str(value)) for name, value in sent if name == KEY), None)

    async def _once(
        self, key: str, request: bytes, call: Call, sent: Metadata
    ) -> tuple[bytes, Any]:
        """The response, and the call that was made; None: an earlier one is answered again."""
        passed = None

        async def make() -> bytes:
            nonlocal passed
            response, passed = await self._pass(request, call, sent)
            return response

        assert call.deadline is not None
        answered = await self._idempotent.once(
            subject_of(call),
            key,
            method=self._path,
            request=request,
            deadline=call.deadline,
            make=make,
        )
        return answered.response, passed

    async def _pass(self, request: bytes, call: Call, sent: Metadata) -> tuple[bytes, Any]:
        """The response, and the call that was made."""
        assert call.deadline is not None
        permit = self._breakers.enter(self._target.agent, self._path, call.deadline)
        passed = self._call(request, metadata=sent)
        try:
            response: bytes = await passed
        except grpc.aio.AioRpcError as failed:
            permit.done(failed.code())
            raise self._upstream.failure(failed, self._target.agent) from failed
        except BaseException:
            permit.cancelled()
            raise
        permit.done(C.OK)
        return response, passed

    async def stream(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        started = perf_counter()
        call = None
        code = C.OK
        try:
            call, sent = await self._enter(context)
            if self._is_job(sent):
                await self._later(call, sent, await _only(requests), context)
                return
            if self._key(sent) is not None:
                raise rpc.InvalidArgument("a stream cannot be replayed; leave it out", field=KEY)
            permit = self._breakers.enter(self._target.agent, self._path, call.deadline)
            passed = self._call(requests, metadata=sent)
            try:
                if leading := await passed.initial_metadata():
                    await context.send_initial_metadata(tuple(leading))
                async for response in passed:
                    yield response
            except grpc.aio.AioRpcError as failed:
                permit.done(failed.code())
                raise self._upstream.failure(failed, self._target.agent) from failed
            except BaseException:
                permit.cancelled()
                raise
            finally:
                passed.cancel()
            permit.done(C.OK)
            _end_with(context, call, await passed.trailing_metadata())
        except rpc.Error as error:
            code = error.code
            await abort(context, error)
        except asyncio.CancelledError:
            code = C.CANCELLED
            raise
        finally:
            self._end(call, code, started)

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
        trusted = await self._admission.admit(credentials, self._path, self._target.scopes)
        left = context.time_remaining()
        seconds = self._target.timeout if left is None else min(left, self.longest)
        deadline = rpc.Deadline.after_seconds(math.inf if seconds is None else seconds)
        call = Call.at_door(self._path, traced, deadline, trusted)
        serve_as(call)
        if self._telemetry is not None:
            begin_span(self._telemetry, call, self._attributes, may_begin_trace=True)
        return call, tuple(sent)

    def _end(self, call: Call | None, code: grpc.StatusCode, started: float) -> None:
        if self._record is not None:
            self._record(code, perf_counter() - started)
        if call is not None and call.span is not None:
            end_span(call.span, code)


def _headers(sent: Metadata) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), _as_bytes(value)) for name, value in sent]


async def _only(requests: AsyncIterator[bytes]) -> bytes:
    async for request in requests:
        return request
    raise rpc.InvalidArgument("The stream has no request.")


def _end_with(context: Context, call: Call, trailing: grpc.aio.Metadata | None) -> None:
    # As HTTP doors do in a header; a caller whose call is not traced has no use for the trace.
    traced = () if call.span is None else ((TRACEPARENT_KEY, call.traceparent),)
    if trailing or traced:
        context.set_trailing_metadata((*(trailing or ()), *traced))


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


async def _unknown(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
    del requests
    await abort(context, AgentUnknown())
    yield b""
