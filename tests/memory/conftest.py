"""Long-term memory in PostgreSQL with pgvector, and Redis."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis.asyncio

from weft import embedded
from weft.agents.memory import Knowledge, database
from weft.agents.memory.testing import HashedEmbedder
from weft.postgres import Database


@pytest_asyncio.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with await database(database_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with embedded.redis_client(redis_url) as opened:
        yield opened


@pytest.fixture
def embedder() -> HashedEmbedder:
    return HashedEmbedder(same={"bike": "bicycle", "fix": "repair", "broken": "damaged"})


@pytest_asyncio.fixture
async def knowledge(
    db: Database, client: redis.asyncio.Redis, embedder: HashedEmbedder
) -> AsyncIterator[Knowledge]:
    made = Knowledge(db, [embedder], cache=client)
    await made.versions.register()
    yield made


@pytest.fixture(scope="session")
def weights() -> Path:
    """A folder with the weights of the model that ships."""
    folder = os.environ.get("WEFT_TEST_WEIGHTS")
    if not folder:
        pytest.skip("WEFT_TEST_WEIGHTS names no folder with weights")
    return Path(folder)
