"""The lease of a process whose registry hangs amid a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from weft import rpc
from weft.agents.registration import Registration
from weft.v1 import agent_pb2, registry_pb2, registry_pb2_grpc

_TTL, _HEARTBEAT = 0.3, 0.05  # seconds
_LARGE = {f"{number}-{'x' * 1_000}": agent_pb2.Load() for number in range(2_000)}


class Hanging(registry_pb2_grpc.RegistryServiceServicer):
    """Grants leases, and reads nothing after that."""

    def __init__(self) -> None:
        self.granted = 0

    async def Register(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        await anext(requests)
        self.granted += 1
        answer = registry_pb2.RegisterResponse()
        answer.granted.ttl.FromTimedelta(timedelta(seconds=_TTL))
        answer.granted.heartbeat_interval.FromTimedelta(timedelta(seconds=_HEARTBEAT))
        yield answer
        yield registry_pb2.RegisterResponse(registered=registry_pb2.Registered())
        await asyncio.Event().wait()


async def test_a_report_that_cannot_be_sent_ends_the_lease_and_not_the_process() -> None:
    """The read that has waited for the ttl cancels the stream, and gRPC says of the write that it was cancelled."""
    registry = Hanging()  # type: ignore[abstract]
    server = rpc.Server("127.0.0.1:0")
    server.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, registry)
    async with server:
        registration = Registration(
            server.address, instances=[], descriptors={}, load=lambda: _LARGE
        )
        held = asyncio.create_task(registration.run())
        async with asyncio.timeout(20):
            while registry.granted < 4 and not held.done():
                await registration.registered.wait()
                await asyncio.sleep(_HEARTBEAT)
        assert not held.done()
        registration.leave()
        await asyncio.wait({held}, timeout=5)
        assert held.done()
        assert not held.cancelled()


async def test_a_registration_that_is_cancelled_ends() -> None:
    registry = Hanging()  # type: ignore[abstract]
    server = rpc.Server("127.0.0.1:0")
    server.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, registry)
    async with server:
        registration = Registration(server.address, instances=[], descriptors={}, load=dict)
        held = asyncio.create_task(registration.run())
        await registration.registered.wait()
        held.cancel()
        await asyncio.wait({held}, timeout=5)
        assert held.cancelled()
