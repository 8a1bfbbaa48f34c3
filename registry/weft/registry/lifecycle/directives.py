"""Tells a process what operators want of its instances, and takes what it says of that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from weft.registry.index import Index
from weft.v1 import agent_pb2, lifecycle_pb2, registry_pb2, traffic_pb2

Send = Callable[[registry_pb2.RegisterResponse], Awaitable[None]]


class Directives:
    """The directives of one Register stream.

    Args:
        index: knows what operators want.
        instances: of the process, as they registered.
        send: writes to the stream.
    """

    def __init__(self, index: Index, instances: Iterable[agent_pb2.Instance], send: Send) -> None:
        self._index = index
        self._agents = {each.instance_id: each.agent for each in instances}
        # What a process did before it came to this registry, it does still.
        self._told = {each.instance_id: each.applied.version for each in instances}
        self._due = {each.instance_id for each in instances if each.applied.version}
        self._send = send

    async def run(self) -> None:
        """Tells the process what is wanted, now and whenever it changes, for ever."""
        while True:
            told = False
            for instance_id, agent in self._agents.items():
                control = self._index.control(agent) or lifecycle_pb2.Control()
                if self._told[instance_id] != control.version or instance_id in self._due:
                    await self._tell(instance_id, control)
                    told = True
            if not told:  # else more may have been wanted meanwhile
                await self._index.directed.wait()

    async def _tell(self, instance_id: str, control: lifecycle_pb2.Control) -> None:
        directive = lifecycle_pb2.Directive(
            instance_id=instance_id,
            version=control.version,
            hold=self._index.hold(instance_id),
            settings=control.settings,
            report_utilization=control.traffic.balancing
            == traffic_pb2.BALANCING_WEIGHTED_ROUND_ROBIN,
        )
        self._told[instance_id] = control.version
        self._due.discard(instance_id)
        await self._send(registry_pb2.RegisterResponse(directive=directive))
