"""One process serves many agents on one port, each with its own name, limit and state."""

from __future__ import annotations

from weft import rpc
from weft.agents import Host
from weft.agents.echo import Echo
from weft.support.v1 import quality_pb2_grpc
from weft.v1 import registry_pb2, registry_pb2_grpc


class Lenient(quality_pb2_grpc.QualityServiceServicer):
    """Judges nothing."""


async def test_agents_share_a_port(registry):
    async with Host(registry=registry) as host, rpc.Channel(registry) as channel:
        assert [host.add(Echo(), max_concurrency=5), host.add(Lenient())] == [
            "echo",
            "support-quality",
        ]
        await host.start()
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        listed = (await stub.ListAgents(registry_pb2.ListAgentsRequest())).agents
    instances = {agent.name: agent.instances[0] for agent in listed if agent.instances}
    assert instances["echo"].address == instances["support-quality"].address
    assert instances["echo"].max_concurrency == 5
