"""A host registers its agents; a mesh gives typed stubs of them, wherever they run."""

from __future__ import annotations

from weft.agents import Host, Mesh
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc


async def test_a_registered_agent_is_called_by_its_name(registry):
    async with Host(registry=registry) as host, Mesh(registry) as mesh:
        host.add(Echo())
        await host.start()
        stub = mesh.stub(echo_pb2_grpc.EchoServiceStub)  # xds:///echo, the name in its contract
        assert (await stub.Say(echo_pb2.SayRequest(text="hello"))).text == "hello"


async def test_replicas_share_the_calls(registry):
    async with (
        Host(registry=registry) as one,
        Host(registry=registry) as two,
        Mesh(registry) as mesh,
    ):
        for host, instance in ((one, "one"), (two, "two")):
            host.add(Echo(instance))
            await host.start()
        stub = mesh.stub(echo_pb2_grpc.EchoServiceStub)
        answered = {(await stub.Say(echo_pb2.SayRequest())).instance for _ in range(20)}
    assert answered == {"one", "two"}
