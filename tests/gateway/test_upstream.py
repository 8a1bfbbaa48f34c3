"""The way to an agent, with no registry between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from weft import rpc
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway.guards import Breakers
from weft.gateway.upstream import Upstream


class Endless(echo_pb2_grpc.EchoServiceServicer):
    """Counts the messages that were taken from it."""

    taken = 0

    async def Repeat(
        self, request: echo_pb2.RepeatRequest, context: Any
    ) -> AsyncIterator[echo_pb2.RepeatResponse]:
        while True:
            yield echo_pb2.RepeatResponse(text="x" * 10_000)
            self.taken += 1


async def test_an_agent_makes_little_that_is_read_slowly_or_not_at_all() -> None:
    """By itself gRPC widens the window of a call that is read at all, up to many megabytes."""
    agent = Endless()
    server = rpc.Server()
    server.add(echo_pb2_grpc.add_EchoServiceServicer_to_server, agent)
    async with server:
        upstream = Upstream(Breakers(None), own={"echo": server.address})
        request = echo_pb2.RepeatRequest().SerializeToString()
        path = "/weft.echo.v1.EchoService/Repeat"
        messages = upstream.stream("echo", path, request, None)
        async with contextlib.aclosing(messages):
            for _ in range(300):
                await anext(messages)
            before = -1
            while agent.taken != before:
                before = agent.taken
                await asyncio.sleep(0.2)
            assert agent.taken < 300 + 100
        await upstream.close()
