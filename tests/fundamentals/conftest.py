from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from weft.registry import Registry


@pytest.fixture
async def registry(database_url: str) -> AsyncIterator[str]:
    """The address of a registry on a real PostgreSQL."""
    async with Registry(
        database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0)
    ) as running:
        yield running.address
