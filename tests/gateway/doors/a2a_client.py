"""A2A by raw HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson

URI = "https://weft.dev/extensions/typed-skills/v1"
VERSION = {"A2A-Version": "1.0"}
ASK = "weft.scenarios.v1.ScenarioService/Ask"
COUNT = "weft.scenarios.v1.ScenarioService/Count"
FILE = "weft.scenarios.v1.ScenarioService/File"

_IDS = itertools.count(1)


def message(*parts: dict[str, Any], **further: Any) -> dict[str, Any]:
    """Params of SendMessage; `skill`, `answer` and `configuration` where they belong."""
    typed = {name: further.pop(name) for name in ("skill", "answer") if name in further}
    params: dict[str, Any] = {}
    if "configuration" in further:
        params["configuration"] = further.pop("configuration")
    made = {"messageId": f"m{next(_IDS)}", "role": "ROLE_USER", "parts": list(parts), **further}
    if typed:
        made["metadata"] = {URI: typed}
    return {**params, "message": made}


def text(said: str, **further: Any) -> dict[str, Any]:
    """A message with a text."""
    return message({"text": said}, **further)


async def call(
    http: httpx.AsyncClient, method: str, params: dict[str, Any] | None = None, **further: Any
) -> httpx.Response:
    """A JSON-RPC request."""
    agent = further.pop("agent", "scenarios")
    body = {"jsonrpc": "2.0", "id": next(_IDS), "method": method, "params": params or {}}
    headers = VERSION | further.pop("headers", {})
    return await http.post(f"/a2a/{agent}", json=body, headers=headers, **further)


async def result(http: httpx.AsyncClient, method: str, params: Any = None, **further: Any) -> Any:
    """Its result."""
    answer = await call(http, method, params, **further)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert "error" not in told, told
    return told["result"]


async def error(http: httpx.AsyncClient, method: str, params: Any = None, **further: Any) -> Any:
    """Its error."""
    answer = await call(http, method, params, **further)
    told = answer.json()
    assert "result" not in told, told
    return told["error"]


async def task(http: httpx.AsyncClient, params: dict[str, Any], **further: Any) -> Any:
    """The task that a message began."""
    return (await result(http, "SendMessage", params, **further))["task"]


async def events(response: httpx.Response) -> AsyncIterator[Any]:
    """The events of a stream."""
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield orjson.loads(line[6:])


@contextlib.asynccontextmanager
async def streaming(
    http: httpx.AsyncClient, method: str, params: dict[str, Any], agent: str = "scenarios"
) -> AsyncIterator[AsyncIterator[Any]]:
    """The results of a streaming JSON-RPC request."""
    body = {"jsonrpc": "2.0", "id": "s", "method": method, "params": params}
    async with http.stream("POST", f"/a2a/{agent}", json=body, headers=VERSION) as response:
        assert response.headers["content-type"] == "text/event-stream", await response.aread()

        async def results() -> AsyncIterator[Any]:
            async for each in events(response):
                assert (each["jsonrpc"], each["id"]) == ("2.0", "s")
                yield each["result"]

        yield results()


class Receiver:
    """Takes push notifications."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.seen: asyncio.Queue[tuple[dict[str, str], Any]] = asyncio.Queue()
        self.url = ""

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Receiver]:
        """Serves for the length of the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?x=1"
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        answer = f"HTTP/1.1 {self.status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        writer.write(answer.encode())
        await writer.drain()
        writer.close()
        await self.seen.put(({"": head[0]} | headers, orjson.loads(body)))
