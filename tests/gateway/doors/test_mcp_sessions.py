"""MCP in the revisions that begin with `initialize`, by raw HTTP, in front of a real agent."""

from __future__ import annotations

import orjson
import pytest
from httpx import AsyncClient
from tests.gateway.doors.mcp_client import LEGACY, Session, messages

from weft.gateway.doors.mcp.sessions import Sessions

SAY = "echo_say"


@pytest.fixture
async def session(http: AsyncClient) -> Session:
    begun = Session(http)
    await begun.begin()
    return begun


@pytest.mark.parametrize(
    ("asked", "agreed"),
    [
        (LEGACY, LEGACY),
        ("2025-06-18", "2025-06-18"),
        ("2024-11-05", LEGACY),
        ("2099-01-01", LEGACY),
    ],
)
async def test_a_version_is_agreed_on(http: AsyncClient, asked: str, agreed: str) -> None:
    result = await Session(http).begin(asked)
    assert result["protocolVersion"] == agreed
    assert result["serverInfo"]["name"] == "weft"
    assert result["capabilities"]["tools"] == {"listChanged": True}
    assert "resultType" not in result


async def test_a_session_serves(session: Session) -> None:
    assert await session.ask("ping") == {}
    tools = (await session.ask("tools/list"))["tools"]
    assert [tool["name"] for tool in tools] == ["echo_repeat", SAY, "echo_say_once"]
    result = await session.ask("tools/call", {"name": SAY, "arguments": {"text": "hi"}})
    assert result["structuredContent"]["text"] == "hi"
    assert "_meta" not in result
    failed = await session.ask("tools/call", {"name": SAY, "arguments": {"failWith": 5}})
    assert failed["_meta"]["dev.weft/error"]["status"] == "NOT_FOUND"
    read = await session.ask("resources/read", {"uri": "weft://agents/echo"})
    assert "ttlMs" not in read


async def test_errors_of_a_session_come_with_200(session: Session) -> None:
    for method, params, code in (
        ("no/such", {}, -32601),
        ("server/discover", {}, -32601),
        ("tools/call", {"name": "no_such"}, -32602),
        ("resources/read", {"uri": "weft://agents/no"}, -32002),
        ("logging/setLevel", {"level": "loud"}, -32602),
        ("resources/subscribe", {"uri": "weft://agents/no"}, -32002),
    ):
        answer = await session.send(method, params)
        assert (answer.status_code, answer.json()["error"]["code"]) == (200, code)


async def test_a_session_ends(session: Session) -> None:
    answer = await session.http.delete("/mcp", headers=session.headers)
    assert answer.status_code == 204
    assert (await session.send("ping")).status_code == 404
    assert (await session.http.delete("/mcp", headers=session.headers)).status_code == 404
    assert (await session.http.get("/mcp", headers=session.headers)).status_code == 404


async def test_what_belongs_to_no_session(http: AsyncClient, session: Session) -> None:
    assert (await Session(http).send("ping")).status_code == 400
    assert (await Session(http, {"mcp-session-id": "guessed"}).send("ping")).status_code == 404
    session.headers["mcp-protocol-version"] = "1999-01-01"
    answer = await session.send("ping")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == -32022
    del session.headers["mcp-protocol-version"]
    assert (await session.send("ping")).status_code == 200
    answered = {"jsonrpc": "2.0", "id": 1, "result": {}}
    answer = await http.post("/mcp", json=answered, headers=session.headers)
    assert answer.status_code == 202


async def test_progress_and_logs(session: Session) -> None:
    params = {
        "name": "echo_repeat",
        "arguments": {"count": 2},
        "_meta": {"progressToken": "p"},
    }
    *told, _ = messages(await session.send("tools/call", params))
    assert [each["method"] for each in told] == ["notifications/progress"] * 2
    assert await session.ask("logging/setLevel", {"level": "debug"}) == {}
    del params["_meta"]
    *told, last = messages(await session.send("tools/call", params))
    assert [each["params"]["level"] for each in told] == ["info"] * 2
    assert len(last["result"]["structuredContent"]["messages"]) == 2


def test_sessions_are_bounded() -> None:
    sessions = Sessions(most=2)
    first, second = sessions.begin(LEGACY, "a"), sessions.begin(LEGACY, "a")
    assert sessions.find(first.id, "a") is first
    third = sessions.begin(LEGACY, "a")
    assert sessions.find(second.id, "a") is None
    assert sessions.find(first.id, "a") is first
    assert sessions.find(third.id, "a") is third
    assert sessions.find(third.id, "b") is None
    assert all(33 <= letter <= 126 for letter in orjson.dumps(third.id)[1:-1])
