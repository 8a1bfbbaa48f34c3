"""A host that stops tells callers first, finishes what it has, and leaves the registry."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest

from weft.agents import Host, Mesh
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc

BOTH = {"stays", "leaves"}


class Noticing(Echo):
    def __init__(self, instance):
        super().__init__(instance)
        self.began = asyncio.Event()

    async def Say(self, request, context):
        self.began.set()
        return await super().Say(request, context)


async def test_a_running_call_finishes_and_new_ones_go_elsewhere(registry):
    async with Host(registry=registry) as stays, Mesh(registry) as mesh:
        stays.add(Echo("stays"))
        await stays.start()
        leaves = Host(registry=registry)
        agent = Noticing("leaves")
        leaves.add(agent)
        await leaves.start()
        stub = mesh.stub(echo_pb2_grpc.EchoServiceStub)
        while {(await stub.Say(echo_pb2.SayRequest())).instance for _ in range(4)} != BOTH:
            """The channel connects to both."""
        agent.began.clear()
        slow = echo_pb2.SayRequest()
        slow.delay.FromTimedelta(timedelta(seconds=0.5))
        running = [asyncio.ensure_future(stub.Say(slow)) for _ in range(10)]
        await agent.began.wait()
        await leaves.stop()
        assert {answer.instance for answer in await asyncio.gather(*running)} == BOTH
        assert (await stub.Say(echo_pb2.SayRequest())).instance == "stays"


async def test_with_no_instance_left_a_call_fails_at_once(registry):
    async with Mesh(registry) as mesh:
        async with Host(registry=registry) as host:
            host.add(Echo())
            await host.start()
            stub = mesh.stub(echo_pb2_grpc.EchoServiceStub)
            await stub.Say(echo_pb2.SayRequest())
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            async with asyncio.timeout(1):
                await stub.Say(echo_pb2.SayRequest())
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
