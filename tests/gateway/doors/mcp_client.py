"""A client of the MCP door made of raw HTTP, so that a test can send what no client would."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
META = "io.modelcontextprotocol/"
ACCEPT = {"accept": "application/json, text/event-stream"}
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_NUMBERS = itertools.count(1)

Json = dict[str, Any]


def meta(**further: Any) -> Json:
    return {META + "protocolVersion": MODERN, META + "clientCapabilities": {}, **further}


def modern(method: str, params: Json | None = None, **further: Any) -> tuple[Json, dict[str, str]]:
    """Body and headers of a request in the revision without sessions."""
    given = dict(params or {})
    given["_meta"] = meta(**given.get("_meta", {}))
    body = {"jsonrpc": "2.0", "id": next(_NUMBERS), "method": method, "params": given} | further
    headers = {**ACCEPT, "mcp-protocol-version": MODERN, "mcp-method": method}
    if method in _NAMED and _NAMED[method] in given:
        headers["mcp-name"] = str(given[_NAMED[method]])
    return body, headers


def sse(text: str) -> list[Json]:
    """The messages of a stream."""
    return [
        orjson.loads(line.removeprefix("data: "))
        for line in text.splitlines()
        if line.startswith("data: ")
    ]


def messages(answer: httpx.Response) -> list[Json]:
    """The messages of an answer, whichever form it has."""
    if answer.headers["content-type"] == "text/event-stream":
        return sse(answer.text)
    return [answer.json()]


async def ask(http: httpx.AsyncClient, method: str, params: Json | None = None) -> Json:
    """The result of a request in the revision without sessions."""
    body, headers = modern(method, params)
    answer = await http.post("/mcp", json=body, headers=headers)
    message = messages(answer)[-1]
    assert message["id"] == body["id"]
    result = message["result"]
    assert result["resultType"] == "complete"
    assert result["_meta"][META + "serverInfo"]["name"] == "weft"
    return dict(result)


async def refused(http: httpx.AsyncClient, method: str, params: Json | None = None) -> Json:
    """The JSON-RPC error of a request in the revision without sessions."""
    body, headers = modern(method, params)
    answer = await http.post("/mcp", json=body, headers=headers)
    message = answer.json()
    assert message["id"] == body["id"]
    return {"status": answer.status_code, **message["error"]}


async def call(http: httpx.AsyncClient, tool: str, **arguments: Any) -> Json:
    """The result of a tool."""
    return await ask(http, "tools/call", {"name": tool, "arguments": arguments})


class Session:
    """A session of the revisions that have them."""

    def __init__(self, http: httpx.AsyncClient, headers: dict[str, str] | None = None) -> None:
        self.http = http
        self.headers = {**ACCEPT, **(headers or {})}

    async def begin(self, version: str = LEGACY) -> Json:
        params = {
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": {"name": "a test", "version": "1"},
        }
        answer = await self.send("initialize", params)
        self.headers["mcp-session-id"] = answer.headers["mcp-session-id"]
        result: Json = answer.json()["result"]
        self.headers["mcp-protocol-version"] = result["protocolVersion"]
        assert (await self.tell("notifications/initialized")).status_code == 202
        return result

    async def send(
        self, method: str, params: Json | None = None, number: int | str | None = None
    ) -> httpx.Response:
        body = {
            "jsonrpc": "2.0",
            "id": next(_NUMBERS) if number is None else number,
            "method": method,
            "params": params or {},
        }
        return await self.http.post("/mcp", json=body, headers=self.headers)

    async def tell(self, method: str, params: Json | None = None) -> httpx.Response:
        body = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        return await self.http.post("/mcp", json=body, headers=self.headers)

    async def ask(self, method: str, params: Json | None = None) -> Json:
        message = messages(await self.send(method, params))[-1]
        return dict(message["result"])


async def events(answer: httpx.Response) -> AsyncIterator[Json]:
    """Messages of an open stream as they come."""
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield orjson.loads(line.removeprefix("data: "))
