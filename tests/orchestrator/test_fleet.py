"""The orchestrator as an agent of a host."""

from __future__ import annotations

from tests.orchestrator.conftest import ANN, Mesh, begin, chain, ended, said

from weft import rpc
from weft.agents import Host
from weft.agents.orchestrator.fleet import orchestrator
from weft.v1 import orchestrator_pb2_grpc, registry_pb2, registry_pb2_grpc


async def test_it_is_hosted_as_any_agent(mesh: Mesh, database_url: str) -> None:
    async with (
        rpc.Channel(mesh.registry) as registry,
        Host(registry=mesh.registry) as host,
        orchestrator(
            database_url=database_url, registry=registry, channel=host.mesh.channel
        ) as service,
    ):
        assert host.add(service) == "orchestrator"
        await host.start()
        stub = registry_pb2_grpc.RegistryServiceStub(registry)
        found = await stub.Resolve(registry_pb2.ResolveRequest(agent="orchestrator"))
        assert [instance.address for instance in found.instances] == [host.server.address]
        async with rpc.Channel(host.server.address, identity=ANN) as channel:
            client = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
            # Its calls go the mesh's way: by name.
            assert said(await ended(client, (await begin(client, chain("a", "b"))).id)) == "b"
            # And of whom no workflow names, it finds one.
            anybody = chain("a")
            anybody.nodes[0].call.ClearField("target")
            assert said(await ended(client, (await begin(client, anybody)).id)) == "a"
