"""An agent that calls another: the caller's deadline and identity travel on by themselves."""

from __future__ import annotations

from weft.agents import Host, Mesh, current_call
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.v1.identity_pb2 import Identity


class Last(echo_pb2_grpc.EchoServiceServicer):
    async def Say(self, request, context):
        call = current_call()
        return echo_pb2.SayResponse(
            text=f"{call.identity.subject} has {call.deadline.seconds():.0f} s left"
        )


class First(echo_pb2_grpc.EchoServiceServicer):
    def __init__(self, mesh):
        self.last = mesh.stub(echo_pb2_grpc.EchoServiceStub, "last")

    async def Say(self, request, context):
        return await self.last.Say(request)


async def test_deadline_and_identity_travel_on(registry):
    async with Host(registry=registry) as one, Host(registry=registry) as two:
        one.add(Last(), agent="last")
        two.add(First(two.mesh), agent="first")
        await one.start()
        await two.start()
        async with Mesh(registry, identity=Identity(subject="key:ann")) as mesh:
            stub = mesh.stub(echo_pb2_grpc.EchoServiceStub, "first")
            answer = await stub.Say(echo_pb2.SayRequest(), timeout=5)
    assert answer.text == "key:ann has 5 s left"
