"""How a channel connects."""

from __future__ import annotations

import asyncio

from weft import rpc
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc

_FAR = 0.3  # seconds before anything comes back from the server, as from far away or where a handshake takes long


async def test_a_server_that_is_far_away_is_reached_at_the_first_attempt() -> None:
    attempts = 0
    server = rpc.Server("127.0.0.1:0")
    server.add(echo_pb2_grpc.add_EchoServiceServicer_to_server, Echo())

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()

    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(_FAR)
        there = await asyncio.open_connection(*server.address.split(":"))
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(copy(reader, there[1]))
                both.create_task(copy(there[0], writer))
        finally:
            there[1].close()
            writer.close()

    async with server:
        between = await asyncio.start_server(far, "127.0.0.1", 0)
        host, port = between.sockets[0].getsockname()
        async with between, rpc.Channel(f"{host}:{port}") as channel:
            say = echo_pb2_grpc.EchoServiceStub(channel).Say
            assert (await say(echo_pb2.SayRequest(text="hi"), timeout=20)).text == "hi"
    assert attempts == 1
