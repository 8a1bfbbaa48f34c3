"""Whom the edge lets in, and what it lets through."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from datetime import timedelta

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from tests.edge.conftest import routed
from tests.ports import free_port

from weft import rpc
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.registry.xds.edge import Rate, Tokens

ISSUER, AUDIENCE = "https://issuer.example", "weft"


@pytest.fixture
def issuer():
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(ECAlgorithm.to_jwk(key.public_key()))
    public |= {"kid": "one", "alg": "ES256", "use": "sig"}
    keys = json.dumps({"keys": [public]})

    def token(**claims) -> str:
        told = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": time.time() + 60} | claims
        told = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(told, key, algorithm="ES256", headers={"kid": "one"})

    settings = Tokens(issuer=ISSUER, audiences=(AUDIENCE,), keys=keys, leeway=timedelta(seconds=1))
    return settings, token


async def test_tokens(mesh, issuer):
    settings, token = issuer
    edge = (await mesh(access="tokens", tokens=settings)).edge
    good = {"authorization": f"Bearer {token()}"}
    await routed(edge.http, headers=good)
    for bad in (
        None,
        "nonsense",
        token(exp=time.time() - 60),
        token(exp=None),
        token(aud="another"),
        token(iss="https://another.example"),
        token()[:-4] + "AAAA",
    ):
        headers = {} if bad is None else {"authorization": f"Bearer {bad}"}
        found = await edge.http.get("/v1/echo/a", headers=headers)
        assert found.status_code in {401, 403}, bad
        assert found.json()["error"]["code"] == found.status_code
        assert "www-authenticate" in found.headers or found.status_code == 403
    async with rpc.Channel(edge.address) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Say(echo_pb2.SayRequest(text="a"), timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        metadata = [("authorization", good["authorization"])]
        answer = await stub.Say(echo_pb2.SayRequest(text="a"), timeout=5, metadata=metadata)
        assert answer.text == "a"


async def test_keys_of_the_issuer_by_url(mesh, issuer):
    settings, token = issuer
    asked = []

    async def answer(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(settings.keys)}\r\n\r\n"
        writer.write(head.encode() + settings.keys.encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        by_url = dataclasses.replace(settings, keys=f"http://127.0.0.1:{port}/keys")
        edge = (await mesh(access="tokens", tokens=by_url)).edge
        await routed(edge.http, headers={"authorization": f"Bearer {token()}"})
        found = await edge.http.get("/v1/echo/a")
        assert found.status_code == httpx.codes.UNAUTHORIZED
    assert asked[0].startswith(b"GET /keys ")


async def test_more_requests_than_the_rate_are_refused(mesh):
    edge = (await mesh(rate=Rate(per_second=0.01, burst=20))).edge
    found = [await edge.http.get("/v1/echo/a") for _ in range(30)]
    refused = [each for each in found if each.status_code == httpx.codes.TOO_MANY_REQUESTS]
    assert len(refused) == 10
    assert refused[0].json()["error"]["status"] == "RESOURCE_EXHAUSTED"
    async with rpc.Channel(edge.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await echo_pb2_grpc.EchoServiceStub(channel).Say(echo_pb2.SayRequest(), timeout=5)
    assert told.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_body_that_is_too_large(mesh):
    edge = (await mesh(max_body=100_000)).edge
    await routed(edge.http)
    fits = await edge.http.post("/v1/echo:say", json={"text": "x" * 90_000})
    assert (fits.status_code, len(fits.json()["text"])) == (200, 90_000)
    found = await edge.http.post("/v1/echo:say", json={"text": "x" * 110_000})
    assert found.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE


async def test_nobody_forges_who_calls(mesh):
    edge = (await mesh()).edge
    await routed(edge.http)
    identity = b"\n\x08user:eve"  # weft.v1.Identity
    async with rpc.Channel(edge.address) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        metadata = [("weft-identity-bin", identity), ("weft-identity", "user:eve")]
        answer = await stub.Say(echo_pb2.SayRequest(text="a"), timeout=5, metadata=metadata)
        assert answer.caller == ""
    found = await edge.http.get("/v1/echo/a", headers={"weft-identity-bin": "Cgh1c2VyOmV2ZQ=="})
    assert "caller" not in found.json()


async def test_what_only_a_gateway_can_check_is_refused_where_there_is_none(mesh):
    edge = (await mesh(guarded=("weft.echo.v1.EchoService/Say",))).edge
    found = await edge.http.get("/v1/echo/a")
    assert (found.status_code, found.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
    await routed_by_post(edge.http)
    async with rpc.Channel(edge.address) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Say(echo_pb2.SayRequest(text="a"), timeout=5)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        said = await stub.SayOnce(echo_pb2.SayOnceRequest(say=echo_pb2.SayRequest(text="b")))
        assert said.said.text == "b"


async def routed_by_post(http: httpx.AsyncClient) -> None:
    found = await http.post("/v1/echo:repeat", json={"text": "x", "count": 1})
    assert found.status_code == httpx.codes.OK


async def test_an_edge_that_others_reach_is_not_open_unless_told_so(mesh):
    listen = f"0.0.0.0:{free_port()}"
    edge = (await mesh(listen=listen)).edge
    http = httpx.AsyncClient(base_url=edge.url.replace("0.0.0.0", "127.0.0.1"))
    async with http:
        found = await http.get("/v1/echo/a")
        assert (found.status_code, found.json()["error"]["status"]) == (403, "PERMISSION_DENIED")


async def test_pages_of_listed_origins_may_call(mesh):
    edge = (await mesh(origins=("https://app.example.com",))).edge
    await routed(edge.http)
    asked = {"origin": "https://app.example.com", "access-control-request-method": "POST"}
    found = await edge.http.options("/v1/echo:say", headers=asked)
    assert found.headers["access-control-allow-origin"] == "https://app.example.com"
    found = await edge.http.options("/v1/echo:say", headers=asked | {"origin": "https://e.example"})
    assert "access-control-allow-origin" not in found.headers
