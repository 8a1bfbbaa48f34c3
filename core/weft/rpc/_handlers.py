"""The one interceptor of a Weft server, fused into each handler when it is added.

Per call it does identity, deadline, concurrency limit, metrics, tracing and the translation of errors.
Fused since each grpc.aio interceptor costs every call a coroutine and a handler of its own
(benchmarks/rpc.py: runtime_sequential, runtime_32).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError

from weft.rpc.call import UNITS_KEY, Call, Metadata, serve_as
from weft.rpc.deadline import Deadline
from weft.rpc.errors import (
    Error,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    abort,
    error_from_exception,
)
from weft.rpc.live import AgentPaused, LiveSettings
from weft.rpc.load import LoadMeter
from weft.rpc.methods import default_timeout
from weft.rpc.scopes import check, required_by
from weft.rpc.status import BY_NUMBER, OWN_FAULTS, SERVER_FAULTS
from weft.rpc.tracing import begin_span, end_span, keep_served, trace_id_of
from weft.rpc.utilization import UTILIZATION_KEY, Utilization
from weft.telemetry import Late, Record, Report, Telemetry

if TYPE_CHECKING:
    from weft.rpc.membership import Membership
    from weft.rpc.signing import Verifier

log = logging.getLogger("weft.rpc")
C = grpc.StatusCode
Context = grpc.aio.ServicerContext[Any, Any]
Read = Callable[[Any], Any]


class FusedHandlers:
    """Wraps the handlers of one service."""

    def __init__(
        self,
        *,
        load: LoadMeter,
        telemetry: Telemetry | None,
        trace_roots: bool,
        agent: str = "",
        verifier: Verifier | None = None,
        membership: Membership | None = None,
        service: ServiceDescriptor | None = None,
        live: LiveSettings | None = None,
    ) -> None:
        self._service = service
        self._live = live
        self._membership = membership
        self._load = load
        self._verifier = verifier
        self._metrics = telemetry.metrics if telemetry else None
        self._telemetry = telemetry if telemetry and telemetry.tracer else None
        self._report = telemetry.report if telemetry else None
        self._trace_roots = trace_roots
        self._agent = agent

    def wrap(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> Any:
        """A handler of the same shape that does all that a Weft server does for every call."""
        record = self._metrics.server_call(method.lstrip("/")) if self._metrics else None
        streaming = handler.request_streaming or handler.response_streaming
        implied = default_timeout(method, streaming=streaming, service=self._service)
        serving = _Serving(method, self._load, self._telemetry, record, implied)
        serving.trace_roots = self._trace_roots
        if self._telemetry is not None and (late := self._telemetry.late) is not None:
            serving.late = late
            if not streaming:  # how long a stream lasts says nothing
                serving.slow = late.slow
        serving.agent = self._agent
        serving.live = self._live
        serving.report = self._report
        serving.membership = self._membership
        if self._verifier is not None:
            serving.verifier = self._verifier
            serving.required = required_by(method, self._service)
        kinds: dict[tuple[bool, bool], tuple[Any, Any]] = {
            (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
            (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
            (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
        }
        make, behaviour = kinds[bool(handler.request_streaming), bool(handler.response_streaming)]
        # A handler that streams may be a generator, or a coroutine that uses context.write().
        generates = handler.response_streaming and inspect.isasyncgenfunction(behaviour)
        read: Read = _identical
        deserialize = handler.request_deserializer
        if deserialize is not None and handler.request_streaming:
            deserialize, read = _or_malformed(deserialize), _checked
        elif deserialize is not None:
            read, deserialize = _parsed(deserialize), None
        fuse = _streaming if generates else _single
        return make(
            fuse(behaviour, serving, read),
            request_deserializer=deserialize,
            response_serializer=handler.response_serializer,
        )


class _Serving:
    """What is the same for all calls of a method."""

    __slots__ = (
        "agent",
        "attributes",
        "implied",
        "late",
        "live",
        "load",
        "membership",
        "method",
        "record",
        "report",
        "required",
        "slow",
        "telemetry",
        "trace_roots",
        "verifier",
    )

    def __init__(
        self,
        method: str,
        load: LoadMeter,
        telemetry: Telemetry | None,
        record: Record | None,
        implied: float | None,
    ) -> None:
        self.method = method
        self.load = load
        self.telemetry = telemetry
        self.attributes = {"rpc.system.name": "grpc", "rpc.method": method.lstrip("/")}
        self.trace_roots = True
        self.agent = ""
        self.live: LiveSettings | None = None
        self.late: Late | None = None
        self.slow = math.inf
        self.record = record
        self.report: Report | None = None
        self.implied = implied
        self.membership: Membership | None = None
        self.verifier: Verifier | None = None
        self.required: tuple[str, ...] = ()

    def begin(self, context: Context) -> Call:
        call = Call(self.method, context)
        call.agent = self.agent
        call.live = self.live
        serve_as(call)
        if self.telemetry is not None:
            begin_span(self.telemetry, call, self.attributes, may_begin_trace=self.trace_roots)
        return call

    def admit(self, call: Call, context: Context) -> None:
        """Refuses a call from outside of the mesh, in a name that nobody vouches for, or without the method's scopes."""
        if self.membership is not None:
            self.membership.admit(context)
        if self.verifier is not None:
            granted = self.verifier.admit(call)
            if self.required:
                check(self.method, self.required, granted.scopes, everything=granted.everything)

    def end(self, call: Call, code: grpc.StatusCode, started: float) -> None:
        seconds = perf_counter() - started
        failed = code is not C.OK and code in SERVER_FAULTS
        self.load.end(seconds, failed=failed)
        trace_id = ""
        if call.span is not None:
            end_span(call.span, code)
            trace_id = trace_id_of(call.span)
        elif (failed or seconds >= self.slow) and self.late is not None:
            roots = self.trace_roots
            trace_id = keep_served(
                self.late, call, self.attributes, code, seconds, may_begin_trace=roots
            )
        if self.record is not None:
            self.record(code, seconds, trace_id)

    def budget(self, call: Call, context: Context) -> float | None:
        """Seconds this server grants a call: where its caller named no deadline, or a later one than operators let.

        None: it may take what its caller grants.
        """
        live = self.live
        most = live.timeouts.get(self.method) if live is not None and live.timeouts else None
        if most is None and self.implied is None:
            return None
        granted = context.time_remaining()
        if granted is None:
            granted = self.implied
        elif most is None or granted <= most:
            return None
        if most is not None:
            granted = most if granted is None else min(most, granted)
        assert granted is not None
        call.deadline = Deadline.after_seconds(granted)
        return granted

    def error(self, failed: Exception, call: Call) -> Error:
        """What the caller is told of `failed`."""
        error = error_from_exception(failed)
        if error is None:
            log.error("%s failed", self.method, exc_info=failed)
            error = Internal()
        if self.report is not None and error.code in OWN_FAULTS:
            self.report(
                failed,
                {
                    "rpc.method": self.method.lstrip("/"),
                    "rpc.response.status_code": error.code.name,
                    "weft.agent": self.agent,
                    "trace_id": call.trace_id,
                },
            )
        return error


