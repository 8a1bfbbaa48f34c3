"""Adds to the logs of runs: what all runs of a worker have to say within one turn of the loop goes in one statement.

Nothing waits on a timer: while one statement is under way, the next gathers. A run hears whether its fence held: where
it did not, another worker has the run, nothing was added, and whoever asked drops it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from weft.agents.orchestrator.engine.bells import Bells
from weft.agents.orchestrator.engine.patience import passes, patiently
from weft.postgres import Database

log = logging.getLogger("weft.agents")

_MOST = 1_000  # entries a statement takes
_MOST_BYTES = 8 << 20


@dataclass(slots=True, eq=False)
class _Entry:
    run: int
    fence: int
    first: int
    """Number of the first event."""
    events: Sequence[bytes]
    held: asyncio.Future[bool]


class Log:
    """Writes. Enter it to have entries written.

    Args:
        database: with the queries of weft.agents.orchestrator.sql.
        bells: rung for those who watch from this process.
    """

    def __init__(self, database: Database, bells: Bells) -> None:
        self._database = database
        self._bells = bells
        self._pending: list[_Entry] = []
        self._more = asyncio.Event()
        self.statements = 0
        """How many statements were made."""

    def append(
        self, run: int, fence: int, first: int, events: Sequence[bytes]
    ) -> asyncio.Future[bool]:
        """Adds events to the log of a run, numbered from `first`; whether the fence held.

        The future waits as long as the database is away.
        """
        held: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pending.append(_Entry(run, fence, first, events, held))
        self._more.set()
        return held

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Writes meanwhile."""
        task = asyncio.create_task(self._write(), name="log of runs")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            for entry in self._pending:
                entry.held.cancel()

    async def _write(self) -> None:
        while True:
            await self._more.wait()
            if not (batch := self._next()):
                continue
            try:
                await patiently(lambda: self._put(batch))
            except asyncio.CancelledError:
                for entry in batch:
                    entry.held.cancel()
                raise
            except Exception as failed:  # noqa: BLE001 told to whom it belongs
                await self._apart(batch, failed)

    def _next(self) -> list[_Entry]:
        size = taken = 0
        for entry in self._pending[:_MOST]:
            size += sum(map(len, entry.events))
            if taken and size > _MOST_BYTES:
                break
            taken += 1
        batch, self._pending = self._pending[:taken], self._pending[taken:]
        if not self._pending:
            self._more.clear()
        return batch

    async def _put(self, batch: Sequence[_Entry]) -> None:
        runs: list[int] = []
        fences: list[int] = []
        events: list[bytes] = []
        numbers: list[int] = []
        places: list[int] = []
        for place, entry in enumerate(batch, 1):
            runs.append(entry.run)
            fences.append(entry.fence)
            count = len(entry.events)
            events += entry.events
            numbers += range(entry.first, entry.first + count)
            places += [place] * count
        self.statements += 1
        rows = await self._database.fetch("append_events", runs, fences, events, numbers, places)
        held = {row[0] for row in rows}
        for place, entry in enumerate(batch, 1):
            if not entry.held.done():
                entry.held.set_result(place in held)
            if place in held:
                self._bells.changed(entry.run, entry.first, entry.events)

    async def _apart(self, batch: Sequence[_Entry], failed: Exception) -> None:
        """One entry cannot be stored: the others are, each by itself."""
        if len(batch) == 1:
            self._fail(batch[0], failed)
            return
        for place, entry in enumerate(batch):
            if entry.held.done():
                continue
            try:
                await self._put([entry])
            except Exception as own:  # noqa: BLE001 told to whom it belongs
                if passes(own):
                    # What is behind it has to stay there.
                    self._pending[:0] = [each for each in batch[place:] if not each.held.done()]
                    self._more.set()
                    return
                self._fail(entry, own, batch)

    def _fail(self, entry: _Entry, failed: Exception, batch: Sequence[_Entry] = ()) -> None:
        """Says that an entry cannot be stored, and so none of its run that is behind it."""
        for each in (entry, *batch, *self._pending):
            if each.run == entry.run and each.fence == entry.fence and not each.held.done():
                each.held.set_exception(failed)
        self._pending = [each for each in self._pending if not each.held.done()]
