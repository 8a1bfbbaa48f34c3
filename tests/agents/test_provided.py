"""What a process has for its agents."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from weft import config, rpc, telemetry
from weft.agents import Mesh, serving
from weft.agents.toolboxes import Toolboxes
from weft.agents.tools import MemoryShelf, RedisShelf, tool
from weft.agents.tools.tool import Keeping, Rate
from weft.config import ModelChoice, ModelEndpoint
from weft.rpc.testing import wait_until
from weft.telemetry.instruments import Instruments
from weft.testing.messages_server import MessagesServer
from weft.tools.v1.search_pb2 import WebHit, WebSearchRequest, WebSearchResponse

NOTHING = telemetry.Telemetry(metrics=Instruments("test"), tracer=None, sample_ratio=0.0)


@tool(
    scopes=(),
    effects=False,
    rate=Rate(per_second=0.001, burst=2),
    keeping=Keeping(ttl=timedelta(minutes=1)),
)
async def phonebook(request: WebSearchRequest) -> WebSearchResponse:
    """Finds phone numbers."""
    return WebSearchResponse(hits=[WebHit(title=request.query)])


def mesh_of(given: serving.Provided) -> Mesh:
    return Mesh("127.0.0.1:1", models=given.models, toolboxes=given.toolboxes)


async def test_a_mesh_has_the_models_of_the_settings(tmp_path: Path, database_url: str) -> None:
    async with MessagesServer() as server:
        settings = config.Settings(
            data=tmp_path,
            database_url=database_url,
            models={"greeter": ModelChoice(name="greeter", model="any", endpoint="here")},
            endpoints={"here": ModelEndpoint(name="here", url=server.url)},
        )
        async with serving.provided(settings, NOTHING) as given:
            mesh = mesh_of(given)
            assert (await mesh.models["greeter"].generate("hello")).text
            assert mesh.models.get("another") is None
            model = mesh.models["greeter"]
        # Closed with the process: nothing is open to the endpoint any more.
        assert model is not mesh.models["greeter"]
    assert len(server.requests) == 1


def test_where_no_model_is_set_up_there_is_none_and_no_sdk(tmp_path: Path) -> None:
    script = f"""
import asyncio, pathlib, sys
from weft import config, telemetry
from weft.agents import Mesh, serving
from weft.telemetry.instruments import Instruments

async def main():
    settings = config.Settings(data=pathlib.Path({str(tmp_path)!r}))
    watched = telemetry.Telemetry(metrics=Instruments("test"), tracer=None, sample_ratio=0.0)
    async with serving.provided(settings, watched) as given:
        mesh = Mesh("127.0.0.1:1", models=given.models, toolboxes=given.toolboxes)
        assert not {{"weft.agents.llm", "weft.agents.tools"}} & sys.modules.keys()
        assert mesh.models.get("greeter") is None
        assert "greeter" not in mesh.models
    assert "anthropic" not in sys.modules

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


async def test_a_toolbox_records_counts_and_keeps_where_the_settings_say(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    settings = config.Settings(data=tmp_path, database_url=database_url, redis_url=redis_url)
    async with (
        serving.provided(settings, NOTHING) as one,
        serving.provided(settings, NOTHING) as other,
    ):
        boxes = [mesh_of(each).toolbox([phonebook]) for each in (one, other)]
        assert all(isinstance(each._shelf, RedisShelf) for each in boxes)
        ask = WebSearchRequest(query="Bob")
        for box in boxes:
            await box.use("phonebook", ask, WebSearchResponse)
        with pytest.raises(rpc.ResourceExhausted):
            # The third of both processes together.
            await boxes[0].use("phonebook", ask, WebSearchResponse)
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT outcome, kept FROM tools.uses ORDER BY began")
    await connection.close()
    # What the first process found out the second one had in Redis.
    assert [tuple(row) for row in rows] == [
        ("OK", False),
        ("OK", True),
        ("RESOURCE_EXHAUSTED", False),
    ]


async def test_old_records_are_deleted(tmp_path: Path, database_url: str) -> None:
    settings = config.Settings(data=tmp_path, database_url=database_url)
    connection = await asyncpg.connect(database_url)
    async with Toolboxes(settings, every=timedelta(milliseconds=20)) as toolboxes:
        box = toolboxes.made([phonebook])
        assert isinstance(box._shelf, MemoryShelf)
        for name in ("old", "new"):
            await box.use("phonebook", WebSearchRequest(query=name), WebSearchResponse)
        await connection.execute(
            "UPDATE tools.uses SET began = now() - interval '91 days' WHERE arguments->>'query' = 'old'"
        )

        async def left() -> bool:
            rows = await connection.fetch("SELECT arguments->>'query' FROM tools.uses")
            return [row[0] for row in rows] == ["new"]

        await wait_until(left, timedelta(seconds=10))
    await connection.close()


async def test_what_cannot_be_recorded_is_not_offered(tmp_path: Path) -> None:
    async with serving.provided(config.Settings(data=tmp_path), NOTHING) as given:
        with pytest.raises(config.SettingError, match="database_url"):
            mesh_of(given).toolbox([phonebook])
    with pytest.raises(ValueError, match="makes no toolboxes"):
        Mesh("127.0.0.1:1").toolbox([])


async def test_tools_of_the_settings_are_had_by_name(tmp_path: Path, database_url: str) -> None:
    settings = config.Settings(
        data=tmp_path,
        database_url=database_url,
        tools={"sums": config.ToolSetting(name="sums", kind="calculator")},
    )
    async with serving.provided(settings, NOTHING) as given:
        mesh = mesh_of(given)
        box = mesh.toolbox(["sums", phonebook])
        assert (box["sums"].name, box["phonebook"].name) == ("sums", "phonebook")
        with pytest.raises(config.SettingError, match=r"there is no \[tools.sum\]"):
            mesh.toolbox(["sum"])
