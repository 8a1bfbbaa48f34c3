"""What every Weft server gives: kinds of RPC, limits, health, reflection, metrics, traces."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from weft import rpc
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import channel_for, wait_until
from weft.telemetry import Telemetry
from weft.v1.identity_pb2 import Identity

ADD = echo_pb2_grpc.add_EchoServiceServicer_to_server
SERVICE = "weft.echo.v1.EchoService"


class Relay(Echo):
    def __init__(self, channel: rpc.Channel) -> None:
        super().__init__()
        self.next = echo_pb2_grpc.EchoServiceStub(channel)

    async def Say(self, request: echo_pb2.SayRequest, context: object) -> echo_pb2.SayResponse:
        return await self.next.Say(request)


async def test_all_four_kinds_of_rpc() -> None:
    async with channel_for(ADD, Echo()) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        assert (await stub.Say(echo_pb2.SayRequest(text="a"))).text == "a"
        repeated = [m.number async for m in stub.Repeat(echo_pb2.RepeatRequest(text="a", count=3))]
        assert repeated == [0, 1, 2]
        texts = [echo_pb2.GatherRequest(text=t) for t in "abc"]
        assert list((await stub.Gather(iter(texts))).texts) == ["a", "b", "c"]
        talk = stub.Talk(iter([echo_pb2.TalkRequest(text="x"), echo_pb2.TalkRequest(text="y")]))
        assert [m.text async for m in talk] == ["x", "y"]


async def test_a_call_beyond_the_limit_is_told_to_come_back() -> None:
    async with channel_for(ADD, Echo(), max_concurrency=2) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        request = echo_pb2.SayRequest()
        request.delay.FromTimedelta(timedelta(seconds=0.2))
        results = await asyncio.gather(
            *(stub.Say(request) for _ in range(5)), return_exceptions=True
        )
        refused = [r for r in results if isinstance(r, grpc.aio.AioRpcError)]
        assert len(refused) == 3
        for each in refused:
            error = rpc.error_from_call(each)
            assert isinstance(error, rpc.ResourceExhausted)
            assert error.reason == "CONCURRENCY_LIMIT"
            assert error.retry_after
        assert (await stub.Say(echo_pb2.SayRequest(text="again"))).text == "again"


async def test_health_reflection_and_channelz_are_there() -> None:
    async with channel_for(ADD, Echo()) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            checked = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert checked.status == health_pb2.HealthCheckResponse.SERVING
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="*")])
        )
        listed = [s.name async for answer in reflect for s in answer.list_services_response.service]
        assert SERVICE in listed
        servers = await channelz_pb2_grpc.ChannelzStub(channel).GetServers(
            channelz_pb2.GetServersRequest()
        )
        assert servers.server


async def test_stopping_lets_running_calls_finish_and_turns_health_first() -> None:
    server = rpc.Server()
    server.add(ADD, Echo())
    await server.start()
    async with rpc.Channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        request = echo_pb2.SayRequest(text="late")
        request.delay.FromTimedelta(timedelta(seconds=0.3))
        running = asyncio.ensure_future(echo_pb2_grpc.EchoServiceStub(channel).Say(request))
        await wait_until(lambda: server.load.in_flight == 1)
        stopping = asyncio.create_task(server.stop(timedelta(seconds=5)))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        assert (await running).text == "late"
        await stopping


async def test_a_taken_port_is_a_clear_error() -> None:
    async with rpc.Server() as first:
        second = rpc.Server(first.address)
        with pytest.raises(rpc.AddressInUseError, match="cannot listen on 127.0.0.1"):
            await second.start()
        await second.stop()


async def test_a_service_is_served_once_per_port() -> None:
    server = rpc.Server()
    server.add(ADD, Echo())
    with pytest.raises(ValueError, match="served on this port already"):
        server.add(ADD, Echo())
    await server.stop()


async def test_identity_and_conversation_travel_on() -> None:
    seen: list[rpc.Call] = []

    class Last(Echo):
        async def Say(self, request: echo_pb2.SayRequest, context: object) -> echo_pb2.SayResponse:
            call = rpc.current_call()
            assert call is not None
            seen.append(call)
            assert call.conversation == "c-7"
            assert call.method == f"/{SERVICE}/Say"
            return await super().Say(request, context)

    class First(Relay):
        async def Say(self, request: echo_pb2.SayRequest, context: object) -> echo_pb2.SayResponse:
            call = rpc.current_call()
            assert call is not None
            call.conversation = "c-7"
            return await super().Say(request, context)

    async with channel_for(ADD, Last()) as last, channel_for(ADD, First(last)) as first:
        caller = Identity(subject="key:1", scopes=["a"])
        async with rpc.Channel(first.target, identity=caller) as outside:
            answer = await echo_pb2_grpc.EchoServiceStub(outside).Say(echo_pb2.SayRequest())
    assert answer.caller == "key:1"
    assert seen[0].identity == caller


async def test_calls_are_counted_by_method_and_status(telemetry: Telemetry) -> None:
    async with channel_for(ADD, Echo(), telemetry=telemetry) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        await stub.Say(echo_pb2.SayRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Say(echo_pb2.SayRequest(fail_with=5))
    page = generate_latest(telemetry.metrics.registry).decode()
    for side in ("server", "client"):
        for code in ("OK", "NOT_FOUND"):
            name = f"rpc_{side}_call_duration_seconds_count"
            labels = f'{{rpc_method="{SERVICE}/Say",rpc_response_status_code="{code}"}}'
            assert f"{name}{labels} 1.0" in page


async def test_one_trace_spans_all_hops(telemetry: Telemetry, spans: InMemorySpanExporter) -> None:
    async with (
        channel_for(ADD, Echo(), telemetry=telemetry) as last,
        channel_for(ADD, Relay(last), telemetry=telemetry) as first,
    ):
        await echo_pb2_grpc.EchoServiceStub(first).Say(echo_pb2.SayRequest())
    finished = sorted(spans.get_finished_spans(), key=lambda s: s.start_time or 0)
    assert [s.kind.name for s in finished] == ["CLIENT", "SERVER", "CLIENT", "SERVER"]
    assert len({s.context.trace_id for s in finished if s.context}) == 1
    for parent, child in itertools.pairwise(finished):
        assert parent.context is not None
        assert child.parent is not None
        assert child.parent.span_id == parent.context.span_id


async def test_a_cancelled_call_ends_its_span(
    telemetry: Telemetry, spans: InMemorySpanExporter
) -> None:
    async with channel_for(ADD, Echo(), telemetry=telemetry) as channel:
        request = echo_pb2.SayRequest()
        request.delay.FromTimedelta(timedelta(seconds=30))
        call = asyncio.ensure_future(echo_pb2_grpc.EchoServiceStub(channel).Say(request))
        in_flight = telemetry.metrics.in_flight
        await wait_until(lambda: in_flight.collect()[0].samples[0].value == 1)
        call.cancel()
        await wait_until(lambda: len(spans.get_finished_spans()) == 2)
    codes = {(s.attributes or {})["rpc.response.status_code"] for s in spans.get_finished_spans()}
    assert codes == {"CANCELLED"}


async def test_an_unsampled_caller_is_not_traced(
    telemetry: Telemetry, spans: InMemorySpanExporter
) -> None:
    trace_id = f"{7:032x}"
    sent = (("traceparent", f"00-{trace_id}-{9:016x}-00"),)
    seen: list[str] = []

    class Noting(Echo):
        async def Say(self, request: echo_pb2.SayRequest, context: object) -> echo_pb2.SayResponse:
            call = rpc.current_call()
            assert call is not None
            seen.append(call.trace_id)
            return await super().Say(request, context)

    async with channel_for(ADD, Noting(), telemetry=telemetry) as channel:
        await echo_pb2_grpc.EchoServiceStub(channel).Say(echo_pb2.SayRequest(), metadata=sent)
    assert seen == [trace_id]
    assert not spans.get_finished_spans()


@pytest.mark.parametrize("value", ["", "00-zz-1-01", f"00-{0:032x}-{1:016x}-01", "ff-" + "1" * 51])
async def test_a_malformed_traceparent_begins_a_new_trace(
    telemetry: Telemetry, spans: InMemorySpanExporter, value: str
) -> None:
    async with channel_for(ADD, Echo(), telemetry=telemetry) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        await stub.Say(echo_pb2.SayRequest(), metadata=(("traceparent", value),))
    (span,) = spans.get_finished_spans()
    assert span.kind is trace.SpanKind.SERVER
    assert span.parent is None


async def test_a_thousand_callers_with_equal_ids_get_their_own_answers() -> None:
    class Shuffled(Echo):
        """Answers in an order of its own."""

        async def Say(self, request: echo_pb2.SayRequest, context: object) -> echo_pb2.SayResponse:
            await asyncio.sleep((hash(request.text) % 20) / 1_000)
            return echo_pb2.SayResponse(text=request.text)

    async with (
        channel_for(ADD, Shuffled(), max_concurrency=2_000) as channel,
        rpc.Channel(channel.target, options=[("grpc.use_local_subchannel_pool", 1)]) as second,
    ):
        stubs = [echo_pb2_grpc.EchoServiceStub(channel), echo_pb2_grpc.EchoServiceStub(second)]

        async def ask(caller: int, number: int) -> None:
            said = await stubs[caller].Say(
                echo_pb2.SayRequest(text=f"{caller}/{number}"),
                metadata=(("request-id", str(number)),),
            )
            assert said.text == f"{caller}/{number}"

        async with asyncio.TaskGroup() as group:
            for number in range(500):
                for caller in (0, 1):
                    group.create_task(ask(caller, number))


async def test_bad_arguments_of_echo_name_their_field() -> None:
    async with channel_for(ADD, Echo()) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Say(echo_pb2.SayRequest(fail_with=99))
        error = rpc.error_from_call(caught.value)
        assert isinstance(error, rpc.InvalidArgument)
        assert error.violations[0][0] == "fail_with"
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in stub.Repeat(echo_pb2.RepeatRequest(count=-1)):
                pass


async def test_bytes_that_are_no_message_are_the_caller_s_fault() -> None:
    async with channel_for(ADD, Echo()) as channel:
        for method in ("Say", "Repeat", "Gather", "Talk"):
            call = channel.stream_stream(f"/{SERVICE}/{method}")(
                iter([b"\x0a\xff\xff\xff\xff\x0f"])
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call:
                    pass
            assert rpc.error_from_call(caught.value).reason == "REQUEST_MALFORMED"
