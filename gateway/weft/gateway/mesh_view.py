"""The mesh as the gateway sees it: follows the registry, and makes new routes when contracts change."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import grpc

from weft import rpc
from weft.gateway.dataplane import Traffic
from weft.gateway.mesh_traffic import traffic_of
from weft.rpc.descriptors import descriptor_sets
from weft.telemetry import Telemetry
from weft.v1 import agent_pb2, registry_pb2, registry_pb2_grpc

if TYPE_CHECKING:
    from weft.mtls import Credentials
    from weft.v1.registry_pb2_grpc import RegistryServiceAsyncStub

log = logging.getLogger("weft.gateway")

_PAUSE = 0.2  # seconds between attempts to reach the registry, with jitter
_FETCH = 5.0  # seconds for descriptor sets
_IN_SERVICE = frozenset({agent_pb2.INSTANCE_STATE_SERVING, agent_pb2.INSTANCE_STATE_DEGRADED})

Contracts = Mapping[str, Mapping[str, str]]  # agent -> service -> descriptor digest
Addresses = Mapping[str, Sequence[str]]  # agent -> where its instances in service are
Paused = Mapping[str, str]  # agent that operators hold back as a whole -> why
Spread = Mapping[str, Traffic]  # agent of which operators said how calls are spread -> how


class MeshView:
    """Agents, and the descriptor sets of what they serve.

    While the registry is away the view stays as it was, and calls go on.

    Args:
        registry: address of the registry, or of several of its replicas, joined by commas.
        on_contracts: called with (contracts, descriptor sets by digest) when they change.
        on_addresses: called with the addresses of all agents, those that are paused, and how calls are spread, when agents
            change.
        zone: where this gateway runs; empty: unknown.
        mtls: what it shows to the registry; None: the connection is not encrypted.
    """

    def __init__(
        self,
        registry: str,
        on_contracts: Callable[[Contracts, Mapping[str, bytes]], None],
        on_addresses: Callable[[Addresses, Paused, Spread], None],
        *,
        zone: str = "",
        telemetry: Telemetry | None = None,
        mtls: Credentials | None = None,
    ) -> None:
        self._mtls = mtls
        self._registry = registry
        self._on_contracts = on_contracts
        self._on_addresses = on_addresses
        self._telemetry = telemetry
        self._revision = 0
        self._contracts: dict[str, dict[str, str]] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._paused: dict[str, str] = {}
        self._zone = zone
        self._spread: dict[str, Traffic] = {}
        self._sets: dict[str, bytes] = {}
        self.agents: dict[str, agent_pb2.Agent] = {}
        self.ready = asyncio.Event()

    def in_service(self, agent: str) -> bool:
        """Whether some instance of the agent takes calls, as far as is known."""
        return bool(self._addresses.get(agent))

    def ids(self, agent: str, address: str) -> frozenset[str]:
        """SPIFFE ids that instances of an agent at an address registered with."""
        found = self.agents.get(agent)
        return frozenset(
            instance.spiffe_id
            for instance in (found.instances if found is not None else ())
            if instance.address == address and instance.spiffe_id
        )

    async def run(self) -> None:
        """Follows the registry until cancelled; for a task of its own."""
        async with rpc.Channel(self._registry, mtls=self._mtls) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            while True:
                try:
                    await self._follow(stub)
                except grpc.aio.AioRpcError as failed:
                    log.warning("registry lost", extra={"code": failed.code().name})
                await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 jitter

    async def _follow(self, stub: RegistryServiceAsyncStub) -> None:
        request = registry_pb2.WatchRequest(after_revision=self._revision)
        async for change in stub.Watch(request):
            if change.snapshot:
                self.agents.clear()
                self._addresses.clear()
                self._paused.clear()
                self._spread.clear()
            for agent in change.agents:
                self.agents[agent.name] = agent
                in_service = [each for each in agent.instances if each.state in _IN_SERVICE]
                self._addresses[agent.name] = tuple(each.address for each in in_service)
                self._spread[agent.name] = traffic_of(agent, in_service, self._zone)
                self._paused.pop(agent.name, None)
                why = None if self._addresses[agent.name] else next(_paused(agent), None)
                if why is not None:
                    self._paused[agent.name] = why
            self._on_addresses(self._addresses, self._paused, self._spread)
            await self._learn(stub)
            self._revision = change.revision
            self.ready.set()

    async def _learn(self, stub: RegistryServiceAsyncStub) -> None:
        # An agent with no instance keeps the contract it had: its callers are told "unavailable", not "unknown".
        contracts = {
            name: {s.name: s.descriptor_digest for s in agent.services}
            or self._contracts.get(name, {})
            for name, agent in self.agents.items()
        }
        if contracts == self._contracts:
            return
        wanted = {digest for services in contracts.values() for digest in services.values()}
        self._sets |= await descriptor_sets(stub, wanted - self._sets.keys(), _FETCH)
        self._sets = {digest: self._sets[digest] for digest in wanted}
        self._contracts = contracts
        self._on_contracts(contracts, self._sets)


def _paused(agent: agent_pb2.Agent) -> Iterator[str]:
    """Why instances are paused."""
    for instance in agent.instances:
        if instance.state == agent_pb2.INSTANCE_STATE_PAUSED:
            yield instance.state_reason
