"""Agents under operators: paused, drained and set while they run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
import pytest_asyncio
from google.protobuf import duration_pb2
from tests.registry.conftest import Triage

from weft import rpc
from weft.agents import Host, echo
from weft.agents.llm import Endpoint, ModelEntry, Models
from weft.agents.llm.prompts import Prompts, read
from weft.broker import Broker
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.registry import Registry
from weft.rpc.testing import wait_until
from weft.testing.messages_server import MessagesServer
from weft.v1 import lifecycle_pb2, lifecycle_pb2_grpc

SAY = echo_pb2.SayRequest(text="hello")


@pytest_asyncio.fixture
async def registry(database_url: str, fresh_xds: None) -> AsyncIterator[Registry]:
    async with Registry(
        database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0)
    ) as running:
        yield running


@pytest_asyncio.fixture
async def broker(redis_url: str) -> AsyncIterator[Broker]:
    beat = timedelta(milliseconds=50)
    async with Broker(redis_url=redis_url, address="127.0.0.1:0", beat=beat) as running:
        yield running


class Operator:
    """Does something to the agent `echo` and returns when all its instances do as told."""

    def __init__(self, stub) -> None:
        self.stub = stub

    async def __call__(self, method: str, **further: object) -> lifecycle_pb2.Control:
        request = getattr(lifecycle_pb2, f"{method}Request")(agent="echo", **further)
        version = (await getattr(self.stub, method)(request)).control.version
        async with asyncio.timeout(10):
            while True:
                get = lifecycle_pb2.GetControlRequest(agent="echo")
                control = (await self.stub.GetControl(get)).control
                if all(each.applied.version >= version for each in control.instances):
                    return control
                await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def operator(registry: Registry) -> AsyncIterator[Operator]:
    async with rpc.Channel(registry.address) as channel:
        yield Operator(lifecycle_pb2_grpc.LifecycleServiceStub(channel))


@pytest_asyncio.fixture
async def host(registry: Registry, broker: Broker) -> AsyncIterator[Host]:
    async with Host(registry=registry.address, brokers=broker.address) as found:
        found.add(echo.Echo(), max_concurrency=5)
        yield found


async def refused(call) -> rpc.Error:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return rpc.error_from_call(failed.value)


async def test_a_paused_agent_says_why_and_its_messages_wait(host, operator):
    await host.start()
    stub = host.mesh.stub(echo_pb2_grpc.EchoServiceStub)
    assert (await stub.Say(SAY)).text == "hello"
    control = await operator("PauseAgent", reason="wrong prices")
    assert not control.instances[0].applied.problems
    error = await refused(stub.Say(SAY))
    assert isinstance(error, rpc.Unavailable)
    assert error.reason == "AGENT_PAUSED"
    assert "wrong prices" in error.message

    sent = asyncio.create_task(
        host.mesh.request(echo_pb2_grpc.EchoServiceServicer.Say, SAY, within=timedelta(seconds=20))
    )
    done, _ = await asyncio.wait({sent}, timeout=0.5)
    assert not done, "a message waits while its agent is paused"
    await operator("ResumeAgent")
    assert (await sent).text == "hello"
    assert (await stub.Say(SAY)).text == "hello"


async def test_calls_in_hand_are_finished(host, operator):
    await host.start()
    stub = host.mesh.stub(echo_pb2_grpc.EchoServiceStub)
    slow = asyncio.ensure_future(
        stub.Say(echo_pb2.SayRequest(text="slow", delay=duration_pb2.Duration(nanos=700_000_000)))
    )
    await wait_until(lambda: host._members[0].load.in_flight == 1)
    await operator("PauseAgent")
    assert (await refused(stub.Say(SAY))).reason == "AGENT_PAUSED"
    assert (await slow).text == "slow"


async def test_what_an_agent_has_in_hand_holds_up_nothing_that_is_wanted_of_another(host, operator):
    host.add(Triage("triage"), max_concurrency=9)
    await host.start()
    slow = asyncio.create_task(
        host.mesh.request(
            echo_pb2_grpc.EchoServiceServicer.Say,
            echo_pb2.SayRequest(text="slow", delay=duration_pb2.Duration(seconds=5)),
            within=timedelta(seconds=20),
        )
    )
    busy, other = host._members
    await wait_until(lambda: busy.load.in_flight == 1)
    await operator.stub.PauseAgent(lifecycle_pb2.PauseAgentRequest(agent="echo"))
    await wait_until(lambda: busy.held)
    settings = lifecycle_pb2.AgentSettings(max_concurrency=3)
    await operator.stub.SetAgent(
        lifecycle_pb2.SetAgentRequest(agent="support-triage", settings=settings)
    )
    await wait_until(lambda: other.load.limit == 3)
    assert busy.load.in_flight == 1
    await operator("ResumeAgent")
    assert (await slow).text == "slow"
    await wait_until(lambda: busy.consumers)


async def test_drained_instances_take_no_messages_and_no_new_calls(
    registry, broker, host, operator
):
    await host.start()
    async with Host(registry=registry.address, brokers=broker.address) as other:
        other.add(echo.Echo())
        await other.start()
        mine = host._members[0].instance.instance_id
        control = await operator("DrainAgent", instance_ids=[mine])
        assert len(control.instances) == 2
        stub = host.mesh.stub(echo_pb2_grpc.EchoServiceStub)

        async def only_the_other() -> bool:
            before = host._members[0].load.calls
            for _ in range(10):
                await stub.Say(SAY)
            return host._members[0].load.calls == before

        await wait_until(only_the_other)
        assert host._members[0].consumers == []
        for _ in range(5):
            await host.mesh.request(
                echo_pb2_grpc.EchoServiceServicer.Say, SAY, within=timedelta(seconds=10)
            )


async def test_an_agent_that_starts_paused_is_paused(registry, broker, host, operator):
    await host.start()
    await operator("PauseAgent", reason="night")
    async with Host(registry=registry.address, brokers=broker.address) as late:
        late.add(echo.Echo())
        await late.start()
        async with rpc.Channel(late.server.address) as channel:
            stub = echo_pb2_grpc.EchoServiceStub(channel)
            await wait_until(lambda: late._members[0].live.paused == "night")
            assert (await refused(stub.Say(SAY))).reason == "AGENT_PAUSED"
        await wait_until(lambda: late._members[0].consumers == [])


async def test_concurrency_and_timeouts_are_set_live(host, operator):
    await host.start()
    stub = host.mesh.stub(echo_pb2_grpc.EchoServiceStub)
    await operator(
        "SetAgent",
        settings=lifecycle_pb2.AgentSettings(
            max_concurrency=1, timeouts={"Say": duration_pb2.Duration(nanos=300_000_000)}
        ),
    )
    slow = echo_pb2.SayRequest(text="slow", delay=duration_pb2.Duration(seconds=5))
    first = asyncio.ensure_future(stub.Say(slow, timeout=10))
    await wait_until(lambda: host._members[0].load.in_flight == 1)
    error = await refused(stub.Say(SAY))
    assert isinstance(error, rpc.ResourceExhausted)
    assert "1 calls" in error.message
    assert isinstance(await refused(first), rpc.DeadlineExceeded)
    await operator("SetAgent", update_paths=["max_concurrency", "timeouts"])
    assert host._members[0].load.limit == 5
    assert (await stub.Say(echo_pb2.SayRequest(text="x", delay={"nanos": 400_000_000}))).text == "x"


class Asking(echo_pb2_grpc.EchoServiceServicer):
    """Answers with what a model says, and which prompt asked it."""

    def __init__(self, models: Models) -> None:
        self.model = models["echo"]
        self.prompts = Prompts(
            [
                read("answer", "---\nversion: 1\n---\n## user\nsay {} one"),
                read("answer", "---\nversion: 2\nweight: 0\n---\n## user\nsay two"),
            ]
        )

    async def Say(self, request, context):
        reply = await self.model.generate(self.prompts["answer"].ask())
        return echo_pb2.SayResponse(text=f"{reply.model} {reply.prompt}")


async def test_model_and_prompt_are_set_live(registry, operator):
    pytest.importorskip("anthropic")
    async with MessagesServer() as server:
        where = Endpoint(name="test", url=server.url)
        names = {"echo": "claude-sonnet-5-5", "small": "claude-haiku-4-5"}
        models = Models({key: ModelEntry(endpoint=where, model=m) for key, m in names.items()})
        async with Host(registry=registry.address, models=models) as host:
            host.add(Asking(models))
            await host.start()
            stub = host.mesh.stub(echo_pb2_grpc.EchoServiceStub)
            assert (await stub.Say(SAY)).text == "claude-sonnet-5-5 answer@1"
            set_ = lifecycle_pb2.AgentSettings(model="small", prompts={"answer": "2"})
            await operator("SetAgent", settings=set_)
            assert (await stub.Say(SAY)).text == "claude-haiku-4-5 answer@2"
            control = await operator(
                "SetAgent", settings=lifecycle_pb2.AgentSettings(model="none of these")
            )
            [problem] = control.instances[0].applied.problems
            assert problem == "this process has no model 'none of these'; it has echo, small"
            await operator("SetAgent", update_paths=["model", "prompts"])
            assert (await stub.Say(SAY)).text == "claude-sonnet-5-5 answer@1"
        await models.close()
