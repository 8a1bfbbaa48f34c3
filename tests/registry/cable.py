"""A way to PostgreSQL that tests can cut."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import parse_qs, urlsplit


class Cable:
    """The way to PostgreSQL, which can be cut."""

    def __init__(self, database_url: str) -> None:
        url = urlsplit(database_url)
        self._socket = f"{parse_qs(url.query)['host'][0]}/.s.PGSQL.5432"
        self._url = url
        self._writers: list[asyncio.StreamWriter] = []
        self.cut = False

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user = self._url.username or "postgres"
        self.url = f"postgresql://{user}@127.0.0.1:{port}{self._url.path}"
        return self

    async def __aexit__(self, *_):
        self.pull()
        self._server.close()
        await self._server.wait_closed()

    def pull(self) -> None:
        self.cut = True
        for writer in self._writers:
            writer.transport.abort()

    def plug_in(self) -> None:
        self.cut = False

    async def _carry(self, reader, writer) -> None:
        self._writers.append(writer)
        if self.cut:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_unix_connection(self._socket)
        self._writers.append(far_writer)

        async def pump(source, sink):
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
