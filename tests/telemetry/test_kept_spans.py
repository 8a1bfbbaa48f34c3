"""Spans of calls that were not sampled: written at their end where they failed or took long, and else never made."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.openmetrics.exposition import generate_latest

from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.call import new_traceparent
from weft.rpc.testing import channel_for, wait_until
from weft.telemetry import Instruments, Late, PlannedIds, Telemetry

INTERNAL, INVALID = 13, 3


class Traced:
    """Telemetry whose spans can be looked at."""

    def __init__(self, *, ratio: float = 0.0, slow: float = 60.0, most: int = 100) -> None:
        self._kept = InMemorySpanExporter()
        ids = PlannedIds()
        provider = TracerProvider(id_generator=ids, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        tracer = provider.get_tracer("weft")
        self.telemetry = Telemetry(
            metrics=Instruments("test"),
            tracer=tracer,
            sample_ratio=ratio,
            late=Late(tracer, ids, slow=slow, most=most),
        )

    def spans(self, kind: SpanKind) -> list[ReadableSpan]:
        return [span for span in self._kept.get_finished_spans() if span.kind is kind]


class Relay(Echo):
    """Asks another agent."""

    def __init__(self, stub: Any) -> None:
        super().__init__()
        self._stub = stub

    async def Say(self, request: Any, context: Any) -> Any:
        return await self._stub.Say(request)


@pytest.fixture
def traced() -> Traced:
    return Traced()


def serving(traced: Traced, servicer: Any = None) -> Any:
    add = echo_pb2_grpc.add_EchoServiceServicer_to_server
    return channel_for(add, servicer or Echo(), telemetry=traced.telemetry)


async def say(channel: Any, metadata: Any = None, **fields: Any) -> None:
    stub = echo_pb2_grpc.EchoServiceStub(channel)
    request = echo_pb2.SayRequest(text="x", **fields)
    if "fail_with" not in fields:
        await stub.Say(request, metadata=metadata)
        return
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stub.Say(request, metadata=metadata)
    assert failed.value.code().value[0] == fields["fail_with"]


async def test_of_a_call_that_went_well_there_is_no_span(traced):
    async with serving(traced) as channel:
        await say(channel)
        await say(channel, fail_with=INVALID)  # its caller's own fault
    assert traced.spans(SpanKind.SERVER) == traced.spans(SpanKind.CLIENT) == []


async def test_a_failure_is_kept_by_both_sides_in_one_trace(traced):
    async with serving(traced) as channel:
        await say(channel, fail_with=INTERNAL)
    (client,) = traced.spans(SpanKind.CLIENT)
    (server,) = traced.spans(SpanKind.SERVER)
    # The client began the trace: the id that it sent is its own span's.
    assert server.context.trace_id == client.context.trace_id
    assert server.parent.span_id == client.context.span_id
    assert client.parent is None
    for span in (client, server):
        assert span.name == "weft.echo.v1.EchoService/Say"
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["rpc.response.status_code"] == "INTERNAL"
        assert span.attributes["error.type"] == "INTERNAL"
        assert span.attributes["rpc.system.name"] == "grpc"
        assert span.attributes["weft.kept"] == "failed"
    assert client.attributes["server.address"] == "127.0.0.1"


async def test_a_slow_call_is_kept_with_the_times_it_had():
    traced = Traced(slow=0.05)
    async with serving(traced) as channel:
        began = time.time_ns()
        await say(channel, delay=duration_pb2.Duration(nanos=80_000_000))
        ended = time.time_ns()
    (server,) = traced.spans(SpanKind.SERVER)
    assert server.attributes["weft.kept"] == "slow"
    assert server.status.status_code is StatusCode.UNSET
    margin = 20_000_000  # two clocks
    assert began - margin <= server.start_time <= server.end_time <= ended + margin
    assert server.end_time - server.start_time >= 80_000_000


async def test_a_stream_that_lasts_is_not_slow():
    traced = Traced(slow=0.01)
    async with serving(traced) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        pause = duration_pb2.Duration(nanos=20_000_000)
        async for _ in stub.Repeat(echo_pb2.RepeatRequest(text="x", count=2, pause=pause)):
            pass
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in stub.Repeat(echo_pb2.RepeatRequest(text="x", fail_with=INTERNAL)):
                pass
    (server,) = traced.spans(SpanKind.SERVER)
    assert server.attributes["weft.kept"] == "failed"


async def test_a_failure_further_down_keeps_all_that_failed_by_it(traced):
    async with (
        serving(traced) as behind,
        serving(traced, Relay(echo_pb2_grpc.EchoServiceStub(behind))) as channel,
    ):
        await say(channel, fail_with=INTERNAL)
    spans = traced.spans(SpanKind.CLIENT) + traced.spans(SpanKind.SERVER)
    assert len(spans) == 4
    assert len({span.context.trace_id for span in spans}) == 1
    first = [span for span in spans if span.parent is None]
    assert [span.kind for span in first] == [SpanKind.CLIENT]
    # What nobody sampled hangs below the first.
    assert {s.parent.span_id for s in spans if s.parent} == {first[0].context.span_id}


async def test_who_calls_decides_for_itself(traced):
    """Of a trace that its caller did not sample there is what failed, below the caller's span, which may be missing."""
    sent = new_traceparent()
    async with serving(traced) as channel:
        await say(channel, metadata=(("traceparent", sent),), fail_with=INTERNAL)
    (server,) = traced.spans(SpanKind.SERVER)
    assert f"{server.context.trace_id:032x}" == sent.split("-")[1]
    assert f"{server.parent.span_id:016x}" == sent.split("-")[2]
    (client,) = traced.spans(SpanKind.CLIENT)
    assert client.parent.span_id == server.parent.span_id


async def test_a_call_that_is_sampled_has_one_span_as_ever():
    traced = Traced(ratio=1.0)
    async with serving(traced) as channel:
        await say(channel, fail_with=INTERNAL)
    (server,) = traced.spans(SpanKind.SERVER)
    assert "weft.kept" not in server.attributes


async def test_a_storm_of_failures_is_none_of_spans():
    traced = Traced(most=5)
    async with serving(traced) as channel:
        for _ in range(30):
            await say(channel, fail_with=INTERNAL)
    seconds = {span.end_time // 10**9 for span in traced.spans(SpanKind.SERVER)}
    assert 2 <= len(traced.spans(SpanKind.SERVER)) <= 5 * (len(seconds) + 1)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_metrics_lead_to_the_trace_of_a_failure(ratio):
    traced = Traced(ratio=ratio)
    async with serving(traced) as channel:
        await say(channel, fail_with=INTERNAL)
    (server,) = traced.spans(SpanKind.SERVER)
    page = generate_latest(traced.telemetry.metrics.registry).decode()
    exemplar = f'# {{trace_id="{server.context.trace_id:032x}"}}'
    told = [line for line in page.splitlines() if exemplar in line]
    assert any(line.startswith("rpc_server_call_duration_seconds_bucket") for line in told)
    assert any(line.startswith("rpc_client_call_duration_seconds_bucket") for line in told)


async def test_deadlines_that_pass_are_kept(traced):
    async with serving(traced) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        slow = duration_pb2.Duration(seconds=5)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Say(echo_pb2.SayRequest(text="x", delay=slow), timeout=0.05)
        await wait_until(lambda: traced.spans(SpanKind.SERVER), timedelta(seconds=5))
    (client,) = traced.spans(SpanKind.CLIENT)
    assert client.attributes["rpc.response.status_code"] == "DEADLINE_EXCEEDED"
