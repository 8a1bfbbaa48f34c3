"""The wire of health probes on the event loop that processes run on."""

from __future__ import annotations

import asyncio

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
