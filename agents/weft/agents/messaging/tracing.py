"""Spans of messages (OpenTelemetry semantic conventions for messaging), where what they belong to is traced.

A message that is sent has a PRODUCER span, one that is handled a CONSUMER span below it, by the trace context that the message
carries. A message of a trace that is not sampled costs one look.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace

from weft.rpc.call import Call, format_traceparent, parse_traceparent
from weft.rpc.status import SERVER_FAULTS
from weft.rpc.tracing import AGENT
from weft.telemetry import Telemetry
from weft.v1 import message_pb2

SYSTEM = "weft"


@contextlib.contextmanager
def sending(telemetry: Telemetry | None, message: message_pb2.Message) -> Iterator[None]:
    """A span around the publishing of a message, which the message carries on."""
    tracer = telemetry.tracer if telemetry is not None else None
    outer = trace.get_current_span().get_span_context()
    if tracer is None or not (outer.is_valid and outer.trace_flags.sampled):
        yield
        return
    place = message.recipient or message.topic
    span = tracer.start_span(
        f"send {place}",
        kind=trace.SpanKind.PRODUCER,
        attributes=_attributes(message, "send", place),
    )
    message.traceparent = format_traceparent(span.get_span_context())
    with _ended(span):
        yield


@contextlib.contextmanager
def processing(
    telemetry: Telemetry | None, message: message_pb2.Message, queue: str, call: Call, agent: str
) -> Iterator[None]:
    """A span around the handling of a message, current within it: calls made meanwhile are below it."""
    tracer = telemetry.tracer if telemetry is not None else None
    raw = message.traceparent
    remote = parse_traceparent(raw) if raw and not raw.endswith("-00") else None
    if tracer is None or remote is None or not remote.trace_flags.sampled:
        yield
        return
    parent = trace.set_span_in_context(trace.NonRecordingSpan(remote), otel_context.Context())
    attributes = _attributes(message, "process", queue) | {AGENT: agent}
    span = tracer.start_span(
        f"process {queue}", context=parent, kind=trace.SpanKind.CONSUMER, attributes=attributes
    )
    call.span = span
    with trace.use_span(span, record_exception=False, set_status_on_exception=False), _ended(span):
        yield


@contextlib.contextmanager
def _ended(span: trace.Span) -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as failed:
        _failed(span, failed.code().name, ours=failed.code() in SERVER_FAULTS)
        raise
    except Exception as failed:
        _failed(span, type(failed).__name__, ours=True)
        raise
    finally:
        span.end()


def _failed(span: trace.Span, kind: str, *, ours: bool) -> None:
    span.set_attribute("error.type", kind)
    if ours:
        span.set_status(trace.Status(trace.StatusCode.ERROR, kind))


def _attributes(message: message_pb2.Message, operation: str, place: str) -> dict[str, str]:
    found = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": place,
    }
    if message.id:
        found["messaging.message.id"] = message.id
    if message.correlation_id or message.conversation:
        found["messaging.message.conversation_id"] = message.correlation_id or message.conversation
    if message.method:
        found["rpc.method"] = message.method.lstrip("/")
    return found
