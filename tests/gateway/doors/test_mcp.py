"""MCP in the revision without sessions, by raw HTTP, in front of a real agent."""

from __future__ import annotations

import base64
import re
from typing import Any

import orjson
import pytest
from httpx import AsyncClient
from tests.gateway.doors.mcp_client import (
    ACCEPT,
    META,
    MODERN,
    ask,
    call,
    messages,
    meta,
    modern,
    refused,
)

from weft.gateway.doors import heartbeat

SAY = "echo_say"


async def test_discovery(http: AsyncClient) -> None:
    found = await ask(http, "server/discover")
    assert found["supportedVersions"] == [MODERN, "2025-11-25", "2025-06-18"]
    assert {"tools", "resources", "prompts", "completions"} <= found["capabilities"].keys()
    assert found["ttlMs"] >= 0
    assert found["cacheScope"] == "public"


async def test_skills_are_tools(http: AsyncClient) -> None:
    listed = await ask(http, "tools/list")
    tools = {tool["name"]: tool for tool in listed["tools"]}
    # Gather and Talk take a stream, which a tool cannot.
    assert list(tools) == ["echo_repeat", "echo_say", "echo_say_once"]
    say = tools[SAY]
    assert say["title"] == "Say"
    assert say["description"] == "Says a message back, after a delay or with an error when asked."
    assert say["inputSchema"]["properties"]["failWith"] == {"type": "integer", "format": "int32"}
    assert say["inputSchema"]["additionalProperties"] is False
    assert say["outputSchema"]["properties"]["text"] == {"type": "string"}
    assert say["annotations"] == {
        "readOnlyHint": True,
        "destructiveHint": False,
        "idempotentHint": True,
    }
    assert tools["echo_say_once"]["annotations"] == {
        "readOnlyHint": False,
        "destructiveHint": True,
        "idempotentHint": False,
    }
    assert say["_meta"]["dev.weft/skill"] == "weft.echo.v1.EchoService/Say"
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in tools)


async def test_a_tool_is_called(http: AsyncClient) -> None:
    result = await call(http, SAY, text="hé “quoted”")
    assert result["structuredContent"]["text"] == "hé “quoted”"
    assert orjson.loads(result["content"][0]["text"]) == result["structuredContent"]
    assert "isError" not in result
    without = await ask(http, "tools/call", {"name": SAY})
    assert without["structuredContent"]["instance"] == "one"


