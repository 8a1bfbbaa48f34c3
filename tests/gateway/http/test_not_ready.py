"""A gateway that has just started knows no agents yet: what it does not know may be there all the same."""

from __future__ import annotations

import httpx

from weft.gateway import Gateway


async def test_nobody_is_told_that_an_agent_is_not_there(fresh_xds, database_url: str) -> None:
    async with (
        Gateway(
            registry="127.0.0.1:1",  # nobody is there
            database_url=database_url,
            listen="127.0.0.1:0",
            grpc_listen="127.0.0.1:0",
        ) as gateway,
        httpx.AsyncClient(base_url=gateway.url) as http,
    ):
        for path in ("/v1/echo:say", "/weft.echo.v1.EchoService/Say"):
            answer = await http.post(path, json={})
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["details"][0]["reason"] == "GATEWAY_NOT_READY"
        # What it serves of its own is there.
        assert (await http.get("/v1/jobs")).status_code == 200
