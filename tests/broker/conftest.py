"""Redis in every shape the broker knows. Servers that a test may kill or fill are its own; the cluster is shared."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.broker import servers

_NUMBERS = itertools.count()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_program() -> Path:
    """The program of the Redis-protocol server."""
    return await servers.find_program()


@pytest.fixture
def server_folder(short_folder: Path) -> Path:
    """A folder for the servers of one test, short enough for unix sockets."""
    folder = short_folder / f"r{next(_NUMBERS)}"
    folder.mkdir()
    return folder


@pytest.fixture
def redis_server(
    redis_program: Path, server_folder: Path
) -> Iterator[Callable[..., servers.Server]]:
    """redis_server(appendfsync="everysec", ...) is a server of this test's own, not started yet."""
    made: list[servers.Server] = []

    def make(**settings: str | int) -> servers.Server:
        server = servers.Server(redis_program, server_folder / f"{len(made)}", **settings)
        made.append(server)
        return server

    yield make
    for server in made:
        server.kill()


@pytest_asyncio.fixture
async def redis_pair(redis_program: Path, server_folder: Path) -> AsyncIterator[servers.Pair]:
    """A primary and its replica, this test's own: it may kill them."""
    pair = servers.Pair(redis_program, server_folder)
    async with servers.running(pair):
        yield pair


@pytest.fixture(params=["one", "replicated", "cluster"])
def any_redis_url(
    request: pytest.FixtureRequest,
    redis_url: str,
    replicated: servers.Pair,
    redis_cluster: servers.Cluster,
) -> str:
    """A test with this runs three times: on one Redis, on a primary with its replica, and on a cluster."""
    urls = {"one": redis_url, "replicated": replicated.url, "cluster": redis_cluster.url}
    return urls[request.param]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_pair(redis_program: Path, short_folder: Path) -> AsyncIterator[servers.Pair]:
    """A primary and its replica, for all tests that leave them as they were."""
    folder = short_folder / f"r{next(_NUMBERS)}"
    folder.mkdir()
    pair = servers.Pair(redis_program, folder)
    async with servers.running(pair):
        yield pair


@pytest_asyncio.fixture
async def replicated(shared_pair: servers.Pair) -> AsyncIterator[servers.Pair]:
    """The shared primary and replica, empty."""
    yield shared_pair
    await shared_pair.primary.do("FLUSHALL")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_cluster(redis_program: Path, short_folder: Path) -> AsyncIterator[servers.Cluster]:
    """Three primaries of a cluster, for all tests: slots may move, nodes may not die."""
    folder = short_folder / f"r{next(_NUMBERS)}"
    folder.mkdir()
    cluster = servers.Cluster(redis_program, folder)
    async with servers.running(cluster):
        yield cluster


@pytest_asyncio.fixture
async def redis_cluster(shared_cluster: servers.Cluster) -> AsyncIterator[servers.Cluster]:
    """The shared cluster, empty."""
    yield shared_cluster
    for node in shared_cluster.nodes:
        await node.do("FLUSHALL")
