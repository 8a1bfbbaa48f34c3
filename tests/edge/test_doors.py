"""What passes the edge: REST, gRPC and gRPC-Web, of agents that the registry knows."""

from __future__ import annotations

import httpx
from tests.edge.conftest import routed

from weft import rpc
from weft.echo.v1 import echo_pb2, echo_pb2_grpc


async def test_rest(mesh):
    edge = (await mesh()).edge
    await routed(edge.http)
    found = await edge.http.get("/v1/echo/hello")
    assert (found.status_code, found.json()["text"]) == (200, "hello")
    assert "server" not in found.headers
    found = await edge.http.post("/v1/echo:say", json={"text": "hi"})
    assert found.json()["text"] == "hi"
    found = await edge.http.post("/v1/echo:repeat", json={"text": "x", "count": 3})
    assert [each["text"] for each in found.json()] == ["x"] * 3
    found = await edge.http.post("/v1/echo:say", json={"failWith": 5})
    assert (found.status_code, found.json()["code"]) == (404, 5)
    found = await edge.http.get("/v1/nothing")
    assert found.status_code == httpx.codes.NOT_FOUND
    assert found.headers["content-type"] == "application/json"
    assert found.json()["error"]["status"] == "NOT_FOUND"
    assert found.json()["error"]["code"] == 404


async def test_grpc(mesh):
    edge = (await mesh()).edge
    async with rpc.Channel(edge.address) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        await routed(edge.http)
        assert (await stub.Say(echo_pb2.SayRequest(text="a"), timeout=5)).text == "a"
        texts = [each.text async for each in stub.Repeat(echo_pb2.RepeatRequest(text="b", count=3))]
        assert texts == ["b"] * 3