def _refusal(load: LoadMeter, live: LiveSettings | None) -> Error:
    if live is not None and live.paused is not None:
        why = f": {live.paused}" if live.paused else ""
        return AgentPaused(f"An operator has paused the agent{why}.")
    return ResourceExhausted(
        f"The instance works on {load.limit} calls, its limit; try again.",
        reason="CONCURRENCY_LIMIT",
        retry_after=load.retry_after(),
    )


class _Malformed:
    """Stands for a message of a stream that could not be parsed."""


def _identical(request: Any) -> Any:
    return request


def _parsed(deserialize: Callable[[bytes], Any]) -> Read:
    # Parsed here and not by gRPC, which answers UNKNOWN and logs a stack trace for each.
    def read(raw: bytes) -> Any:
        try:
            return deserialize(raw)
        except DecodeError:
            raise _no_message() from None

    return read


def _or_malformed(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(raw: bytes) -> Any:
        try:
            return deserialize(raw)
        except DecodeError:
            return _Malformed()

    return read


async def _checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, _Malformed):
            raise _no_message()
        yield request


def _no_message() -> InvalidArgument:
    return InvalidArgument(
        "The bytes sent are no message of the type this method takes.", reason="REQUEST_MALFORMED"
    )


def _single(
    behaviour: Callable[[Any, Context], Awaitable[Any]], serving: _Serving, read: Read
) -> Callable[[Any, Context], Awaitable[Any]]:
    load, live = serving.load, serving.live

    async def serve(request: Any, context: Context) -> Any:
        started = perf_counter()
        call = serving.begin(context)
        code = C.OK
        try:
            if not load.begin():
                raise _refusal(load, serving.live)  # noqa: TRY301 told as every error is
            serving.admit(call, context)
            budget = serving.budget(call, context)
            if budget is None:
                response = await behaviour(read(request), context)
            else:
                async with asyncio.timeout(budget):
                    response = await behaviour(read(request), context)
            _tell(call, live, context)
            return response  # noqa: TRY300 what is told of units belongs to the call
        except grpc.aio.AbortError:
            code = _aborted_with(context)
            raise
        except asyncio.CancelledError:
            code = _cancelled_as(call)
            raise
        except Exception as failed:  # noqa: BLE001 the edge: whatever it is becomes a status
            error = serving.error(failed, call)
            code = error.code
            await abort(context, error, _units(call, context))
        finally:
            serving.end(call, code, started)

    return serve


