"""Real servers for every test: one pair per test process, a database and a Redis number per test."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from xdist.scheduler import LoadFileScheduling

from weft import embedded

_NUMBERS = itertools.count()
_TICK = 0.02  # seconds
_STILL = 0.1  # seconds; what tests with the shortest times have to spare
_REDIS_DATABASES = 16
# Folders whose tests share a mesh or a machine's attention.
_SHARING = frozenset({"cli", "failure", "fundamentals"})
_SET_UP = (
    "weft.audit",
    "httpx",
    "opentelemetry",
    "opentelemetry.exporter",
)  # by weft.telemetry.logs
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


class Stalls(threading.Thread):
    """Whether this process stood still while a test ran: a lease of 0.2 s then runs out whatever the code does.

    Attributes:
        seen: whether the process stood still since this was last made False.
    """

    def __init__(self) -> None:
        super().__init__(name="stalls", daemon=True)
        self.seen = False

    def run(self) -> None:
        """Runs as long as the process."""
        while True:
            before = time.monotonic()
            time.sleep(_TICK)
            if time.monotonic() - before > _TICK + _STILL:
                self.seen = True


_STALLS = Stalls()


class _ByMesh(LoadFileScheduling):
    """Keeps a file's tests in one process of pytest-xdist, and those of folders that share more.

    Its own `loadgroup` writes to an attribute that items of pytest 9.2 do not have, and groups nothing.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        folder = file.split("/")[1]
        return folder if folder in _SHARING else file


def pytest_configure() -> None:
    """Children of a process that ignores Ctrl-C do as well, and a shell's jobs in the background ignore it: what tests
    start has it as on a terminal, however the tests were started."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByMesh:
    """What pytest-xdist asks for."""
    return _ByMesh(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What failed while the process stood still is run once more, and listed as such; anything else that failed has failed."""
    once_more = pytest.mark.flaky(reruns=1, condition=lambda: _STALLS.seen)
    for item in items:
        item.add_marker(once_more)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Watches for stalls, and sees to it that the garbage collector makes none: the tests themselves are never garbage."""
    gc.collect()
    gc.freeze()
    _STALLS.start()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test begins."""
    _STALLS.seen = False


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command that runs within this process sets up its logs, and writes them to a stream that ends with its test."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = [(each, each.level) for each in (root, *map(logging.getLogger, _SET_UP))]
    yield
    root.handlers[:] = handlers
    for logger, level in levels:
        logger.setLevel(level)


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


@contextlib.asynccontextmanager
async def empty_database(
    servers: embedded.Endpoints, spare_databases: list[str]
) -> AsyncIterator[str]:
    """The URL of a database that nobody else uses meanwhile."""
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
async def database_url(
    servers: embedded.Endpoints, spare_databases: list[str]
) -> AsyncIterator[str]:
    """The URL of an empty database that only this test uses."""
    async with empty_database(servers, spare_databases) as url:
        yield url


@pytest_asyncio.fixture(scope="module")
async def database_of_module(
    servers: embedded.Endpoints, spare_databases: list[str]
) -> AsyncIterator[str]:
    """The URL of an empty database that only the tests of this file use."""
    async with empty_database(servers, spare_databases) as url:
        yield url


@pytest_asyncio.fixture
async def redis_url(servers: embedded.Endpoints) -> AsyncIterator[str]:
    """The URL of an empty Redis database that only this test uses."""
    number = next(_NUMBERS) % _REDIS_DATABASES
    url = urlsplit(servers.redis_url)._replace(query=f"db={number}").geturl()
    async with embedded.redis_client(url) as client:
        yield url
        await client.flushdb()
