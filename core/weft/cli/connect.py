"""How commands reach the mesh: one event loop a command, one channel to the registry."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
import grpc

from weft import rpc
from weft.cli import failures, membership
from weft.rpc.call import TRACEPARENT_KEY, new_traceparent
from weft.rpc.descriptors import descriptor_sets
from weft.v1 import (
    agent_pb2,
    discovery_pb2,
    discovery_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)

if TYPE_CHECKING:
    from weft.v1.discovery_pb2_grpc import DiscoveryServiceAsyncStub
    from weft.v1.identity_pb2 import Identity
    from weft.v1.registry_pb2_grpc import RegistryServiceAsyncStub

T = TypeVar("T")
PATIENCE = 5.0  # seconds for an answer of the registry


def traced_metadata() -> tuple[tuple[str, str], ...]:
    """Metadata of a call that begins a trace to be kept; its id is told on a terminal."""
    traceparent = new_traceparent(sampled=True)
    if sys.stderr.isatty():
        click.echo(f"trace {traceparent.split('-')[1]}", err=True)
    return ((TRACEPARENT_KEY, traceparent),)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs the asynchronous part of a command."""
    return asyncio.run(main)


@contextlib.asynccontextmanager
async def to_part(address: str, part: str = "registry") -> AsyncIterator[rpc.Channel]:
    """A channel to the registry or a broker, by whoever runs the command."""
    async with (
        membership.as_client() as mtls,
        rpc.Channel(address, mtls=mtls, part=part) as channel,
    ):
        yield channel


@contextlib.asynccontextmanager
async def to_agent(
    registry: str, agent: str, identity: Identity | None = None, *, zone: str = ""
) -> AsyncIterator[rpc.Channel]:
    """A channel to an agent by name, by whoever runs the command in a zone; calls are made as `identity` says."""
    async with membership.as_client() as mtls:
        rpc.use_registry(registry, zone=zone, mtls=mtls)
        async with rpc.Channel(f"xds:///{agent}", identity=identity, mtls=mtls) as channel:
            yield channel


@contextlib.asynccontextmanager
async def registry(address: str) -> AsyncIterator[Registry]:
    """The registry at "host:port", or at one of several addresses joined by commas.

    Raises:
        Failure: it cannot be reached; says what to do.
        rpc.Error: it refuses a question.
    """
    async with to_part(address) as channel:
        with told(address):
            yield Registry(address, channel)


@contextlib.contextmanager
def told(address: str) -> Iterator[None]:
    """Turns failed calls to the registry into what a person can act upon."""
    try:
        yield
    except grpc.aio.AioRpcError as failed:
        error = rpc.error_from_call(failed)
        if isinstance(error, rpc.Unavailable | rpc.DeadlineExceeded):
            raise failures.Failure(
                f"The registry at {address} cannot be reached. Start everything with `weft up`, "
                f"or name another registry with --registry or WEFT_REGISTRY.{_hint(failed)}"
            ) from failed
        raise error from failed


def _hint(failed: grpc.aio.AioRpcError) -> str:
    """What else may be the matter, when somebody listens and connections end at once."""
    said = failed.details() or ""
    if any(word in said for word in ("Socket closed", "Verification", "handshake", "SSL")):
        return " Somebody listens there: if that mesh has mTLS, this command needs a certificate of it (docs/mtls.md)."
    return ""


class Registry:
    """What commands ask a registry."""

    def __init__(self, address: str, channel: rpc.Channel) -> None:
        self.address = address
        self.channel = channel
        self._stub: RegistryServiceAsyncStub = registry_pb2_grpc.RegistryServiceStub(channel)
        self._discovery: DiscoveryServiceAsyncStub = discovery_pb2_grpc.DiscoveryServiceStub(
            channel
        )

    async def agents(self, *, timeout: float = PATIENCE) -> list[agent_pb2.Agent]:  # noqa: ASYNC109 gRPC's own
        """All agents by name."""
        found: list[agent_pb2.Agent] = []
        token = ""
        while True:
            request = registry_pb2.ListAgentsRequest(page_size=1_000, page_token=token)
            page = await self._stub.ListAgents(request, timeout=timeout)
            found += page.agents
            token = page.next_page_token
            if not token:
                return found

    async def resolve(self, **target: str) -> Sequence[agent_pb2.Instance]:
        """Instances in service of agent=, service= or capability=.

        Raises:
            AioRpcError: NOT_FOUND when there never was such a one.
        """
        request = registry_pb2.ResolveRequest(**target)
        return (await self._stub.Resolve(request, timeout=PATIENCE)).instances

    async def agent(self, name: str) -> Sequence[agent_pb2.Instance]:
        """Instances in service of an agent, at least one.

        Raises:
            Failure: there is none; names what is similar.
        """
        try:
            found = await self.resolve(agent=name)
        except grpc.aio.AioRpcError as failed:
            if failed.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            hint = failures.nearest(name, [agent.name for agent in await self.agents()])
            raise failures.Failure(
                f"There is no agent {name!r}.{hint} `weft agents` lists them."
            ) from failed
        if not found:
            agents = await self.agents()
            instances = [i for agent in agents if agent.name == name for i in agent.instances]
            for instance in instances:
                if instance.state == agent_pb2.INSTANCE_STATE_PAUSED:
                    why = f": {instance.state_reason}" if instance.state_reason else ""
                    raise failures.Failure(
                        f"An operator has paused {name!r}{why}. `weft agents resume {name}` lets it go on."
                    )
            raise failures.Failure(
                f"No instance of {name!r} is in service now. `weft agents` shows their states."
            )
        return found

    async def until_in_service(self, name: str, seconds: float) -> None:
        """Returns when an instance of an agent is in service, or after `seconds`."""
        watched = self._stub.Watch(registry_pb2.WatchRequest(agents=[name]), timeout=seconds)
        try:
            async for change in watched:
                for agent in change.agents:
                    if agent.name == name and await self.resolve(agent=name):
                        return
        except grpc.aio.AioRpcError as failed:
            if failed.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
        finally:
            watched.cancel()

    async def find(self, query: discovery_pb2.AgentQuery) -> Sequence[discovery_pb2.AgentMatch]:
        """All agents that meet a query, the best first."""
        found: list[discovery_pb2.AgentMatch] = []
        request = discovery_pb2.FindRequest(query=query, page_size=1_000)
        while True:
            page = await self._discovery.Find(request, timeout=PATIENCE)
            found += page.matches
            request.page_token = page.next_page_token
            if not request.page_token:
                return found

    async def explain(self, query: discovery_pb2.AgentQuery) -> discovery_pb2.ExplainResponse:
        """Why instances meet a query or not."""
        request = discovery_pb2.ExplainRequest(query=query)
        return await self._discovery.Explain(request, timeout=PATIENCE)

    async def replicas(self, *, timeout: float = PATIENCE) -> registry_pb2.ListReplicasResponse:  # noqa: ASYNC109 gRPC's own
        """The replicas of the registry, as the one that answers knows them."""
        return await self._stub.ListReplicas(registry_pb2.ListReplicasRequest(), timeout=timeout)

    async def descriptors(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Serialized descriptor sets by digest."""
        return await descriptor_sets(self._stub, digests, PATIENCE)
