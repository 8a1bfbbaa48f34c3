"""The other agents: stubs by name with nothing on the way but gRPC, and durable messages through a broker."""

from __future__ import annotations

from typing import Protocol, TypeVar

import grpc

from weft import rpc
from weft.agents.contract import agent_of
from weft.agents.messaging.sending import Sending
from weft.telemetry import Telemetry
from weft.v1.identity_pb2 import Identity

StubT_co = TypeVar("StubT_co", covariant=True)


class StubClass(Protocol[StubT_co]):
    """A generated Stub class."""

    def __call__(self, channel: grpc.aio.Channel) -> StubT_co:
        """Makes a stub over a channel."""
        ...


class Mesh(Sending):
    """The agents of a registry: as stubs, and by `send`, `request`, `publish` and `broadcast` as those who get messages.

    Channels are made once per agent and closed with the mesh.

    Args:
        registry: address of the registry, "host:port".
        brokers: "host:port" of each broker, joined by commas; empty: this mesh sends no messages.
        sender: in whose name messages are sent.
        telemetry: where calls are counted and traced.
        identity: who calls, for calls made while no call is being served.
    """

    def __init__(
        self,
        registry: str,
        *,
        brokers: str = "",
        sender: str = "client",
        telemetry: Telemetry | None = None,
        identity: Identity | None = None,
    ) -> None:
        super().__init__(brokers, sender=sender)
        self.registry = registry
        self._telemetry = telemetry
        self._identity = identity
        self._channels: dict[str, rpc.Channel] = {}
        rpc.use_registry(registry)

    def channel(self, agent: str) -> rpc.Channel:
        """The channel to an agent, at xds:///AGENT."""
        if agent not in self._channels:
            self._channels[agent] = rpc.Channel(
                f"xds:///{agent}", telemetry=self._telemetry, identity=self._identity
            )
        return self._channels[agent]

    def stub(self, stub_class: StubClass[StubT_co], agent: str | None = None) -> StubT_co:
        """A typed stub of an agent.

        Args:
            stub_class: the generated Stub class of its service.
            agent: its name; by default the one its contract gives.
        """
        name = agent or agent_of(stub_class)  # type: ignore[arg-type]  # generated Stubs are classes
        return stub_class(self.channel(name))

    async def close(self) -> None:
        """Waits until all messages are accepted, and closes all channels."""
        await super().close()
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
