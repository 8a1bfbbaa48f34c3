"""A registry, a gateway and the agent echo: one set per test file, or one of its own for a test that breaks things."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
import pytest_asyncio
from tests.gateway.entries import EDGE, ENTRIES, Entry, at_edge, at_gateway, expect

from weft import embedded
from weft.agents import Host
from weft.agents.echo import Echo
from weft.gateway import Gateway
from weft.gateway.guards.key_store import KeyStore
from weft.gateway.guards.keys import NewKey
from weft.postgres import Database
from weft.registry import Registry
from weft.rpc.testing import wait_until

_NUMBERS = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What differs at the edge is known."""
    expect(items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    registry: str
    database_url: str
    echo: Host
    gateway: Gateway
    http: httpx.AsyncClient

    @property
    def in_flight(self) -> int:
        return sum(member.load.in_flight for member in self.echo._members)


async def routed(http: httpx.AsyncClient, headers: dict[str, str] | None = None) -> None:
    """Returns when the gateway serves echo."""

    async def served() -> bool:
        return (await http.get("/v1/echo/ready", headers=headers)).status_code == 200

    await wait_until(served)


@contextlib.asynccontextmanager
async def running(database_url: str, **further: Any) -> AsyncIterator[Mesh]:
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        registry = await enter(
            Registry(database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0))
        )
        host = await enter(Host(registry=registry.address))
        host.add(Echo("one"))
        await host.start()
        gateway = await enter(
            Gateway(
                registry=registry.address,
                database_url=database_url,
                listen="127.0.0.1:0",
                grpc_listen="127.0.0.1:0",
                **further,
            )
        )
        http = await enter(httpx.AsyncClient(base_url=gateway.url, timeout=20))
        yield Mesh(
            registry=registry.address,
            database_url=database_url,
            echo=host,
            gateway=gateway,
            http=http,
        )


@pytest_asyncio.fixture(scope="module")
async def mesh(fresh_xds_of_module: None, servers: embedded.Endpoints) -> AsyncIterator[Mesh]:
    """The mesh of a file's tests, which leave it as they found it."""
    name = f"gateway_{next(_NUMBERS)}"
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute(f"create database {name} template template0")
    async with running(urlsplit(servers.database_url)._replace(path=f"/{name}").geturl()) as made:
        await routed(made.http)
        yield made
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest_asyncio.fixture(scope="module")
async def edge_of_mesh(
    mesh: Mesh, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Entry]:
    """An Envoy before the mesh of a file's tests."""
    async with at_edge(mesh.database_url, mesh.gateway, tmp_path_factory.mktemp("edge")) as made:
        yield made


@pytest.fixture(params=ENTRIES)
def entry(request: pytest.FixtureRequest, mesh: Mesh) -> Entry:
    """Each way into the mesh in turn."""
    if request.param == EDGE:
        found: Entry = request.getfixturevalue("edge_of_mesh")
        return found
    return at_gateway(mesh.gateway, mesh.http)


@pytest.fixture
def http(entry: Entry) -> httpx.AsyncClient:
    return entry.http


@pytest.fixture
async def own(fresh_xds: None, database_url: str) -> AsyncIterator[Mesh]:
    """A mesh of this test alone."""
    async with running(database_url) as made:
        await routed(made.http)
        yield made


@pytest_asyncio.fixture(params=ENTRIES)
async def entry_of_own(
    request: pytest.FixtureRequest, own: Mesh, tmp_path: Path
) -> AsyncIterator[Entry]:
    """Each way into a test's own mesh in turn."""
    if request.param == EDGE:
        async with at_edge(own.database_url, own.gateway, tmp_path) as made:
            yield made
    else:
        yield at_gateway(own.gateway, own.http)


@pytest.fixture
async def own_with_keys(
    fresh_xds: None, database_url: str
) -> AsyncIterator[tuple[Mesh, NewKey, NewKey]]:
    """A mesh that asks for keys, a good key and a revoked one."""
    async with (
        running(database_url, auth="keys") as made,
        await Database.connect(database_url, schema="gateway") as database,
    ):
        database.load("weft.gateway.sql")
        store = KeyStore(database)
        good, bad = await store.create("good", scopes=["a.read"]), await store.create("bad")
        await store.revoke(bad.key.id)
        await routed(made.http, {"x-api-key": good.text})
        yield made, good, bad
