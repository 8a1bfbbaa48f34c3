"""Brokers and clients for the tests of deliveries."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest_asyncio
from tests.broker.clients import Client
from tests.broker.servers import Server

from weft import rpc
from weft.broker import Broker

Start = Callable[..., Awaitable[tuple[Broker, Client]]]


@pytest_asyncio.fixture
async def store(redis_program: Path, server_folder: Path) -> AsyncIterator[Server]:
    """A Redis that the test may do anything to. Named before `start`, it outlives the brokers."""
    server = Server(redis_program, server_folder / "store")
    await server.start()
    yield server
    server.kill()


@pytest_asyncio.fixture
async def start(redis_url: str) -> AsyncIterator[Start]:
    """start(...) is a broker of this test, and a client of it that has made the queue `inbox`."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(
            url: str = redis_url, beat: float = 0.05, **policy: Any
        ) -> tuple[Broker, Client]:
            broker = await stack.enter_async_context(
                Broker(
                    redis_url=url,
                    address="127.0.0.1:0",
                    beat=timedelta(seconds=beat),
                    grace=timedelta(seconds=0.5),
                )
            )
            client = Client(await stack.enter_async_context(rpc.Channel(broker.address)))
            await client.queue(**policy)
            return broker, client

        yield started
