"""A mesh with a gateway, remotes kept in it, and the SDKs' own servers as remotes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest_asyncio
import uvicorn

from weft import config
from weft.agents import Host
from weft.agents.remote import keeper_of
from weft.gateway import Gateway
from weft.registry import Registry
from weft.rpc.testing import wait_until

PATIENCE = timedelta(seconds=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """A registry and a gateway."""

    registry: str
    gateway: Gateway
    http: httpx.AsyncClient

    @contextlib.asynccontextmanager
    async def keeping(self, name: str, protocol: Any, url: str, **further: Any) -> Any:
        """A remote in the mesh."""
        trust = further.pop("identity_trust", "")
        remote = config.Remote(name=name, protocol=protocol, url=url, **further)
        keeper = keeper_of(remote, lambda: Host(registry=self.registry, identity_trust=trust))
        keeping = asyncio.create_task(keeper.run())
        try:
            yield keeper
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping

    async def served(self, agent: str, method: str = "") -> None:
        """Returns when the gateway has the agent, with that method."""

        async def there() -> bool:
            answer = await self.http.get(f"/agents/{agent}")
            if answer.status_code != 200 or not answer.json()["inService"]:
                return False
            return method in answer.text

        await wait_until(there, PATIENCE)

    async def call(self, agent: str, method: str, body: Any, **further: Any) -> httpx.Response:
        """A skill of a remote, by REST."""
        return await self.http.post(f"/v1/remote/{agent}/{method}", json=body, **further)


@contextlib.asynccontextmanager
async def http_server(app: Any, port: int = 0) -> AsyncIterator[str]:
    """An ASGI application on loopback; its URL."""
    listening = socket.create_server(("127.0.0.1", port))
    made = uvicorn.Config(
        app, log_level="error", access_log=False, timeout_graceful_shutdown=1, lifespan="auto"
    )
    server = uvicorn.Server(made)
    server.config.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server._serve(sockets=[listening]))
    await wait_until(lambda: server.started, PATIENCE)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listening.close()
        # The A2A SDK's server leaves tasks behind that wait for messages, with what they were about to await.
        left = [each for each in asyncio.all_tasks() if "a2a/server" in _file_of(each)]
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            del left
            gc.collect()


def _file_of(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    code = getattr(coroutine, "cr_code", None)
    return str(code.co_filename) if code else ""


@contextlib.asynccontextmanager
async def mesh_of(database_url: str, **further: Any) -> AsyncIterator[Mesh]:
    async with (
        Registry(
            database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0)
        ) as registry,
        Gateway(
            registry=registry.address,
            database_url=database_url,
            listen="127.0.0.1:0",
            grpc_listen="127.0.0.1:0",
            **further,
        ) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
    ):
        yield Mesh(registry=registry.address, gateway=gateway, http=http)


@pytest_asyncio.fixture(scope="module")
async def mesh(fresh_xds_of_module: None, database_of_module: str) -> AsyncIterator[Mesh]:
    async with mesh_of(database_of_module) as made:
        yield made
