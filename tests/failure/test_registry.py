"""A registry that dies: calls go on, agents come back by themselves."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from weft import rpc
from weft.agents import Mesh
from weft.echo.v1 import echo_pb2, echo_pb2_grpc

pytestmark = [pytest.mark.failure, pytest.mark.timeout(120)]

OUTAGE = 20.0


async def test_calls_go_on_while_the_registry_is_dead(house, calling):
    async with calling(house.registry, rate=50, deadline=2) as load:
        house.processes[0].kill()
        # The length of the outage is what is tried here; nothing tells that it is over.
        await asyncio.sleep(OUTAGE)
        during = len(load.outcomes)
        house.start_registry()
        back = await house.until(2)
        await asyncio.sleep(1)
    assert during > OUTAGE * 50 * 0.8
    assert load.failed() == []
    assert back < 8, "start of a process, and two agents that register again by themselves"


async def test_an_unknown_agent_fails_at_once(house):
    async with Mesh(house.registry) as mesh:
        echo = mesh.stub(echo_pb2_grpc.EchoServiceStub)
        await echo.Say(echo_pb2.SayRequest(), timeout=10)
        nobody = mesh.stub(echo_pb2_grpc.EchoServiceStub, "nobody")
        took = []
        # The registry says nothing of unknown names in its first seconds (cold start): wait that out.
        with pytest.raises(grpc.aio.AioRpcError):
            await nobody.Say(echo_pb2.SayRequest(), timeout=10)
        for number in range(5):
            stranger = mesh.stub(echo_pb2_grpc.EchoServiceStub, f"nobody-{number}")
            began = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await stranger.Say(echo_pb2.SayRequest(), timeout=10)
            took.append(time.monotonic() - began)
            error = rpc.error_from_call(failed.value)
            assert isinstance(error, rpc.NotFound)
            assert error.reason == "AGENT_UNKNOWN"
            assert "weft agents" in error.message
    assert sorted(took)[2] < 0.05
