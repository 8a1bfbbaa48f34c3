"""The gateway makes REST and Connect routes from the contract; the agent's author writes nothing for them."""

from __future__ import annotations

import httpx

from weft.agents import Host
from weft.agents.echo import Echo
from weft.gateway import Gateway
from weft.rpc.testing import wait_until


async def test_one_method_at_several_doors(registry, mesh_database):
    gateway = Gateway(
        registry=registry,
        database_url=mesh_database,
        listen="127.0.0.1:0",
        grpc_listen="127.0.0.1:0",
    )
    async with gateway, Host(registry=registry) as host:
        host.add(Echo("one"))
        await host.start()
        async with httpx.AsyncClient(base_url=gateway.url) as client:

            async def served():
                return (await client.get("/v1/echo/hi")).status_code == 200

            await wait_until(served)
            body = {"text": "hello"}
            rest = await client.post("/v1/echo:say", json=body)
            connect = await client.post("/weft.echo.v1.EchoService/Say", json=body)
            short = await client.get("/v1/echo/hello")
            document = (await client.get("/openapi.json")).json()
    assert rest.json()["text"] == connect.json()["text"] == short.json()["text"] == "hello"
    assert "/v1/echo:say" in document["paths"]
    assert "traceparent" in rest.headers
