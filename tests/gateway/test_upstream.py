"""The way to an agent, with no registry between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.gateway.dataplane.agents import SETTINGS, data, head, heard, peer, trailers

from weft import rpc
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway.dataplane import frames
from weft.gateway.dataplane.errors import REFUSED_STREAM
from weft.gateway.guards import Breakers
from weft.gateway.guards.retries import Retries, RetrySettings
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


async def test_what_no_agent_saw_is_no_second_attempt() -> None:
    """Calls that may run twice are made again as others are, though there are no second attempts left."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        for refused in (1, 5):
            await heard(reader, frames.DATA)
            writer.write(frames.reset(refused, REFUSED_STREAM))
            await heard(reader, frames.DATA)
            answered = refused + 2
            writer.write(head(answered) + data(b"hi", answered) + trailers(answered))

    async with peer(talk) as address:
        retries = Retries(RetrySettings(attempts=1))
        upstream = Upstream(Breakers(None), retries=retries, own={"a": address})
        deadline = rpc.Deadline.after_seconds(10)
        assert await upstream.repeatable("a", "/t.T/Echo", b"", deadline) == b"hi"
        messages = upstream.stream("a", "/t.T/Count", b"", deadline, repeatable=True)
        assert [message async for message in messages] == [b"hi"]
        await upstream.close()
