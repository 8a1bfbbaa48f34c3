"""A whole mesh with mTLS: who is let in where."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from tests.mtls.authorities import Certificates

from weft.agents import Host
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    registry: Registry
    host: Host


@contextlib.asynccontextmanager
async def running(certificates: Certificates, database_url: str) -> AsyncIterator[Mesh]:
    async with (
        Registry(
            database_url=database_url,
            address="127.0.0.1:0",
            cold_start=timedelta(0),
            mtls=certificates.part("registry"),
        ) as registry,
        Host(registry=registry.address, mtls=certificates.agents("echo")) as host,
    ):
        host.add(Echo("one"))
        await host.start()
        yield Mesh(registry=registry, host=host)


@pytest.fixture
async def mesh(
    fresh_xds: None, certificates: Certificates, database_url: str
) -> AsyncIterator[Mesh]:
    async with running(certificates, database_url) as made:
        yield made


async def test_an_agent_is_called_by_name(mesh: Mesh) -> None:
    stub = mesh.host.mesh.stub(echo_pb2_grpc.EchoServiceStub)
    assert (await stub.Say(echo_pb2.SayRequest(text="hello"), timeout=5)).text == "hello"
