"""The MCP door as the official Python SDK's client meets it, in both kinds of revisions."""

from __future__ import annotations

import orjson
import pytest
from mcp import MCPError
from mcp.client import Client
from tests.gateway.entries import Entry

MODERN, LEGACY = "2026-07-28", "legacy"


@pytest.fixture(params=[MODERN, LEGACY])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_host_at_work(entry: Entry, mode: str) -> None:
    async with Client(f"{entry.url}/mcp", mode=mode) as client:
        assert client.server_info is None or client.server_info.name == "weft"
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["echo_repeat", "echo_say", "echo_say_once"]
        assert tools[1].annotations is not None
        assert tools[1].annotations.read_only_hint is True
        # The client checks structured content by the tool's output schema.
        result = await client.call_tool("echo_say", {"text": "hi", "delay": "0.01s"})
        assert result.structured_content is not None
        assert result.structured_content["text"] == "hi"
        told: list[float] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            told.append(progress)

        result = await client.call_tool("echo_repeat", {"count": 3}, progress_callback=hear)
        assert told == [1, 2, 3]
        assert result.structured_content == {"messages": [{}, {"number": 1}, {"number": 2}]}
        failed = await client.call_tool("echo_say", {"failWith": 7})
        assert failed.is_error
        with pytest.raises(MCPError):
            await client.call_tool("no_such_tool", {})


async def test_resources_and_prompts(entry: Entry, mode: str) -> None:
    async with Client(f"{entry.url}/mcp", mode=mode) as client:
        resources = (await client.list_resources()).resources
        assert [str(each.uri) for each in resources] == ["weft://agents/echo"]
        read = await client.read_resource("weft://agents/echo")
        assert orjson.loads(read.contents[0].text)["name"] == "echo"
        prompt = await client.get_prompt("echo_say", {"text": "hello you"})
        assert "hello you" in prompt.messages[0].content.text
        with pytest.raises(MCPError):
            await client.read_resource("weft://agents/nobody")


async def test_the_client_finds_the_revision_itself(entry: Entry) -> None:
    async with Client(f"{entry.url}/mcp") as client:
        assert client.protocol_version == MODERN
