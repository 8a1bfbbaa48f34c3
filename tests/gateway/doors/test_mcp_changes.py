"""The MCP door while callers hang up and call back, and the mesh behind it changes."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from tests.gateway.conftest import Mesh, routed
from tests.gateway.doors.mcp_client import (
    LEGACY,
    META,
    Session,
    call,
    events,
    messages,
    modern,
)

from weft.agents import Host
from weft.gateway.guards.key_store import KeyStore
from weft.gateway.guards.keys import NewKey
from weft.postgres import Database
from weft.rpc.testing import wait_until
from weft.support.v1 import quality_pb2_grpc

SAY = "echo_say"


class Quality(quality_pb2_grpc.QualityServiceServicer):
    """Judges nothing."""


async def test_who_hangs_up_cancels_the_call(own: Mesh) -> None:
    body, headers = modern("tools/call", {"name": SAY, "arguments": {"delay": "30s"}})
    with pytest.raises(httpx.ReadTimeout):
        await own.http.post(
            "/mcp", json=body, headers=headers | {"x-request-timeout": "60"}, timeout=0.5
        )
    await wait_until(lambda: own.in_flight == 0)


async def test_changes_are_told(own: Mesh) -> None:
    wanted = {
        "toolsListChanged": True,
        "resourceSubscriptions": ["weft://agents/echo", "weft://agents/nobody"],
    }
    body, headers = modern("subscriptions/listen", {"notifications": wanted})
    async with own.http.stream("POST", "/mcp", json=body, headers=headers) as answer:
        told = events(answer)
        first = await anext(told)
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"]["notifications"] == {
            "toolsListChanged": True,
            "resourceSubscriptions": ["weft://agents/echo"],
        }
        async with Host(registry=own.registry) as other:
            other.add(Quality())
            await other.start()
            second = await anext(told)
            assert second["method"] == "notifications/tools/list_changed"
            assert second["params"]["_meta"] == {META + "subscriptionId": body["id"]}
        ending = asyncio.create_task(own.gateway.stop())
        *_, last = [message async for message in told]
        assert last["id"] == body["id"]
        assert last["result"]["_meta"][META + "subscriptionId"] == body["id"]
        await ending


async def test_a_tool_of_an_agent_that_left_is_told_so(own: Mesh) -> None:
    await own.echo.stop()

    async def gone() -> bool:
        return "isError" in await call(own.http, SAY)

    await wait_until(gone)
    error = (await call(own.http, SAY))["_meta"]["dev.weft/error"]
    assert error["status"] == "UNAVAILABLE"


async def test_a_call_is_called_back(own: Mesh) -> None:
    session = Session(own.http)
    await session.begin()
    params = {"name": SAY, "arguments": {"delay": "30s"}}
    running = asyncio.create_task(session.send("tools/call", params, number="slow"))
    await wait_until(lambda: own.in_flight == 1)
    assert (await session.send("ping", number="slow")).json()["error"]["code"] == -32600
    told = await session.tell("notifications/cancelled", {"requestId": "slow", "reason": "no need"})
    assert told.status_code == 202
    answer = await running
    assert messages(answer) == []
    await wait_until(lambda: own.in_flight == 0)
    assert (await session.tell("notifications/cancelled", {"requestId": 99})).status_code == 202
    assert await session.ask("ping") == {}


async def test_the_end_of_a_session_is_the_end_of_its_calls(own: Mesh) -> None:
    session = Session(own.http)
    await session.begin()
    params = {"name": SAY, "arguments": {"delay": "30s"}}
    running = asyncio.create_task(session.send("tools/call", params))
    await wait_until(lambda: own.in_flight == 1)
    await own.http.delete("/mcp", headers=session.headers)
    assert messages(await running) == []
    await wait_until(lambda: own.in_flight == 0)


async def test_changes_are_told_on_the_session_s_stream(own: Mesh) -> None:
    session = Session(own.http)
    await session.begin()
    assert await session.ask("resources/subscribe", {"uri": "weft://agents/echo"}) == {}
    json_only = session.headers | {"accept": "application/json"}
    assert (await own.http.get("/mcp", headers=json_only)).status_code == 406
    async with (
        own.http.stream("GET", "/mcp", headers=session.headers) as answer,
        Host(registry=own.registry) as other,
    ):
        assert answer.headers["content-type"] == "text/event-stream"
        told = events(answer)
        other.add(Quality())
        await other.start()
        assert await anext(told) == {
            "jsonrpc": "2.0",
            "method": "notifications/prompts/list_changed",
        }
        assert [(await anext(told))["method"].split("/")[1] for _ in range(2)] == [
            "resources",
            "tools",
        ]
        # A second stream takes the place of the first.
        async with own.http.stream("GET", "/mcp", headers=session.headers) as second:
            assert [each async for each in told] == []
            await session.ask("resources/unsubscribe", {"uri": "weft://agents/echo"})
            await own.http.delete("/mcp", headers=session.headers)
            assert [each async for each in events(second)] == []


async def test_a_session_belongs_to_who_began_it(
    own_with_keys: tuple[Mesh, NewKey, NewKey],
) -> None:
    mesh, good, bad = own_with_keys
    answer = await Session(mesh.http).send("initialize", {"protocolVersion": LEGACY})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["error"]["data"]["reason"] == "KEY_MISSING"
    revoked = await Session(mesh.http, {"x-api-key": bad.text}).send("ping")
    assert revoked.status_code == 401
    session = Session(mesh.http, {"x-api-key": good.text})
    await session.begin()
    result = await session.ask("tools/call", {"name": SAY})
    assert result["structuredContent"]["caller"] == f"key:{good.key.id}"
    async with await Database.connect(mesh.database_url, schema="gateway") as database:
        database.load("weft.gateway.sql")
        other = await KeyStore(database).create("other")
    await routed(mesh.http, {"x-api-key": other.text})
    stolen = Session(mesh.http, session.headers | {"x-api-key": other.text})
    assert (await stolen.send("ping")).status_code == 404
