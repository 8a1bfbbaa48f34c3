"""One registry for all the fundamentals, as a process has one."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from weft import embedded
from weft.registry import Registry

_NUMBERS = itertools.count()


@pytest_asyncio.fixture(scope="session")
async def mesh_database(servers: embedded.Endpoints) -> str:
    """The URL of a database for the registry and the gateway."""
    name = f"fundamentals_{next(_NUMBERS)}"
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute(f"create database {name}")
    await admin.close()
    return urlsplit(servers.database_url)._replace(path=f"/{name}").geturl()


@pytest.fixture(autouse=True)
def one_registry(fresh_xds: None) -> None:
    """Other tests of this process have other registries."""


@pytest_asyncio.fixture(scope="session")
async def registry(mesh_database: str) -> AsyncIterator[str]:
    """The address of a registry on a real PostgreSQL."""
    async with Registry(
        database_url=mesh_database, address="127.0.0.1:0", cold_start=timedelta(0)
    ) as running:
        yield running.address
