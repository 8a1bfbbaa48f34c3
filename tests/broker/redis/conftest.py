"""Clients that end with their test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest_asyncio

from weft.broker.redis import Redis


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Callable[..., Awaitable[Redis]]]:
    """connect(url, ...) is a client that is closed after the test."""
    clients: list[Redis] = []

    async def make(url: str, **options: object) -> Redis:
        clients.append(await Redis.connect(url, **options))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()
