from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import httpx
import pytest

from weft.agents import Host
from weft.agents.echo import Echo
from weft.gateway import Gateway
from weft.registry import Registry
from weft.rpc.testing import wait_until

Start = Callable[..., AbstractAsyncContextManager[Gateway]]


@pytest.fixture
async def registry(database_url: str) -> AsyncIterator[str]:
    async with Registry(
        database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0)
    ) as running:
        yield running.address


@pytest.fixture
def start(registry: str, database_url: str) -> Start:
    """Starts gateways on the test's registry."""

    @contextlib.asynccontextmanager
    async def gateway(**further: object) -> AsyncIterator[Gateway]:
        running = Gateway(
            registry=registry,
            database_url=database_url,
            listen="127.0.0.1:0",
            grpc_listen="127.0.0.1:0",
            **further,  # type: ignore[arg-type]
        )
        async with running:
            await running.ready()
            yield running

    return gateway


@pytest.fixture
async def echo(registry: str) -> AsyncIterator[Host]:
    async with Host(registry=registry) as host:
        host.add(Echo("one"))
        await host.start()
        yield host


@pytest.fixture
async def gateway(start: Start, echo: Host) -> AsyncIterator[Gateway]:
    async with start() as running:
        async with httpx.AsyncClient(base_url=running.url) as client:

            async def routed() -> bool:
                return (await client.get("/v1/echo/ready")).status_code == 200

            await wait_until(routed)
        yield running


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as client:
        yield client
