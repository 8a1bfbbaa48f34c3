"""Brokers that share a Redis, and a client of each."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest_asyncio
from tests.broker.clients import Client

from weft import rpc
from weft.broker import Broker

Start = Callable[..., Awaitable[Client]]


@pytest_asyncio.fixture
async def start(redis_url: str) -> AsyncIterator[Start]:
    """start() begins another broker on the Redis of this test; a client of it."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(url: str = redis_url, database_url: str = "") -> Client:
            broker = await stack.enter_async_context(
                Broker(
                    redis_url=url,
                    database_url=database_url,
                    address="127.0.0.1:0",
                    beat=timedelta(milliseconds=50),
                    grace=timedelta(seconds=0.5),
                )
            )
            return Client(await stack.enter_async_context(rpc.Channel(broker.address)))

        yield started


@pytest_asyncio.fixture
async def client(start: Start) -> Client:
    """A client of one broker."""
    return await start()
