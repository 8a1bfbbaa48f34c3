"""Replicas in three languages are one agent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.polyglot.conftest import PATIENCE, town
from tests.polyglot.doors import DOORS
from tests.polyglot.replica import NAME

from weft.agents import Mesh
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway import Gateway
from weft.rpc.testing import wait_until

pytestmark = [pytest.mark.failure, pytest.mark.timeout(600)]


async def test_replicas_in_three_languages_are_one_agent(
    fresh_xds: None,
    built: Callable[[str], None],
    database_url: str,
    redis_url: str,
    tmp_path: Path,
) -> None:
    built("go")
    built("typescript")
    async with town(tmp_path, database_url, redis_url) as made:
        await made.weft("agents", "serve", "tests.polyglot.replica:echo", **{NAME: "python-1"})
        await made.until(lambda found: len(found) == 1)
        await made.agent("go")
        await made.agent("typescript")
        met: set[str] = set()
        async with Mesh(made.registry) as mesh:
            echo = mesh.stub(echo_pb2_grpc.EchoServiceStub)

            async def all_met() -> bool:
                said = await echo.Say(echo_pb2.SayRequest())
                met.add(said.instance.split("-")[0])
                return len(met) == 3

            await wait_until(all_met, PATIENCE)
        assert met == {"python", "go", "typescript"}
        async with (
            Gateway(
                registry=made.registry,
                database_url=database_url,
                listen="127.0.0.1:0",
                grpc_listen="127.0.0.1:0",
            ) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
        ):
            await gateway.ready()
            for name, door in DOORS.items():
                for _ in range(3):
                    assert set(await door(gateway, http, "hello")) == {"hello"}, name
