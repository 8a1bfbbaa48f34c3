"""Spans of messages by the conventions for messaging: one for who sends, one below it for who handles."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from weft import rpc
from weft.agents.messaging.tracing import processing, sending
from weft.rpc.call import Call, format_traceparent, new_traceparent, parse_traceparent
from weft.telemetry import Instruments, Telemetry
from weft.v1 import message_pb2


@pytest.fixture
def kept() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def telemetry(kept: InMemorySpanExporter) -> Telemetry:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return Telemetry(metrics=Instruments("test"), tracer=provider.get_tracer("weft"))


def message(**given: Any) -> message_pb2.Message:
    method = "/weft.echo.v1.EchoService/Say"
    return message_pb2.Message(id="m1", recipient="echo", method=method, **given)


def call() -> Call:
    return Call.at_door("/weft.echo.v1.EchoService/Say", (), rpc.Deadline.after_seconds(1))


def test_who_handles_a_message_is_below_who_sent_it(telemetry, kept):
    told, handled = message(), call()
    assert telemetry.tracer is not None
    with telemetry.tracer.start_as_current_span("work"), sending(telemetry, told):
        pass
    with processing(telemetry, told, "echo", handled, "echo"):
        # What is called meanwhile is below it.
        assert handled.span is not None
        inside = handled.span.get_span_context()
        assert handled.traceparent == format_traceparent(inside)
    spans: dict[SpanKind, ReadableSpan] = {s.kind: s for s in kept.get_finished_spans()}
    sent, done = spans[SpanKind.PRODUCER], spans[SpanKind.CONSUMER]
    assert sent.name == "send echo"
    assert done.name == "process echo"
    assert done.parent is not None
    assert done.parent.span_id == sent.context.span_id
    for span, operation in ((sent, "send"), (done, "process")):
        assert span.attributes is not None
        assert span.attributes["messaging.system"] == "weft"
        assert span.attributes["messaging.operation.name"] == operation
        assert span.attributes["messaging.operation.type"] == operation
        assert span.attributes["messaging.destination.name"] == "echo"
        assert span.attributes["messaging.message.id"] == "m1"
        assert span.attributes["rpc.method"] == "weft.echo.v1.EchoService/Say"


def test_a_message_of_no_trace_that_is_sampled_has_no_span(telemetry, kept):
    told = message(traceparent=new_traceparent())
    before = told.traceparent
    with sending(telemetry, told), processing(telemetry, told, "echo", call(), "echo"):
        pass
    assert told.traceparent == before
    assert kept.get_finished_spans() == ()


def test_a_failure_is_told(telemetry, kept):
    told = message(traceparent=new_traceparent(sampled=True))
    with (
        pytest.raises(ValueError, match="wrong"),
        processing(telemetry, told, "echo", call(), "echo"),
    ):
        raise ValueError("wrong")
    (span,) = kept.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "ValueError"
    remote = parse_traceparent(told.traceparent)
    assert remote is not None
    assert span.parent.span_id == remote.span_id
