"""The other agents: stubs by name with nothing on the way but gRPC, and durable messages through a broker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc

from weft import rpc
from weft.agents.contract import agent_of
from weft.agents.messaging.sending import Sending
from weft.telemetry import Telemetry
from weft.v1.identity_pb2 import Identity

if TYPE_CHECKING:
    from weft.agents.llm import Models
    from weft.agents.toolboxes import Toolboxes
    from weft.agents.tools import Tool, Toolbox
    from weft.mtls import Credentials

StubT_co = TypeVar("StubT_co", covariant=True)


class StubClass(Protocol[StubT_co]):
    """A generated Stub class."""

    def __call__(self, channel: grpc.aio.Channel) -> StubT_co:
        """Makes a stub over a channel."""
        ...


class Mesh(Sending):
    """The agents of a registry: as stubs, and by `send`, `request`, `publish` and `broadcast` as those who get messages.

    Channels are made once per agent and closed with the mesh. It also has what its process has for agents: `models`, and
    toolboxes.

    Args:
        registry: address of the registry, "host:port", or of several of its replicas, joined by commas.
        brokers: "host:port" of each broker, joined by commas; empty: this mesh sends no messages.
        sender: in whose name messages are sent.
        telemetry: where calls are counted and traced.
        identity: who calls, for calls made while no call is being served.
        models: those of the process; None: there are none.
        toolboxes: makes toolboxes; None: there are none.
        mtls: what it shows to agents, registry and brokers, and whom it believes; None: nothing is encrypted.
        zone: failure domain of the process; calls stay there where operators say so.
    """

    def __init__(
        self,
        registry: str,
        *,
        brokers: str = "",
        sender: str = "client",
        telemetry: Telemetry | None = None,
        identity: Identity | None = None,
        models: Models | None = None,
        toolboxes: Toolboxes | None = None,
        mtls: Credentials | None = None,
        zone: str = "",
    ) -> None:
        super().__init__(brokers, sender=sender, telemetry=telemetry, mtls=mtls)
        self.registry = registry
        self._identity = identity
        self._models = models
        self._toolboxes = toolboxes
        self._channels: dict[str, rpc.Channel] = {}
        rpc.use_registry(registry, zone=zone, mtls=mtls)

    def channel(self, agent: str) -> rpc.Channel:
        """The channel to an agent, at xds:///AGENT."""
        if agent not in self._channels:
            self._channels[agent] = rpc.Channel(
                f"xds:///{agent}",
                telemetry=self._telemetry,
                identity=self._identity,
                mtls=self._mtls,
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

    @property
    def models(self) -> Models:
        """The models of this process by agent, `mesh.models["greeter"]`; empty where none are set up."""
        if self._models is None:
            from weft.agents.llm import Models  # takes its time, and few agents have models

            self._models = Models({})
        return self._models

    def toolbox(self, tools: Iterable[Tool | str]) -> Toolbox:
        """A toolbox of these tools, closed when the process stops: records, rates and kept results as its settings say.

        Args:
            tools: tools, and names of tools that the settings have: `mesh.toolbox(["web_search", phonebook])`.

        Raises:
            SettingError: there is no `database_url`, and what cannot be recorded is not done; or no tool of a name.
            ValueError: two tools have the same name, or this mesh is of no process that has toolboxes.
        """
        if self._toolboxes is None:
            raise ValueError("this mesh makes no toolboxes; make one: weft.agents.tools.Toolbox")
        return self._toolboxes.made(tools)

    async def close(self) -> None:
        """Waits until all messages are accepted, and closes all channels."""
        await super().close()
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
