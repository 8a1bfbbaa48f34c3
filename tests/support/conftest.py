from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests import secured

from weft.agents import support
from weft.postgres import Database


@pytest_asyncio.fixture
async def store(database_url: str) -> AsyncIterator[Database]:
    """The fleet's schema in an empty database."""
    async with await support.database(database_url) as opened:
        yield opened


@pytest.fixture(scope="session", autouse=secured.ON)
def certificates_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All of the fleet's tests with mTLS and signed identities, where WEFT_TEST_MESH_TLS is on."""
    with secured.secured(tmp_path_factory.mktemp("certificates")):
        yield
