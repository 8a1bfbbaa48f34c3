"""An agent is a gRPC service: a .proto, and a class with its methods."""

from __future__ import annotations

from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import channel_for


class Shouter(echo_pb2_grpc.EchoServiceServicer):
    async def Say(self, request, context):
        return echo_pb2.SayResponse(text=request.text.upper())


async def test_a_class_answers_calls():
    async with channel_for(echo_pb2_grpc.add_EchoServiceServicer_to_server, Shouter()) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        answer = await stub.Say(echo_pb2.SayRequest(text="hello"))
    assert answer.text == "HELLO"
