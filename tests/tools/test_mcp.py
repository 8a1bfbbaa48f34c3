"""Tools of an MCP server as tools, against the SDK's own server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.tools.callers import serving, signed

from weft import config, rpc
from weft.agents.tools import MemoryAudit, Toolbox

pytest.importorskip("mcp", reason="needs the extra weft[remote]")

from tests.agents.remote.conftest import http_server
from tests.agents.remote.peers import Told, weather
from tests.ports import free_port

from weft.agents.tools.mcp import McpTools
from weft.rpc.testing import wait_until

ANN = signed("user:ann", "tools.weather")


@pytest.fixture
async def connected() -> AsyncIterator[tuple[McpTools, Any, Told]]:
    told = Told()
    server = weather(told)
    async with http_server(server.streamable_http_app()) as url:
        remote = config.Remote(name="weather", protocol="mcp", url=f"{url}/mcp", timeout=5)
        async with McpTools.connected(remote) as made:
            yield made, server, told


async def test_a_servers_tools_are_tools(connected) -> None:
    made, _, _ = connected
    tools = {each.name: each for each in await made.tools()}
    forecast = tools["weather_get_forecast"]
    assert (forecast.description, forecast.effects) == ("Forecast for a city.", False)
    assert tools["weather_fail"].effects
    assert forecast.required == ("tools.weather",)
    schema: Any = forecast.input_schema
    assert schema["required"] == ["city"]
    assert schema["properties"]["days"]["type"] == "integer"
    audit = MemoryAudit()
    async with Toolbox(tools.values(), audit=audit) as toolbox:

        async def model() -> Any:
            offers = {each.name: each for each in toolbox}
            asked = {"city": "Ulm", "days": 2, "place": {"lat": 48.4, "lon": 10}}
            return [
                await offers["weather_get_forecast"](asked),
                await offers["weather_describe"]({"city": "Ulm"}),
                await offers["weather_fail"]({"why": "no sun"}),
                await offers["weather_get_forecast"]({"city": 7}),
            ]

        forecast_told, described, failed, wrong = await serving(ANN, model)
        assert await serving(signed("user:eve"), _names(toolbox)) == []
    assert forecast_told.json["city"] == "Ulm"
    assert forecast_told.json["place"] == {"lat": 48.4, "lon": 10.0}
    assert described.json["text"] == "Ulm is a city."
    assert failed.is_error
    assert failed.text.startswith("FAILED_PRECONDITION: ")
    assert "no sun" in failed.text
    assert wrong.text.startswith("INVALID_ARGUMENT: ")
    assert [outcome.code for _, outcome in audit.uses] == [
        *("OK", "OK", "FAILED_PRECONDITION", "INVALID_ARGUMENT"),
    ]


def _names(toolbox: Toolbox) -> Any:
    async def names() -> list[str]:
        return [each.name for each in toolbox]

    return names


async def test_tools_that_change_are_replaced(connected) -> None:
    made, server, _ = connected
    before = await made.tools()

    @server.tool(structured_output=False)
    def added(city: str) -> str:
        """Added later."""
        return city

    async with Toolbox(before, audit=MemoryAudit()) as toolbox:
        toolbox.replace([each.name for each in before], await made.tools())
        assert toolbox["weather_added"].description == "Added later."
        with pytest.raises(ValueError, match="already"):
            toolbox.replace([], before)
        assert toolbox["weather_added"]


async def test_a_deadline_ends_the_work_there(connected) -> None:
    made, _, told = connected
    tools = {each.name: each for each in await made.tools()}
    slow = "weather_wait"
    async with Toolbox(tools.values(), audit=MemoryAudit()) as toolbox:
        request = tools[slow].request(seconds=60)
        with pytest.raises(rpc.DeadlineExceeded):
            await serving(
                ANN, lambda: toolbox.use(slow, request, tools[slow].response), seconds=0.3
            )
        await wait_until(lambda: told.cancelled == 1, timedelta(seconds=10))


async def test_a_server_that_is_not_there_is_told() -> None:
    remote = config.Remote(name="weather", protocol="mcp", url="http://127.0.0.1:1/mcp")
    with pytest.raises(rpc.Unavailable):
        async with McpTools.connected(remote):
            pass


async def test_a_server_that_comes_back_is_used_again() -> None:
    port = free_port()
    remote = config.Remote(name="weather", protocol="mcp", url=f"http://127.0.0.1:{port}/mcp")

    async def describe() -> Any:
        offers = {each.name: each for each in toolbox}
        return await offers["weather_describe"]({"city": "Ulm"})

    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(contextlib.AsyncExitStack())
        app = weather(Told()).streamable_http_app()
        await first.enter_async_context(http_server(app, port))
        made = await stack.enter_async_context(McpTools.connected(remote))
        toolbox = await stack.enter_async_context(Toolbox(await made.tools(), audit=MemoryAudit()))
        assert not (await serving(ANN, describe)).is_error
        await first.aclose()
        away = await serving(ANN, describe)
        assert away.text.startswith("UNAVAILABLE: It cannot be reached now.")
        app = weather(Told()).streamable_http_app()
        await stack.enter_async_context(http_server(app, port))

        async def answers() -> bool:
            return not (await serving(ANN, describe)).is_error

        await wait_until(answers, timedelta(seconds=30))
