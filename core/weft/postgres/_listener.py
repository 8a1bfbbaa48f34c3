"""Hears what is said by NOTIFY, on a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import asyncpg

from weft.postgres._database import CONNECT_LIMIT
from weft.postgres._errors import DRIVER_ERRORS

_LOG = logging.getLogger("weft.postgres")
_AGAIN = 1.0  # seconds between attempts to connect


class Listener:
    """Listens on a channel; connects again when the connection is lost.

    Args:
        url: of PostgreSQL.
        channel: what to listen on.
        heard: called with each payload; with None when it begins to listen: what was said before was missed.
    """

    def __init__(self, url: str, channel: str, heard: Callable[[str | None], None]) -> None:
        self._url = url
        self._channel = channel
        self._heard = heard
        self.listening = asyncio.Event()

    async def run(self) -> None:
        """Listens until cancelled; for a task of its own."""
        while True:
            try:
                await self._listen()
            except DRIVER_ERRORS as failed:  # whatever it is, the next attempt may fare better
                _LOG.warning("cannot listen to the database now", extra={"cause": str(failed)})
            await asyncio.sleep(_AGAIN)

    async def _listen(self) -> None:
        lost = asyncio.Event()
        connection = await asyncpg.connect(
            self._url, timeout=CONNECT_LIMIT, server_settings={"application_name": "weft-listener"}
        )
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(self._channel, self._said)
            self._heard(None)
            self.listening.set()
            await lost.wait()
        finally:
            self.listening.clear()
            connection.terminate()
            with contextlib.suppress(asyncpg.InterfaceError):
                await connection.close(timeout=1)

    def _said(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._heard(str(payload))