def _streaming(
    behaviour: Callable[[Any, Context], Any], serving: _Serving, read: Read
) -> Callable[[Any, Context], AsyncIterator[Any]]:
    load, live = serving.load, serving.live

    async def serve(request: Any, context: Context) -> AsyncIterator[Any]:
        started = perf_counter()
        call = serving.begin(context)
        code = C.OK
        try:
            if not load.begin():
                raise _refusal(load, serving.live)  # noqa: TRY301 told as every error is
            serving.admit(call, context)
            budget = serving.budget(call, context)
            if budget is None:
                async for response in behaviour(read(request), context):
                    yield response
            else:
                async with asyncio.timeout(budget):
                    async for response in behaviour(read(request), context):
                        yield response
            _tell(call, live, context)
        except grpc.aio.AbortError:
            code = _aborted_with(context)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            code = _cancelled_as(call)
            raise
        except Exception as failed:  # noqa: BLE001 the edge: whatever it is becomes a status
            error = serving.error(failed, call)
            code = error.code
            await abort(context, error, _units(call, context))
        finally:
            serving.end(call, code, started)

    return serve


def _units(call: Call, context: Context) -> Metadata:
    """What is told of a call's cost: what the agent says, else what was counted."""
    if call.units is None:
        return ()
    said = tuple(entry for entry in context.trailing_metadata() or () if entry[0] == UNITS_KEY)
    return said or ((UNITS_KEY, str(call.units)),)


def _tell_units(call: Call, context: Context) -> None:
    trailing = tuple(context.trailing_metadata() or ())
    if all(key != UNITS_KEY for key, _ in trailing):
        context.set_trailing_metadata((*trailing, *_units(call, context)))


def _tell(call: Call, live: LiveSettings | None, context: Context) -> None:
    """Sends what is told beside an answer, if anything is."""
    if call.units is not None:
        _tell_units(call, context)
    if live is not None and live.utilization is not None:
        _tell_utilization(live.utilization, context)


def _tell_utilization(utilization: Utilization, context: Context) -> None:
    report = utilization.report()
    if report is not None:
        trailing = tuple(context.trailing_metadata() or ())
        context.set_trailing_metadata((*trailing, (UTILIZATION_KEY, report)))


def _aborted_with(context: Context) -> grpc.StatusCode:
    code = context.code()
    return code if isinstance(code, grpc.StatusCode) else BY_NUMBER.get(code, C.UNKNOWN)


def _cancelled_as(call: Call) -> grpc.StatusCode:
    # The core cancels the handler both when the caller hangs up and when its deadline passes.
    deadline = call.deadline
    return C.DEADLINE_EXCEEDED if deadline is not None and deadline.expired() else C.CANCELLED
