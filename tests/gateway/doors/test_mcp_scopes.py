"""Which tools, prompts and resources of the mesh a caller of the MCP door sees."""

from __future__ import annotations

import httpx
from tests.conformance.mcp.fleet import fleet
from tests.gateway.doors.mcp_client import ask, call, refused

from weft.gateway.guards.key_store import KeyStore
from weft.postgres import Database


async def test_callers_see_what_their_scopes_allow(fresh_xds: None, database_url: str) -> None:
    async with (
        fleet(database_url, auth="keys") as (gateway, agent),
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as client,
        await Database.connect(database_url, schema="gateway") as stored,
    ):
        stored.load("weft.gateway.sql")
        keys = KeyStore(stored)
        few = (await keys.create("few")).text
        all_of_them = (await keys.create("all", scopes=["conformance.guarded", "x"])).text

        async def seen(key: str) -> tuple[bool, ...]:
            client.headers["x-api-key"] = key
            tools = await ask(client, "tools/list")
            assert tools["cacheScope"] == "private"
            prompts = await ask(client, "prompts/list")
            resources = await ask(client, "resources/list")
            card = await ask(client, "resources/read", {"uri": "weft://agents/conformance"})
            return (
                "guarded" in {each["name"] for each in tools["tools"]},
                "guarded" in {each["name"] for each in prompts["prompts"]},
                "test://guarded" in {each["uri"] for each in resources["resources"]},
                "guarded" in card["contents"][0]["text"],
            )

        assert await seen(all_of_them) == (True,) * 4
        assert "isError" not in await call(client, "guarded")
        assert agent.guarded == 1
        assert await seen(few) == (False,) * 4
        for method, params in (
            ("tools/call", {"name": "guarded"}),
            ("prompts/get", {"name": "guarded"}),
            ("resources/read", {"uri": "test://guarded"}),
        ):
            error = await refused(client, method, params)
            assert error["code"] == -32602
        assert agent.guarded == 1
