"""The wire of health probes on the event loop that processes run on."""

from __future__ import annotations

import asyncio
import socket
import struct

import uvloop
from grpc_health.v1 import health_pb2

from weft import rpc
from weft.registry.wire import Connection

CHECK = b"/grpc.health.v1.Health/Check"


async def check(address: str) -> list[bytes | None]:
    """What a server says of its health, and the end of it."""
    host, _, port = address.rpartition(":")
    told: list[bytes | None] = []
    ended = asyncio.Event()

    def listen(_: int, message: bytes | None) -> None:
        told.append(message)
        if message is None:
            ended.set()

    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(address, ended.set), host, int(port)
    )
    connection.call(CHECK, health_pb2.HealthCheckRequest().SerializeToString(), listen)
    async with asyncio.timeout(5):
        await ended.wait()
    connection.close()
    return told


async def test_a_probe_on_uvloop() -> None:
    async with rpc.Server("127.0.0.1:0") as server:
        [answer, end] = await asyncio.to_thread(lambda: uvloop.run(check(server.address)))
    assert answer is not None
    found = health_pb2.HealthCheckResponse.FromString(answer)
    assert found.status == health_pb2.HealthCheckResponse.SERVING
    assert end is None


async def test_nothing_is_kept_of_an_answer_that_is_none() -> None:
    """A peer that announces a message of gigabytes, and sends it."""
    told: list[bytes | None] = []
    lost = asyncio.Event()
    connection = Connection("127.0.0.1:1", lost.set)
    sent, received = socket.socketpair()
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: connection, sock=received)
    stream = connection.call(CHECK, b"", lambda _, message: told.append(message))
    body = struct.pack(">BI", 0, 1 << 31) + b"x" * 1_000
    head = struct.pack(">I", len(body))[1:] + bytes((0, 0)) + struct.pack(">I", stream)
    with sent:
        sent.sendall(head + body)
        async with asyncio.timeout(5):
            await lost.wait()
    assert told == []
