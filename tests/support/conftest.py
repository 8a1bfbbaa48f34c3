from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from weft.agents import support
from weft.postgres import Database


@pytest_asyncio.fixture
async def store(database_url: str) -> AsyncIterator[Database]:
    """The fleet's schema in an empty database."""
    async with await support.database(database_url) as opened:
        yield opened