async def test_what_an_agent_refuses_is_a_result(http: AsyncClient) -> None:
    result = await call(http, SAY, failWith=5)
    assert result["isError"] is True
    assert result["content"][0]["text"].startswith("NOT_FOUND: ")
    assert "structuredContent" not in result
    error = result["_meta"]["dev.weft/error"]
    assert (error["code"], error["status"]) == (404, "NOT_FOUND")
    assert error["details"][0]["domain"] == "weft.dev"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"failWith": "x"}, "failWith"),
        ({"nothing": 1}, "nothing"),
        ({"delay": "99s"}, "delay"),
        ({"text": {"a": "b"}}, "text"),
    ],
)
async def test_wrong_arguments_are_named_in_a_result(
    http: AsyncClient, arguments: dict[str, Any], named: str
) -> None:
    result = await call(http, SAY, **arguments)
    assert result["isError"] is True
    assert result["content"][0]["text"].startswith("INVALID_ARGUMENT")
    assert f"- {named}" in result["content"][0]["text"]


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("tools/call", {"name": "no_such_tool"}, -32602),
        ("tools/call", {"name": SAY, "arguments": [1]}, -32602),
        ("tools/call", {}, -32602),
        ("tools/call", {"name": SAY, "_meta": {"progressToken": 1.5}}, -32602),
        ("tools/list", {"cursor": "bad"}, -32602),
        ("tools/list", {"cursor": 1}, -32602),
        ("prompts/get", {"name": "no_such_prompt"}, -32602),
        ("prompts/get", {"name": SAY, "arguments": {"unknown": "x"}}, -32602),
        ("prompts/get", {"name": SAY, "arguments": {"text": 1}}, -32602),
        ("resources/read", {"uri": "weft://agents/nobody"}, -32602),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": SAY}}, -32602),
        ("subscriptions/listen", {}, -32602),
        ("tools/list", {"_meta": {META + "logLevel": "loud"}}, -32602),
        ("no/such/method", {}, -32601),
        ("initialize", {}, -32601),
        ("ping", {}, -32601),
    ],
)
async def test_protocol_errors(
    http: AsyncClient, method: str, params: dict[str, Any], code: int
) -> None:
    error = await refused(http, method, params)
    assert error["code"] == code
    assert error["status"] == (404 if code == -32601 else 400)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"[]", -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":1}}', -32600),
        (b"", -32700),
    ],
)
async def test_what_is_no_message(http: AsyncClient, body: bytes, code: int) -> None:
    headers = {**ACCEPT, "content-type": "application/json"}
    answer = await http.post("/mcp", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    readable = body.startswith(b'{"jsonrpc":"2.0","id":1') and b"1.5" not in body
    assert answer.json().get("id") == (1 if readable else None)


async def test_what_every_request_must_say(http: AsyncClient) -> None:
    for missing in (META + "protocolVersion", META + "clientCapabilities"):
        body, headers = modern("tools/list")
        del body["params"]["_meta"][missing]
        answer = await http.post("/mcp", json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32602)
        assert answer.json()["id"] == body["id"]
    body, headers = modern("tools/list")
    body["params"]["_meta"][META + "protocolVersion"] = "1999-01-01"
    answer = await http.post("/mcp", json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
    headers["mcp-protocol-version"] = "1999-01-01"
    answer = await http.post("/mcp", json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32022)
    assert answer.json()["error"]["data"] == {
        "supported": [MODERN, "2025-11-25", "2025-06-18"],
        "requested": "1999-01-01",
    }


@pytest.mark.parametrize(
    ("header", "value", "accepted"),
    [
        ("mcp-method", "tools/list", False),
        ("mcp-method", "TOOLS/CALL", False),
        ("mcp-method", "", False),
        ("mcp-name", "echo_repeat", False),
        ("mcp-name", "", False),
        ("mcp-name", f"=?base64?{base64.b64encode(SAY.encode()).decode()}?=", True),
        ("mcp-name", "=?base64?ZWNo?=", False),
        ("mcp-name", "=?base64?!!?=", False),
        ("mcp-protocol-version", "", False),
    ],
)
async def test_headers_repeat_the_body(
    http: AsyncClient, header: str, value: str, *, accepted: bool
) -> None:
    body, headers = modern("tools/call", {"name": SAY})
    headers[header] = value
    if not value:
        del headers[header]
    answer = await http.post("/mcp", json=body, headers=headers)
    if accepted:
        assert "result" in answer.json()
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example.com", "origin": "http://evil.example.com"}, 403),
        ({"host": "evil.example.com"}, 403),
        ({"origin": "http://evil.example.com"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1.evil.example.com"}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"origin": "http://localhost:6274"}, 200),
        ({"host": "localhost:7080", "origin": "http://127.0.0.1:7080"}, 200),
        ({"host": "[::1]:7080"}, 200),
    ],
)
async def test_pages_that_rebind_their_name_are_refused(
    http: AsyncClient, headers: dict[str, str], status: int
) -> None:
    body, usual = modern("tools/list")
    answer = await http.post("/mcp", json=body, headers=usual | headers)
    assert answer.status_code == status


async def test_http_itself(http: AsyncClient) -> None:
    for method in ("GET", "DELETE", "PUT", "PATCH"):
        answer = await http.request(method, "/mcp", headers=ACCEPT)
        assert answer.status_code == 405
        assert "POST" in answer.headers["allow"]
    body, headers = modern("tools/list")
    answer = await http.post("/mcp", json=body, headers=headers | {"accept": "text/html"})
    assert answer.status_code == 406
    text = headers | {"content-type": "text/plain"}
    answer = await http.post("/mcp", content=orjson.dumps(body), headers=text)
    assert answer.status_code == 415
    told = {"jsonrpc": "2.0", "method": "notifications/x", "params": {"_meta": meta()}}
    answer = await http.post("/mcp", json=told, headers=headers | {"mcp-method": "notifications/x"})
    assert (answer.status_code, answer.content) == (202, b"")


async def test_a_stream_is_told_as_progress(http: AsyncClient) -> None:
    params = {
        "name": "echo_repeat",
        "arguments": {"text": "x", "count": 3},
        "_meta": {"progressToken": "t"},
    }
    body, headers = modern("tools/call", params)
    answer = await http.post("/mcp", json=body, headers=headers)
    assert answer.headers["content-type"] == "text/event-stream"
    *told, last = messages(answer)
    assert [note["params"]["progress"] for note in told] == [1, 2, 3]
    assert {note["params"]["progressToken"] for note in told} == {"t"}
    assert {note["method"] for note in told} == {"notifications/progress"}
    assert told[1]["params"]["message"] == '{"text":"x","number":1}'
    assert last["result"]["structuredContent"] == {
        "messages": [{"text": "x"}, {"text": "x", "number": 1}, {"text": "x", "number": 2}]
    }


async def test_a_stream_is_collected_for_who_asks_for_no_progress(http: AsyncClient) -> None:
    body, headers = modern("tools/call", {"name": "echo_repeat", "arguments": {"count": 2}})
    answer = await http.post("/mcp", json=body, headers=headers)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["result"]["structuredContent"] == {"messages": [{}, {"number": 1}]}
    body["params"]["_meta"]["progressToken"] = 7
    answer = await http.post("/mcp", json=body, headers=headers | {"accept": "application/json"})
    assert answer.headers["content-type"] == "application/json"


async def test_a_stream_that_fails_is_a_failed_result(http: AsyncClient) -> None:
    params = {
        "name": "echo_repeat",
        "arguments": {"count": 1, "failWith": 8},
        "_meta": {"progressToken": 1},
    }
    body, headers = modern("tools/call", params)
    first, last = messages(await http.post("/mcp", json=body, headers=headers))
    assert first["method"] == "notifications/progress"
    assert last["result"]["isError"] is True
    assert last["result"]["_meta"]["dev.weft/error"]["status"] == "RESOURCE_EXHAUSTED"


async def test_a_stream_without_end_is_cut(http: AsyncClient) -> None:
    result = await call(http, "echo_repeat", text="x" * 100_000, count=100)
    assert result["_meta"]["dev.weft/error"]["details"][0]["reason"] == "RESULT_TOO_LARGE"


async def test_log_messages_are_sent_to_who_asks_for_them(http: AsyncClient) -> None:
    asked = {META + "logLevel": "info"}
    params = {"name": "echo_repeat", "arguments": {"count": 2}, "_meta": asked}
    body, headers = modern("tools/call", params)
    *told, _ = messages(await http.post("/mcp", json=body, headers=headers))
    assert [note["params"]["logger"] for note in told] == ["echo_repeat"] * 2
    asked[META + "logLevel"] = "error"
    body, headers = modern("tools/call", params)
    assert len(messages(await http.post("/mcp", json=body, headers=headers))) == 1


async def test_a_call_that_takes_long_shows_signs_of_life(
    http: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_QUIET", 0.05)
    for arguments in ({"text": "late", "delay": "0.2s"}, {"delay": "0.2s", "failWith": 5}):
        body, headers = modern("tools/call", {"name": SAY, "arguments": arguments})
        answer = await http.post("/mcp", json=body, headers=headers)
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.text.startswith(": keep-alive\n\n")
        (message,) = messages(answer)
        assert message["result"].get("isError", False) is ("failWith" in arguments)


async def test_a_deadline_holds(http: AsyncClient) -> None:
    body, headers = modern("tools/call", {"name": SAY, "arguments": {"delay": "20s"}})
    headers["x-request-timeout"] = "0.1"
    answer = await http.post("/mcp", json=body, headers=headers)
    error = answer.json()["result"]["_meta"]["dev.weft/error"]
    assert error["status"] == "DEADLINE_EXCEEDED"


async def test_the_trace_of_a_request_goes_on(http: AsyncClient) -> None:
    trace_id = f"{7:032x}"
    traced = {"traceparent": f"00-{trace_id}-{1:016x}-00"}
    body, headers = modern("tools/call", {"name": SAY, "_meta": traced})
    answer = await http.post("/mcp", json=body, headers=headers)
    assert answer.headers["traceparent"].split("-")[1] == trace_id


async def test_a_call_with_an_idempotency_key_is_made_once(http: AsyncClient) -> None:
    arguments = {"say": {"text": "once"}}
    key = {"idempotency-key": f"11f7a1de-79c4-4c1f-a2f0-{http.base_url.port}"}
    answers = []
    for _ in range(2):
        body, headers = modern("tools/call", {"name": "echo_say_once", "arguments": arguments})
        answers.append(await http.post("/mcp", json=body, headers=headers | key))
    assert "idempotency-replayed" not in answers[0].headers
    assert answers[1].headers["idempotency-replayed"] == "true"
    first, second = (answer.json()["result"]["structuredContent"] for answer in answers)
    assert first == second
    body, headers = modern("tools/call", {"name": "echo_say_once", "arguments": {}})
    other = await http.post("/mcp", json=body, headers=headers | key)
    assert other.json()["result"]["isError"] is True


async def test_agents_are_resources(http: AsyncClient) -> None:
    listed = await ask(http, "resources/list")
    assert [each["uri"] for each in listed["resources"]] == ["weft://agents/echo"]
    read = await ask(http, "resources/read", {"uri": "weft://agents/echo"})
    card = orjson.loads(read["contents"][0]["text"])
    assert card["tags"] == ["diagnostics"]
    assert [skill["tool"] for skill in card["skills"]] == ["echo_repeat", SAY, "echo_say_once"]
    assert card["skills"][1]["examples"] == [{"text": "hello"}]
    templates = await ask(http, "resources/templates/list")
    assert [each["uriTemplate"] for each in templates["resourceTemplates"]] == [
        "weft://agents/{name}"
    ]
    error = await refused(http, "resources/read", {"uri": "weft://agents/no"})
    assert error["data"] == {"uri": "weft://agents/no"}


async def test_examples_are_prompts(http: AsyncClient) -> None:
    listed = await ask(http, "prompts/list")
    assert [each["name"] for each in listed["prompts"]] == [SAY]
    assert [each["name"] for each in listed["prompts"][0]["arguments"]] == ["text", "failWith"]
    got = await ask(http, "prompts/get", {"name": SAY, "arguments": {"failWith": "3"}})
    text = got["messages"][0]["content"]["text"]
    assert SAY in text
    assert '"text": "hello"' in text
    assert '"failWith": "3"' in text


@pytest.mark.parametrize(
    ("ref", "name", "begun", "values"),
    [
        ({"type": "ref/prompt", "name": SAY}, "text", "HE", ["hello"]),
        ({"type": "ref/prompt", "name": SAY}, "text", "x", []),
        ({"type": "ref/resource", "uri": "weft://agents/{name}"}, "name", "e", ["echo"]),
    ],
)
async def test_completion(
    http: AsyncClient, ref: dict[str, str], name: str, begun: str, values: list[str]
) -> None:
    params = {"ref": ref, "argument": {"name": name, "value": begun}}
    found = (await ask(http, "completion/complete", params))["completion"]
    assert found == {"values": values, "total": len(values), "hasMore": False}
