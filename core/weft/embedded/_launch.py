"""The launcher: owns a data folder and the servers in it, or attaches to the one that does."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

from weft.embedded import _lock
from weft.embedded._endpoints import Endpoints, endpoints, publish
from weft.embedded._errors import Error, FolderBusy
from weft.embedded._folders import Folders
from weft.embedded._postgres import Postgres
from weft.embedded._redis import Redis
from weft.embedded._server import Progress, report
from weft.embedded._supervisor import Supervisor

_POLL = 0.05  # seconds
_ATTACH_LIMIT = timedelta(minutes=2)  # the other launcher may be creating or recovering a database


@contextlib.asynccontextmanager
async def launch(
    data: Path,
    *,
    redis_url: str | None = None,
    database_url: str | None = None,
    redis_server: Path | None = None,
    postgres_bin: Path | None = None,
    on_progress: Progress | None = None,
) -> AsyncIterator[Endpoints]:
    """Runs a private Redis-protocol server and PostgreSQL in the folder `data` within the block.

    A URL that is given is used as it is and its server not started; with both, nothing happens.
    When another launcher holds the folder, its servers are used, and not stopped at the end.
    `redis_server` and `postgres_bin` name a program and a folder of programs instead of those
    of the wheels and of PATH. `on_progress` hears in words what happens.

    Call it from the main thread. Raises Error. When a server cannot be kept alive, the task that
    entered the block is cancelled and the block raises ServerLost.
    """
    if redis_url is not None and database_url is not None:
        yield Endpoints(redis_url=redis_url, database_url=database_url)
        return
    folders = Folders.of(data)
    folders.create()
    lock, other = await _take_or_find(folders)
    if other is not None:
        report(on_progress, f"using the servers of the launcher that holds {folders.data}")
        yield Endpoints(
            redis_url=redis_url or other.redis_url,
            database_url=database_url or other.database_url,
        )
        return
    assert lock is not None
    loss = _Loss()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(lock.release)
        folders.endpoints.unlink(missing_ok=True)
        run = folders.sockets()
        stack.callback(folders.tidy)
        if redis_url is None:
            redis = await Redis.prepare(folders, run, redis_server, on_progress)
            supervisor = Supervisor(redis, lost=loss.report, progress=on_progress)
            await stack.enter_async_context(supervisor)
            redis_url = redis.url
        if database_url is None:
            postgres = await Postgres.prepare(folders, run, postgres_bin, on_progress)
            supervisor = Supervisor(postgres, lost=loss.report, progress=on_progress)
            await stack.enter_async_context(supervisor)
            database_url = postgres.url
        found = Endpoints(redis_url=redis_url, database_url=database_url)
        publish(folders, found, os.getpid())
        stack.callback(folders.endpoints.unlink, missing_ok=True)
        await stack.enter_async_context(loss)
        yield found


async def _take_or_find(folders: Folders) -> tuple[_lock.FolderLock | None, Endpoints | None]:
    """Either the lock or the endpoints of who holds it; waits for a start that is under way."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ATTACH_LIMIT.total_seconds()):
            while True:
                if (lock := _lock.FolderLock.take(folders.lock)) is not None:
                    return lock, None
                if (other := endpoints(folders.data)) is not None:
                    return None, other
                await asyncio.sleep(_POLL)
    raise FolderBusy(
        f"Process {_lock.holder(folders.lock)} holds {folders.data} and its servers are still "
        "not ready. Look at its output; end it if it hangs, then start again."
    )


class _Loss:
    """Ends the block in which a server was lost, the way asyncio.timeout ends one."""

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._error: Error | None = None

    def report(self, error: Error) -> None:
        """Remembers the error and cancels the task in the block."""
        if self._error is not None:
            return
        self._error = error
        if self._task is not None:
            self._task.cancel()

    async def __aenter__(self) -> None:
        if self._error is not None:  # one server was lost while the other started
            raise self._error
        self._task = asyncio.current_task()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        task, self._task = self._task, None
        if self._error is None:
            return
        assert task is not None
        if kind is None:
            with contextlib.suppress(asyncio.CancelledError):  # the cancel is still on its way
                await asyncio.sleep(0)
        task.uncancel()
        raise self._error
