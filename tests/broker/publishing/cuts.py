"""A connection that breaks at the worst moment: the server has done what it was asked, and its reply is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path


class Cut:
    """Stands between a broker and a server. While it is `deaf` replies are lost; while `shut`, nobody gets through."""

    def __init__(self, target: Path) -> None:
        self.deaf = False
        self.shut = False
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self, *, shut: bool = False) -> None:
        """Drops all connections; new ones are well unless it is shut."""
        self.deaf, self.shut = False, shut
        for writer in self._writers:
            writer.transport.abort()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes a connection."""
        if self.shut:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(
            self._pipe(reader, far_writer, replies=False),
            self._pipe(far_reader, writer, replies=True),
        )
        self._writers -= {writer, far_writer}

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if not (replies and self.deaf):
                    writer.write(data)
        writer.transport.abort()

    async def end(self) -> None:
        """Drops all connections for good."""
        self.cut(shut=True)
        while self._tasks:
            await asyncio.wait(self._tasks)


@contextlib.asynccontextmanager
async def cut_before(target: Path, way: Path) -> AsyncIterator[Cut]:
    """Makes `way` a unix socket that leads to the one at `target`, and can be cut."""
    cut = Cut(target)
    server = await asyncio.start_unix_server(cut.accept, way)
    try:
        yield cut
    finally:
        server.close()
        await cut.end()
        await server.wait_closed()
