"""Recent traces in memory, bounded by number of traces and of spans in each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import timedelta

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp

from weft.v1 import trace_pb2

MAX_TRACES = 2_000
MAX_SPANS = 1_000  # of one trace
_MAX_TEXT = 1_000  # characters of an attribute's value
_KINDS = {
    otlp.Span.SPAN_KIND_CLIENT: "CLIENT",
    otlp.Span.SPAN_KIND_SERVER: "SERVER",
    otlp.Span.SPAN_KIND_PRODUCER: "PRODUCER",
    otlp.Span.SPAN_KIND_CONSUMER: "CONSUMER",
}


class TraceStore:
    """The newest traces; the one that was quiet for longest is dropped first.

    Args:
        max_traces: how many traces are kept.
        max_spans: how many spans of each; further ones are dropped.
    """

    def __init__(self, *, max_traces: int = MAX_TRACES, max_spans: int = MAX_SPANS) -> None:
        self._max_traces = max_traces
        self._max_spans = max_spans
        self._traces: OrderedDict[str, list[trace_pb2.Span]] = OrderedDict()

    def add(self, resources: Iterable[otlp.ResourceSpans]) -> None:
        """Takes spans as OTLP brings them."""
        for resource in resources:
            service = _value(resource.resource.attributes, "service.name")
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self._keep(span.trace_id.hex(), _read(span, service))

    def spans(self, trace_id: str) -> list[trace_pb2.Span]:
        """Spans of a trace ordered by start; empty: it is not known."""
        return sorted(self._traces.get(trace_id, ()), key=_start)

    def newest(self, count: int) -> list[trace_pb2.TraceSummary]:
        """The latest traces, newest first."""
        summaries = [_summary(trace_id, spans) for trace_id, spans in self._traces.items()]
        summaries.sort(key=lambda s: s.start_time.ToNanoseconds(), reverse=True)
        return summaries[:count]

    def _keep(self, trace_id: str, span: trace_pb2.Span) -> None:
        spans = self._traces.setdefault(trace_id, [])
        self._traces.move_to_end(trace_id)
        if len(spans) < self._max_spans:
            spans.append(span)
        while len(self._traces) > self._max_traces:
            self._traces.popitem(last=False)


def _start(span: trace_pb2.Span) -> int:
    return span.start_time.ToNanoseconds()


def _summary(trace_id: str, spans: Sequence[trace_pb2.Span]) -> trace_pb2.TraceSummary:
    first = min(spans, key=_start)
    end = max(_start(span) + span.duration.ToNanoseconds() for span in spans)
    summary = trace_pb2.TraceSummary(
        trace_id=trace_id,
        name=first.name,
        start_time=first.start_time,
        span_count=len(spans),
        error=any(span.error for span in spans),
    )
    summary.duration.FromTimedelta(timedelta(microseconds=(end - _start(first)) / 1_000))
    return summary


def _read(span: otlp.Span, service: str) -> trace_pb2.Span:
    read = trace_pb2.Span(
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        name=span.name,
        service=_value(span.attributes, "weft.agent") or service,
        kind=_KINDS.get(span.kind, "INTERNAL"),
        error=span.status.code == otlp.Status.STATUS_CODE_ERROR,
        status_message=span.status.message[:_MAX_TEXT],
        attributes={item.key: _text(item.value)[:_MAX_TEXT] for item in span.attributes},
    )
    read.start_time.FromNanoseconds(span.start_time_unix_nano)
    read.duration.FromNanoseconds(max(0, span.end_time_unix_nano - span.start_time_unix_nano))
    return read


def _value(attributes: Iterable[KeyValue], key: str) -> str:
    return next((_text(item.value) for item in attributes if item.key == key), "")


def _text(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    if kind == "array_value":
        return ", ".join(_text(item) for item in value.array_value.values)
    return str(getattr(value, kind))
