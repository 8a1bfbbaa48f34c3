"""A broker on each store that it supports: one Redis, a primary with its replica, a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest_asyncio
from tests.broker.clients import Client

from weft import rpc
from weft.broker import Broker


@pytest_asyncio.fixture
async def broker(any_redis_url: str) -> AsyncIterator[Broker]:
    async with Broker(
        redis_url=any_redis_url, address="127.0.0.1:0", beat=timedelta(seconds=0.1)
    ) as found:
        yield found


@pytest_asyncio.fixture
async def archiving(any_redis_url: str, database_url: str) -> AsyncIterator[Client]:
    """A client of a broker with an archive."""
    async with (
        Broker(redis_url=any_redis_url, database_url=database_url, address="127.0.0.1:0") as found,
        rpc.Channel(found.address) as channel,
    ):
        yield Client(channel)


@pytest_asyncio.fixture
async def client(broker: Broker) -> AsyncIterator[Client]:
    async with rpc.Channel(broker.address) as channel:
        yield Client(channel)
