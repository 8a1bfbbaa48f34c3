"""Three replicas of a registry on one database, in this process, and ways to compare them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta

import asyncpg
import grpc
import pytest
import pytest_asyncio

from weft import registry, rpc
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2, registry_pb2, registry_pb2_grpc

AGENT = registry_pb2.ResolveRequest(agent="support-triage")


class Reader:
    """What a replica answers."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = rpc.Channel(address)
        self.stub = registry_pb2_grpc.RegistryServiceStub(self.channel)

    async def agents(self) -> registry_pb2.ListAgentsResponse:
        """Everything, without loads, which other replicas learn in their own time."""
        found = await self.stub.ListAgents(registry_pb2.ListAgentsRequest())
        for agent in found.agents:
            for instance in agent.instances:
                instance.ClearField("load")
        return found

    async def serving(self) -> list[str]:
        """Ids of instances in service; none where the agent is not known yet."""
        try:
            return [i.instance_id for i in (await self.stub.Resolve(AGENT)).instances]
        except grpc.aio.AioRpcError as failed:
            if failed.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return []

    async def instances(self) -> dict[str, agent_pb2.Instance]:
        return {i.instance_id: i for a in (await self.agents()).agents for i in a.instances}

    async def me(self) -> registry_pb2.Replica:
        found = await self.stub.ListReplicas(registry_pb2.ListReplicasRequest())
        return next(r for r in found.replicas if r.replica == found.answered_by)

    async def peers(self) -> list[str]:
        found = await self.stub.ListReplicas(registry_pb2.ListReplicasRequest())
        return sorted(replica.address for replica in found.replicas)


class Following:
    """A watcher that notes what it hears."""

    def __init__(self, reader: Reader, after: int = 0) -> None:
        self.stream = reader.stub.Watch(registry_pb2.WatchRequest(after_revision=after))
        self.revision = after
        self.snapshots = 0
        self.heard: dict[str, agent_pb2.Agent] = {}
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            async for change in self.stream:
                assert change.snapshot or change.revision >= self.revision
                self.revision = change.revision
                if change.snapshot:
                    self.snapshots += 1
                    self.heard.clear()
                self.heard.update((agent.name, agent) for agent in change.agents)

    def serving(self, agent: str = "support-triage") -> list[str]:
        found = self.heard.get(agent, agent_pb2.Agent())
        up = agent_pb2.INSTANCE_STATE_SERVING
        return [i.instance_id for i in found.instances if i.state == up]

    async def end(self) -> int:
        """Stops; the revision to resume behind."""
        self.stream.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self.revision


@pytest_asyncio.fixture
async def read() -> AsyncIterator[Callable[[str], Reader]]:
    """read(registry_or_address) asks that replica."""
    async with contextlib.AsyncExitStack() as stack:

        def reader(at: registry.Registry | str) -> Reader:
            made = Reader(at if isinstance(at, str) else at.address)
            stack.push_async_callback(made.channel.close)
            return made

        yield reader


@pytest_asyncio.fixture
async def replicas(
    run_registry: Callable[..., registry.Registry],
) -> AsyncIterator[list[registry.Registry]]:
    """Three running replicas, with leases that outlast a busy moment of this machine."""
    terms = registry.Terms(ttl=timedelta(seconds=3), heartbeat_interval=timedelta(seconds=0.2))
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(run_registry(terms=terms)) for _ in range(3)]


@pytest.fixture
def follow() -> Callable[..., Following]:
    """follow(reader, after) watches everything."""
    return Following


@pytest.fixture
def agree() -> Callable[[Sequence[Reader]], Awaitable[registry_pb2.ListAgentsResponse]]:
    """await agree(readers) returns what all of them say, once they say the same at one revision."""

    async def same(readers: Sequence[Reader]) -> registry_pb2.ListAgentsResponse:
        async def equal() -> bool:
            first, *others = [await reader.agents() for reader in readers]
            return all(other == first for other in others)

        await wait_until(equal)
        return await readers[0].agents()

    return same


@pytest_asyncio.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection of the test's own, that looks into the registry's schema."""
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "registry"})
    yield connection
    await connection.close()
