"""What passes the edge: REST, gRPC and gRPC-Web, of agents that the registry knows."""

from __future__ import annotations

import json
from datetime import timedelta

import grpc
import httpx
import pytest
from tests.edge.conftest import PATIENCE, routed

from weft import rpc
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import wait_until


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
    assert (found.status_code, found.json()["error"]["code"]) == (404, 404)
    assert found.json()["error"]["status"] == "NOT_FOUND"
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


async def test_grpc_web(mesh):
    edge = (await mesh()).edge
    await routed(edge.http)
    message = echo_pb2.SayRequest(text="web").SerializeToString()
    found = await edge.http.post(
        "/weft.echo.v1.EchoService/Say",
        content=b"\0" + len(message).to_bytes(4, "big") + message,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
    )
    assert found.status_code == httpx.codes.OK
    size = int.from_bytes(found.content[1:5], "big")
    assert echo_pb2.SayResponse.FromString(found.content[5 : 5 + size]).text == "web"
    assert b"grpc-status:0" in found.content[5 + size :].replace(b" ", b"")


WEB = {"content-type": "application/grpc-web+proto"}
EMPTY = b"\0\0\0\0\0"


async def test_a_header_that_nobody_can_read_harms_no_other_caller(mesh):
    """gRPC's core, which agents have, remembers such a header by its connection, which all callers of an edge share."""
    edge = (await mesh()).edge
    await routed(edge.http)

    async def ask(name: str, value: str) -> httpx.Response:
        path = "/weft.echo.v1.EchoService/Say"
        return await edge.http.post(path, content=EMPTY, headers=WEB | {name: value})

    for name, nonsense, good in (
        *(("grpc-timeout", each, ("50S", "5000m")) for each in ("5", "123456789m", "", "5S, 6S")),
        ("grpc-trace-bin", "%%", ("AP8", "AAAA")),
        ("x-a-bin", "%%", ("AP8", "AAAA")),
    ):
        for _ in range(3):
            found = await ask(name, nonsense)
            assert found.status_code == 400 or found.headers["grpc-status"] == "13"
        for each in good:
            assert b"grpc-status:0" in (await ask(name, each)).content, (name, nonsense)
    found = await edge.http.get("/v1/echo/a", headers={"grpc-timeout": "5"})
    assert (found.status_code, found.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


async def test_what_a_call_that_is_made_once_needs_a_gateway_for(mesh):
    edge = (await mesh()).edge
    await routed(edge.http)
    once = {"idempotency-key": "k"}
    found = await edge.http.post("/v1/echo:say", json={}, headers=once)
    assert (found.status_code, found.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
    async with rpc.Channel(edge.address) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Say(echo_pb2.SayRequest(), timeout=5, metadata=tuple(once.items()))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    # A wish may be left unheard.
    found = await edge.http.post("/v1/echo:say", json={}, headers={"prefer": "respond-async"})
    assert found.status_code == httpx.codes.OK


async def test_a_call_that_takes_longer_than_its_contract_or_caller_says(mesh):
    edge = (await mesh(max_timeout=timedelta(seconds=1))).edge
    await routed(edge.http)
    async with rpc.Channel(edge.address) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        slow = echo_pb2.SayRequest(text="a")
        slow.delay.FromSeconds(15)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await stub.Say(slow, timeout=20)  # longer than any caller may ask
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_calls_are_logged_without_their_queries(mesh):
    edge = (await mesh()).edge
    await routed(edge.http, "/v1/echo/a?delay=0.001s")

    def lines() -> list[dict[str, object]]:
        return [json.loads(line) for line in edge.log.read_text().splitlines() if line[:1] == "{"]

    await wait_until(lambda: any(each["status"] == 200 for each in lines()), PATIENCE)
    assert {each["path"] for each in lines()} == {"/v1/echo/a"}
