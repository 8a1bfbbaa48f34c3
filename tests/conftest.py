"""Real servers for every test: one pair per test process, a database and a Redis number per test."""

from __future__ import annotations

import gc
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from weft import embedded

_NUMBERS = itertools.count()
_REDIS_DATABASES = 16
# Folders whose tests share a mesh or a machine's attention.
_SHARING = frozenset({"cli", "failure", "fundamentals"})
_EMPTY_DATABASE = """
DO $$
DECLARE name text;
BEGIN
  PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
  FOR name IN
    SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
  LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', name);
  END LOOP;
  CREATE SCHEMA public;
END $$
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps a file's tests in one process of pytest-xdist, and those of a costly fixture as well."""
    for item in items:
        folder = item.path.relative_to(config.rootpath).parts[1]
        shared = folder if folder in _SHARING else str(item.path)
        item.add_marker(pytest.mark.xdist_group(shared))


def let_go_of_xds_clients() -> None:
    """The gRPC core keeps its xDS bootstrap as long as any xDS client lives, and a call that hangs in a traceback
    keeps one: a test that uses another registry collects those first. A process of Weft has one registry."""
    gc.collect()


@pytest.fixture
def fresh_xds() -> Iterator[None]:
    """For a test with a registry of its own."""
    let_go_of_xds_clients()
    yield
    let_go_of_xds_clients()


@pytest.fixture(scope="module")
def fresh_xds_of_module() -> Iterator[None]:
    """For a file with a registry of its own."""
    let_go_of_xds_clients()
    yield
    let_go_of_xds_clients()


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for unix sockets, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="weft-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers(short_folder: Path) -> AsyncIterator[embedded.Endpoints]:
    """A Redis-protocol server and PostgreSQL of this test process alone."""
    async with embedded.launch(short_folder / "data") as endpoints:
        admin = await asyncpg.connect(endpoints.database_url)
        # No test pulls the plug, and a process that is killed has written to the kernel what it said it had.
        for setting in ("fsync", "full_page_writes"):
            await admin.execute(f"alter system set {setting} = off")
        await admin.execute("select pg_reload_conf()")
        await admin.close()
        yield endpoints


@pytest.fixture(scope="session")
def spare_databases() -> list[str]:
    """Databases that are empty again: making one takes ten times as long as emptying it."""
    return []


@pytest_asyncio.fixture
async def database_url(
    servers: embedded.Endpoints, spare_databases: list[str]
) -> AsyncIterator[str]:
    """The URL of an empty database that only this test uses."""
    if not spare_databases:
        name = f"test_{next(_NUMBERS)}"
        admin = await asyncpg.connect(servers.database_url)
        await admin.execute(f"create database {name} template template0")
        await admin.close()
        spare_databases.append(name)
    name = spare_databases.pop()
    url = urlsplit(servers.database_url)._replace(path=f"/{name}").geturl()
    yield url
    cleaner = await asyncpg.connect(url)
    await cleaner.execute(_EMPTY_DATABASE)
    await cleaner.close()
    spare_databases.append(name)


@pytest_asyncio.fixture
async def redis_url(servers: embedded.Endpoints) -> AsyncIterator[str]:
    """The URL of an empty Redis database that only this test uses."""
    number = next(_NUMBERS) % _REDIS_DATABASES
    url = urlsplit(servers.redis_url)._replace(query=f"db={number}").geturl()
    async with embedded.redis_client(url) as client:
        yield url
        await client.flushdb()
