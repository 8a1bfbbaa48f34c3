"""Skills of the mesh, and tools of MCP servers, as tools: by real agents, a real registry and a real MCP server."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from tests.tools.callers import GATEWAY, serving, signed

from weft import embedded, rpc
from weft.agents import Contract, Host, Mesh
from weft.agents.contract import contract_for
from weft.agents.tools import MemoryAudit, Toolbox
from weft.agents.tools.skills import skills
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.registry import Registry
from weft.support.v1 import research_pb2_grpc
from weft.v1 import options_pb2
from weft.v1.options_pb2 import SkillOptions

_NUMBERS = itertools.count()


@dataclass
class Heard(echo_pb2_grpc.EchoServiceServicer):
    """Remembers the calls it got."""

    calls: list[rpc.Call] = field(default_factory=list)
    left: list[float] = field(default_factory=list)

    async def Say(self, request: Any, context: Any) -> Any:
        call = rpc.current_call()
        assert call is not None
        self.calls.append(call)
        self.left.append(context.time_remaining())
        if request.fail_with:
            raise rpc.NotFound("There is no such thing to say.")
        return echo_pb2.SayResponse(text=request.text, caller=call.identity.subject)

    async def Repeat(self, request: Any, context: Any) -> Any:
        for number in range(request.count):
            yield echo_pb2.RepeatResponse(text=request.text, number=number)


class Articles(research_pb2_grpc.ResearchServiceServicer):
    """An agent of which nothing is implemented."""


def _bank() -> Contract:
    """The contract of an agent that asks a person before it pays, and takes orders by message."""
    file = FileDescriptorProto(
        name="test/tools/bank.proto",
        package="test.tools.bank",
        syntax="proto3",
        dependency=["weft/v1/options.proto", "weft/echo/v1/echo.proto"],
    )
    service = file.service.add(name="BankService")
    for name, options in {
        "Balance": SkillOptions(),
        "Pay": SkillOptions(needs_approval=True),
        "Order": SkillOptions(delivery=options_pb2.DELIVERY_MESSAGE),
        "Either": SkillOptions(delivery=options_pb2.DELIVERY_BOTH),
    }.items():
        method = service.method.add(
            name=name,
            input_type=".weft.echo.v1.SayRequest",
            output_type=".weft.echo.v1.SayResponse",
        )
        method.options.Extensions[options_pb2.skill].CopyFrom(options)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    described = pool.FindServiceByName("test.tools.bank.BankService")

    def add(_: object, server: Any) -> None:
        # Known to the server's health: the registry takes an agent out of service whose server does not know it.
        server.add_registered_method_handlers(described.full_name, {})

    return contract_for(described, add)


@dataclass
class World:
    mesh: Mesh
    registry: rpc.Channel
    heard: Heard


@pytest_asyncio.fixture(scope="module")
async def world(fresh_xds_of_module: None, servers: embedded.Endpoints) -> AsyncIterator[World]:
    name = f"skills_{next(_NUMBERS)}"
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute(f"create database {name} template template0")
    url = urlsplit(servers.database_url)._replace(path=f"/{name}").geturl()
    heard = Heard()
    async with (
        Registry(database_url=url, address="127.0.0.1:0", cold_start=timedelta(0)) as registry,
        Host(registry=registry.address, identity_trust=GATEWAY.public) as host,
        rpc.Channel(registry.address) as channel,
    ):
        host.add(heard)
        host.add(Articles())
        host.add(object(), contract=_bank())
        await host.start()
        yield World(mesh=host.mesh, registry=channel, heard=heard)
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


ANN = signed("user:ann", "unused", tenant="acme")


async def test_every_skill_is_a_tool_with_its_contract(world: World) -> None:
    found = {each.name: each for each in await skills(world.mesh, world.registry)}
    assert {"echo_say", "echo_say_once", "echo_repeat", "support-research_get_article"} <= set(
        found
    )
    assert "echo_talk" not in found  # takes a stream
    assert "echo_gather" not in found
    say = found["echo_say"]
    assert say.description == "Says a message back, after a delay or with an error when asked."
    assert (say.effects, say.timeout) == (False, timedelta(seconds=10))
    assert found["echo_say_once"].effects
    schema: Any = say.input_schema
    assert set(schema["properties"]) == {"text", "delay", "failWith"}
    few = await skills(
        world.mesh, world.registry, agents=["echo"], chosen=lambda _, m: m.name == "Say"
    )
    assert [each.name for each in few] == ["echo_say"]


async def test_what_a_person_must_approve_is_no_tool_whoever_chooses_it(world: World) -> None:
    found = await skills(world.mesh, world.registry, agents=["bank"])
    assert [each.name for each in found] == ["bank_balance", "bank_either"]


async def test_a_skill_is_called_in_the_callers_name(world: World) -> None:
    tools = await skills(world.mesh, world.registry, agents=["echo"])
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    async with Toolbox(tools, audit=MemoryAudit()) as toolbox:

        async def model() -> Any:
            offers = {each.name: each for each in toolbox}
            return [await offers["echo_say"]({"text": "hello"}) for _ in range(2)]

        metadata = (("traceparent", traceparent), ("idempotency-key", "run-1/step-2"))
        world.heard.calls.clear()
        for _ in range(2):
            told = await serving(ANN, model, seconds=5, conversation="c1", metadata=metadata)
    assert told[0].json == {"text": "hello", "caller": "user:ann"}
    calls = world.heard.calls
    assert {each.trace_id for each in calls} == {"0af7651916cd43dd8448eb211c80319c"}
    assert {each.conversation for each in calls} == {"c1"}
    assert {each.identity.tenant for each in calls if each.identity} == {"acme"}
    keys = [each.first("idempotency-key") for each in calls]
    assert keys[:2] == keys[2:]  # the run comes again
    assert keys[0] != keys[1]
    assert all(0 < each <= 5.1 for each in world.heard.left[-4:])


async def test_an_agent_says_what_is_wrong_with_its_own_words_and_status(world: World) -> None:
    tools = await skills(world.mesh, world.registry, agents=["echo", "support-research"])
    async with Toolbox(tools, audit=MemoryAudit()) as toolbox:

        async def model() -> Any:
            offers = {each.name: each for each in toolbox}
            return [
                await offers["echo_say"]({"text": "x", "fail_with": 5}),
                await offers["echo_repeat"]({"text": "x", "count": 3}),
                await offers["support-research_get_article"]({"article_id": "a"}),
            ]

        failed, streamed, none = await serving(ANN, model)
    assert failed.text == "NOT_FOUND: There is no such thing to say."
    assert streamed.json["messages"] == [
        {"text": "x"},
        {"text": "x", "number": 1},
        {"text": "x", "number": 2},
    ]
    assert none.is_error
    assert none.text.startswith("UNIMPLEMENTED")


async def test_only_those_that_the_identity_may_call(world: World) -> None:
    """By the contract's scopes; and an agent that is called all the same refuses."""
    (say,) = await skills(world.mesh, world.registry, chosen=lambda _, m: m.name == "Say")
    from dataclasses import replace

    needing = replace(say, scopes=("echo.use",))
    world.heard.calls.clear()
    async with Toolbox([needing], audit=MemoryAudit()) as toolbox:

        async def offered() -> Any:
            return [each.name for each in toolbox]

        assert await serving(ANN, offered) == []
        assert await serving(signed("user:ann", "echo.use"), offered) == ["echo_say"]
        request = say.request(text="x")
        with pytest.raises(rpc.PermissionDenied):
            await serving(ANN, lambda: toolbox.use("echo_say", request, say.response))
    assert world.heard.calls == []


async def test_an_identity_that_nobody_signed_reaches_no_agent(world: World) -> None:
    (say,) = await skills(world.mesh, world.registry, chosen=lambda _, m: m.name == "Say")
    from weft.v1.identity_pb2 import Identity

    forged = Identity(subject="user:root", all_scopes=True)
    async with Toolbox(
        [say], audit=MemoryAudit()
    ) as toolbox:  # which believes what the call's server believed
        with pytest.raises(rpc.Unauthenticated):
            await serving(forged, lambda: toolbox.use("echo_say", say.request(), say.response))


async def test_a_registry_that_is_away_is_told() -> None:
    async with rpc.Channel("127.0.0.1:1") as nowhere:
        with pytest.raises(rpc.Unavailable):
            await skills(Nothing(), nowhere)


class Nothing:
    def channel(self, agent: str) -> grpc.aio.Channel:
        raise NotImplementedError
