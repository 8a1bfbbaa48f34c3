"""A clock that jumps and a disk that is full, as a real server sees them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError
from tests.broker import servers
from tests.faults.host import Disk, Host, small_disk

from weft.rpc.testing import wait_until


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    try:
        found = Host(tmp_path)
    except RuntimeError as error:
        pytest.skip(str(error))
    yield found
    found.close()


@pytest.fixture
def disk(short_folder: Path) -> Iterator[Disk]:
    with small_disk(short_folder / "disk", 8) as found:
        if found is None:
            pytest.skip("a small file system takes root")
        yield found


def preloaded(
    server: servers.Server, host: Host, monkeypatch: pytest.MonkeyPatch
) -> servers.Server:
    for name, value in host.environment.items():
        monkeypatch.setenv(name, value)
    return server


async def clock_of(server: servers.Server) -> float:
    seconds, micros = await server.do("TIME")
    return int(seconds) + int(micros) / 1e6


async def test_the_clock_of_a_server_jumps(
    redis_server, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = preloaded(redis_server(), host, monkeypatch)
    await server.start()
    for step in (3600, -7200, 0):
        host.step_clock(step)
        assert await clock_of(server) - time.time() == pytest.approx(step, abs=2)
    await server.do("SET", "k", "v", "PX", 60_000)
    host.step_clock(3600)
    assert await server.do("GET", "k") is None


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
async def test_a_disk_that_is_full(redis_server, disk: Disk, appendfsync: str) -> None:
    server = redis_server(appendfsync=appendfsync, dir=str(disk.folder))
    await server.start()
    await server.do("SET", "k", "v")
    disk.fill()
    await refused(server)
    disk.free()
    await well_again(server)


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
async def test_a_disk_that_says_it_is_full(
    redis_server, host: Host, monkeypatch: pytest.MonkeyPatch, appendfsync: str
) -> None:
    server = preloaded(redis_server(appendfsync=appendfsync), host, monkeypatch)
    await server.start()
    await server.do("SET", "k", "v")
    host.fill(full=True)
    await refused(server)
    host.fill(full=False)
    await well_again(server)


async def refused(server: servers.Server) -> None:
    """It ends (always) or refuses to write (everysec), sooner or later."""

    async def refuses() -> bool:
        if server.ended():
            return True
        try:
            async with asyncio.timeout(1):  # the client tries again for long
                await server.do("SET", "k", "w" * 5000)
        except TimeoutError:
            return server.ended()
        except (RedisError, OSError):
            return True
        return False

    await wait_until(refuses, servers.PATIENCE)


async def well_again(server: servers.Server) -> None:
    """It takes writes again, once it is started if it has ended, and has what it had."""

    async def writes() -> bool:
        if server.ended():  # which it may do a moment after it refused
            server.kill()
            await server.start()
        try:
            async with asyncio.timeout(1):
                return bool(await server.do("SET", "l", "v"))
        except (RedisError, OSError, TimeoutError):
            return False

    await wait_until(writes, servers.PATIENCE)
    assert await server.do("GET", "k")
