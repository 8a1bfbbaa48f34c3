"""A cache in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
import redis.asyncio

from weft import embedded
from weft.agents.context import RedisCache


@pytest_asyncio.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with embedded.redis_client(redis_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def cache(client: redis.asyncio.Redis) -> RedisCache:
    return RedisCache(client)
