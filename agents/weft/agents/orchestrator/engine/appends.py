"""What one run has on its way into the log.

A run may go ahead of its log by calls that have no side effects: what such a call found out is lost with its worker at
worst, and found out again. Whatever has an effect waits until all before it is stored.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable

from weft.agents.orchestrator.engine.log import Log
from weft.agents.orchestrator.engine.model import StoredRun
from weft.agents.orchestrator.engine.store import Fresh, LeaseLost

_AHEAD = 8  # entries of a run that are not stored


class Appends:
    """Entries of a run, stored in their order.

    Args:
        log: where they go.
        run: the run, with the fence it is held by.
        failed: called when one cannot be stored; `check` says why.
    """

    def __init__(self, log: Log, run: StoredRun, failed: Callable[[], None]) -> None:
        self._log = log
        self._run = run
        self._failed = failed
        self._entries: collections.deque[asyncio.Future[bool]] = collections.deque()

    async def add(self, fresh: Fresh) -> None:
        """Adds events; waits where too many are not stored yet.

        Raises:
            LeaseLost: another worker has the run.
        """
        first, events = fresh
        entry = self._log.append(self._run.number, self._run.fence, first, events)
        entry.add_done_callback(self._told)
        self._entries.append(entry)
        while len(self._entries) > _AHEAD:
            await self._first()

    async def stored(self) -> None:
        """Waits until all is stored.

        Raises:
            LeaseLost: another worker has the run.
        """
        while self._entries:
            await self._first()

    def check(self) -> None:
        """Says of what has been settled meanwhile whether it is stored.

        Raises:
            LeaseLost: another worker has the run.
        """
        while self._entries and self._entries[0].done():
            _settled(self._entries.popleft())

    async def over(self) -> None:
        """Waits until nothing is on its way, stored or not."""
        if self._entries:
            await asyncio.wait(self._entries)
            self._entries.clear()

    async def _first(self) -> None:
        await asyncio.wait([self._entries[0]])
        _settled(self._entries.popleft())

    def _told(self, entry: asyncio.Future[bool]) -> None:
        if entry.cancelled() or entry.exception() is not None or not entry.result():
            self._failed()


def _settled(entry: asyncio.Future[bool]) -> None:
    if not entry.result():
        raise LeaseLost
