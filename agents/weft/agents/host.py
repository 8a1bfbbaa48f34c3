"""Runs agents: many in one process on one port, registered, observed, drained at stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import uuid
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self

from weft import rpc
from weft.agents.contract import Contract, contract_of
from weft.agents.mesh import Mesh
from weft.agents.registration import Registration
from weft.telemetry import Telemetry
from weft.v1 import agent_pb2

log = logging.getLogger("weft.agents")

# How long clients need to hear of DRAINING before the port may close: the registry's push takes 5 to 20 ms.
_PROPAGATION = timedelta(milliseconds=100)


class Host:
    """Serves agents on one port and keeps them registered.

        async with Host(registry="127.0.0.1:7070") as host:
            host.add(Greeter())
            await host.start()
            await host.wait()

    Args:
        registry: address of the registry.
        listen: "host:port" to serve on; port 0 takes any.
        telemetry: where calls are counted and traced.
        zone: failure domain of this process.
        drain: how long running calls may take at stop.
    """

    def __init__(
        self,
        *,
        registry: str,
        listen: str = "127.0.0.1:0",
        telemetry: Telemetry | None = None,
        zone: str = "",
        drain: timedelta = timedelta(seconds=10),
    ) -> None:
        self.server = rpc.Server(listen, telemetry=telemetry)
        self.mesh = Mesh(registry, telemetry=telemetry)
        self._registry = registry
        self._zone = zone
        self._drain = drain
        self._labels = (
            {"metrics": telemetry.metrics_address}
            if telemetry and telemetry.metrics_address
            else {}
        )
        self._agents: list[tuple[agent_pb2.Instance, Contract, rpc.LoadMeter]] = []
        self._registration: Registration | None = None
        self._holding: asyncio.Task[None] | None = None

    def add(
        self,
        servicer: object,
        *,
        agent: str | None = None,
        version: str = "0.0.0",
        labels: Mapping[str, str] | None = None,
        capabilities: tuple[str, ...] = (),
        max_concurrency: int | None = None,
    ) -> str:
        """Adds an agent before `start` and returns its name.

        Args:
            servicer: an object of a class derived from a generated Servicer.
            agent: name to register under; by default the one its contract gives.
            version: semantic version of the agent's code.
            labels: free labels.
            capabilities: what the instance can do.
            max_concurrency: calls worked on at a time; by default what its contract says.

        Raises:
            ContractError: the servicer derives from no generated class.
            ValueError: its service is served on this port already.
        """
        contract = contract_of(servicer)
        load = rpc.LoadMeter(max_concurrency or contract.max_concurrency)
        name = agent or contract.agent
        self.server.add(contract.add_to_server, servicer, load=load, agent=name)
        service = agent_pb2.ServiceRef(name=contract.service, descriptor_digest=contract.digest)
        instance = agent_pb2.Instance(
            instance_id=uuid.uuid4().hex,
            agent=name,
            services=[service],
            version=version,
            zone=self._zone,
            labels={**self._labels, **(labels or {})},
            capabilities=capabilities,
            max_concurrency=load.limit,
        )
        self._agents.append((instance, contract, load))
        return name

    async def start(self, *, within: timedelta = timedelta(seconds=30)) -> None:
        """Serves, registers, and returns when callers can find the agents.

        Raises:
            AddressInUseError: the port is taken.
            TimeoutError: the registry was not reached within `within`; the host goes on trying.
            InvalidArgument: the registry rejects an instance.
        """
        await self.server.start()
        address = _reachable(self.server.address, self._registry)
        for instance, _, _ in self._agents:
            instance.address = address
        self._registration = Registration(
            self._registry,
            instances=[instance for instance, _, _ in self._agents],
            descriptors={c.digest: c.descriptors for _, c, _ in self._agents},
            load=self._loads,
        )
        self._holding = asyncio.create_task(self._registration.run(), name="registration")
        registered = asyncio.create_task(self._registration.registered.wait())
        try:
            async with asyncio.timeout(within.total_seconds()):
                await asyncio.wait({registered, self._holding}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            registered.cancel()
        if self._holding.done():
            await self._holding

    async def wait(self) -> None:
        """Returns when the host is stopped; raises what ended its registration."""
        if self._holding is not None:
            await asyncio.shield(self._holding)

    async def stop(self) -> None:
        """Drains: tells callers to go elsewhere, lets running calls finish, leaves the registry."""
        if self._registration is not None and self._holding is not None:
            if self._registration.registered.is_set() and await self._registration.announce(
                agent_pb2.INSTANCE_STATE_DRAINING, timedelta(seconds=1)
            ):
                await asyncio.sleep(_PROPAGATION.total_seconds())
            await self.server.stop(self._drain)
            self._registration.leave()
            with contextlib.suppress(rpc.Error):
                await self._holding
            self._registration = None
        else:
            await self.server.stop(self._drain)
        await self.mesh.close()

    def _loads(self) -> Mapping[str, agent_pb2.Load]:
        loads = {}
        for instance, _, meter in self._agents:
            load = agent_pb2.Load(
                in_flight=meter.in_flight, calls=meter.calls, failures=meter.failures
            )
            load.latency_ewma.FromTimedelta(timedelta(seconds=meter.latency_ewma))
            loads[instance.instance_id] = load
        return loads

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


def _reachable(address: str, registry: str) -> str:
    """The address others can dial when the server listens on all interfaces: the one that faces the registry."""
    host, _, port = address.rpartition(":")
    if host.strip("[]") not in {"0.0.0.0", "::", ""}:  # noqa: S104 compared, not bound
        return f"{socket.gethostbyname(host)}:{port}" if not host.startswith("[") else address
    peer, _, peer_port = registry.rpartition(":")
    family = socket.AF_INET6 if peer.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((peer.strip("[]"), int(peer_port)))
        facing = probe.getsockname()[0]
    return f"[{facing}]:{port}" if family == socket.AF_INET6 else f"{facing}:{port}"
