from __future__ import annotations

from typing import Any

import pytest_asyncio
from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel
from tests.agents.remote.conftest import Mesh, http_server


class Place(BaseModel):
    lat: float
    lon: float


class Forecast(BaseModel):
    city: str
    days: list[int]
    place: Place | None = None


def weather() -> MCPServer:
    server = MCPServer("weather", instructions="Knows the weather.")

    @server.tool()
    def get_forecast(city: str, days: int = 3, place: Place | None = None) -> Forecast:
        """Forecast for a city."""
        return Forecast(city=city, days=list(range(days)), place=place)

    @server.tool()
    def fail(why: str) -> str:
        """Fails."""
        raise ValueError(why)

    return server


async def test_tools_are_skills(mesh: Mesh) -> None:
    async with (
        http_server(weather().streamable_http_app()) as url,
        mesh.keeping("weather", "mcp", f"{url}/mcp"),
    ):
        await mesh.served("weather", "GetForecast")
        answer = await mesh.call(
            "weather", "get_forecast", {"city": "Oslo", "place": {"lat": 1, "lon": 2.5}}
        )
        print(answer.text)
        assert answer.status_code == 200
        answer = await mesh.call("weather", "fail", {"why": "no"})
        print(answer.status_code, answer.text)
        answer = await mesh.call("weather", "get_forecast", {})
        print(answer.status_code, answer.text)
        print((await mesh.http.get("/agents/weather")).text)
        assert 0
