"""Rows that are stored together where they come together: a statement costs more than a row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from weft import rpc

Row = tuple[Any, ...]
Write = Callable[[Sequence[Row]], Awaitable[None]]

_MOST = 100  # rows of a statement


class Batches:
    """Writes rows: those that come while others are written go together afterwards. One alone waits for nothing.

    Args:
        write: writes rows, all or none; raises rpc.Error.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def add(self, row: Row) -> None:
        """Returns when a row is written; raises rpc.Error when it is not."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        self._waiting.append((row, written))
        if self._writing is None:
            self._writing = loop.create_task(self._work())
        await written

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._write_all(batch)
        finally:
            self._writing = None

    async def _write_all(self, batch: list[tuple[Row, asyncio.Future[None]]]) -> None:
        try:
            await self._write([row for row, _ in batch])
        except Exception as failed:  # noqa: BLE001 told to each who waits
            if len(batch) > 1 and not isinstance(failed, rpc.Unavailable | rpc.DeadlineExceeded):
                for each in batch:  # one of them is at fault
                    await self._write_all([each])
                return
            for _, written in batch:
                if not written.done():
                    written.set_exception(failed)
            return
        for _, written in batch:
            if not written.done():
                written.set_result(None)
