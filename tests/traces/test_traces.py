"""Recent traces: taken by OTLP, told by TraceQueryService, bounded."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp

from weft import rpc, traces
from weft.v1 import trace_pb2, trace_pb2_grpc

MS = 1_000_000  # nanoseconds


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def span(trace: int, number: int, *, start: int, ms: int = 1, **fields: object) -> otlp.Span:
    made = otlp.Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        name=f"span {number}",
        start_time_unix_nano=start * MS,
        end_time_unix_nano=(start + ms) * MS,
    )
    made.MergeFrom(otlp.Span(**fields))
    return made


def sent(*spans: otlp.Span, service: str = "gateway") -> list[otlp.ResourceSpans]:
    return [
        otlp.ResourceSpans(
            resource=Resource(attributes=[text("service.name", service)]),
            scope_spans=[otlp.ScopeSpans(spans=spans)],
        )
    ]


def name(trace: int) -> str:
    return f"{trace:032x}"


@contextlib.asynccontextmanager
async def served(
    store: traces.TraceStore,
) -> AsyncIterator[
    tuple[trace_service_pb2_grpc.TraceServiceStub, trace_pb2_grpc.TraceQueryServiceStub]
]:
    server = rpc.Server()
    for add, servicer in traces.services(store):
        server.add(add, servicer)
    async with server, rpc.Channel(server.address) as channel:
        yield (
            trace_service_pb2_grpc.TraceServiceStub(channel),
            trace_pb2_grpc.TraceQueryServiceStub(channel),
        )


async def test_what_is_exported_is_told():
    exported = sent(
        span(
            7, 2, start=20, ms=30, parent_span_id=bytes(7) + b"\1", kind=otlp.Span.SPAN_KIND_CLIENT
        ),
        span(
            *(7, 1),
            start=10,
            ms=100,
            kind=otlp.Span.SPAN_KIND_SERVER,
            status=otlp.Status(code=otlp.Status.STATUS_CODE_ERROR, message="it failed"),
            attributes=[
                text("weft.agent", "echo"),
                KeyValue(key="retries", value=AnyValue(int_value=3)),
                KeyValue(
                    key="tags",
                    value=AnyValue(
                        array_value=ArrayValue(values=[AnyValue(string_value=t) for t in "ab"])
                    ),
                ),
                KeyValue(key="unset"),
            ],
        ),
    )
    async with served(traces.TraceStore()) as (otlp_stub, query):
        await otlp_stub.Export(trace_service_pb2.ExportTraceServiceRequest(resource_spans=exported))
        told = await query.GetTrace(trace_pb2.GetTraceRequest(trace_id=name(7)))
        (summary,) = (await query.ListTraces(trace_pb2.ListTracesRequest())).traces
    assert told.trace_id == name(7)
    first, second = told.spans
    assert [first.name, second.name] == ["span 1", "span 2"], "ordered by start"
    assert (first.kind, second.kind) == ("SERVER", "CLIENT")
    assert (first.service, second.service) == ("echo", "gateway"), "the agent, else the process"
    assert second.parent_span_id == first.span_id == f"{1:016x}"
    assert first.duration.ToMilliseconds() == 100
    assert (first.error, first.status_message, second.error) == (True, "it failed", False)
    assert dict(first.attributes) == {
        "weft.agent": "echo",
        "retries": "3",
        "tags": "a, b",
        "unset": "",
    }
    assert (summary.trace_id, summary.name, summary.span_count) == (name(7), "span 1", 2)
    assert summary.error
    assert summary.duration.ToMilliseconds() == 100


async def test_traces_are_listed_newest_first_and_no_more_than_asked():
    store = traces.TraceStore()
    for trace, start in ((1, 300), (2, 100), (3, 200)):
        store.add(sent(span(trace, 1, start=start)))
    async with served(store) as (_, query):
        told = await query.ListTraces(trace_pb2.ListTracesRequest())
        assert [t.trace_id for t in told.traces] == [name(1), name(3), name(2)]
        told = await query.ListTraces(trace_pb2.ListTracesRequest(page_size=2))
        assert [t.trace_id for t in told.traces] == [name(1), name(3)]


async def test_a_page_has_a_size_of_its_own_and_a_largest_one():
    store = traces.TraceStore()
    for trace in range(1, 251):
        store.add(sent(span(trace, 1, start=trace)))
    async with served(store) as (_, query):
        for asked, given in ((0, 20), (200, 200), (1_000, 200)):
            told = await query.ListTraces(trace_pb2.ListTracesRequest(page_size=asked))
            assert len(told.traces) == given


@pytest.mark.parametrize("trace_id", ["", "abc", "G" * 32, "A" * 32, "0" * 33])
async def test_an_id_that_is_none_is_refused_with_its_field(trace_id):
    async with served(traces.TraceStore()) as (_, query):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await query.GetTrace(trace_pb2.GetTraceRequest(trace_id=trace_id))
    error = rpc.error_from_call(refused.value)
    assert isinstance(error, rpc.InvalidArgument)
    assert "trace_id" in str(error.details)


async def test_a_trace_that_is_not_kept_is_told_to_be_unknown():
    async with served(traces.TraceStore()) as (_, query):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await query.GetTrace(trace_pb2.GetTraceRequest(trace_id=name(9)))
    error = rpc.error_from_call(refused.value)
    assert isinstance(error, rpc.NotFound)
    assert error.reason == "TRACE_UNKNOWN"


async def test_a_negative_page_size_is_refused():
    async with served(traces.TraceStore()) as (_, query):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await query.ListTraces(trace_pb2.ListTracesRequest(page_size=-1))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_trace_that_was_quiet_for_longest_is_dropped():
    store = traces.TraceStore(max_traces=2)
    store.add(sent(span(1, 1, start=10)))
    store.add(sent(span(2, 1, start=20)))
    store.add(sent(span(1, 2, start=30)))
    store.add(sent(span(3, 1, start=5)))
    assert {t.trace_id for t in store.newest(10)} == {name(1), name(3)}
    assert store.spans(name(2)) == []
    assert len(store.spans(name(1))) == 2


def test_a_trace_takes_so_many_spans_and_no_more():
    store = traces.TraceStore(max_spans=3)
    store.add(sent(*(span(1, n, start=n) for n in range(1, 10))))
    assert [s.name for s in store.spans(name(1))] == ["span 1", "span 2", "span 3"]


def test_long_texts_are_cut_and_a_clock_that_went_back_gives_no_negative_time():
    store = traces.TraceStore()
    long = "x" * 5_000
    store.add(
        sent(
            span(
                *(1, 1),
                start=10,
                ms=-5,
                attributes=[text("prompt", long)],
                status=otlp.Status(message=long),
            )
        )
    )
    (kept,) = store.spans(name(1))
    assert len(kept.attributes["prompt"]) == len(kept.status_message) == 1_000
    assert kept.duration.ToNanoseconds() == 0
