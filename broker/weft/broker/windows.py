"""Turns dedupe windows: the ids of a queue are kept in two sets, and the older one is dropped when a window is over.

A window lasts at least as long as the queue's policy says, by the monotonic clock of a broker that saw it begin: an id is
recognised for one window at least and two at most, whatever the clocks of Redis or the brokers do. Several brokers may
turn a queue's windows; a turn names the generation that it ends, so that each ends once.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from dataclasses import dataclass
from time import monotonic

from weft import rpc
from weft.broker.functions import Functions
from weft.broker.queues import Queue, Queues

log = logging.getLogger("weft.broker")

_QUIET_TURNS = 2  # after the last publish: both sets are empty then
_AGAIN = 1.0  # seconds after a turn that failed


@dataclass(slots=True)
class _Window:
    generation: int
    touched: bool = True
    quiet: int = 0


class Windows:
    """The windows of all queues that this broker publishes to.

    Args:
        functions: turns them, and tells of publishes.
        queues: all there are.
    """

    def __init__(self, functions: Functions, queues: Queues) -> None:
        self._functions = functions
        self._queues = queues
        self._windows: dict[str, _Window] = {}
        self._ends: list[tuple[float, str]] = []
        self._more = asyncio.Event()
        functions.on_published(self._touch)

    async def run(self) -> None:
        """Turns windows for ever; for a task of its own."""
        while True:
            self._more.clear()
            wait = self._ends[0][0] - monotonic() if self._ends else None
            if wait is None or wait > 0:
                try:
                    async with asyncio.timeout(wait):
                        await self._more.wait()
                except TimeoutError:
                    pass
                continue
            _, name = heapq.heappop(self._ends)
            await self._turn(name)

    def _touch(self, queue: Queue, _total: int, _lost: int) -> None:
        window = self._windows.get(queue.name)
        if window is not None:
            window.touched = True
        elif queue.policy.dedupe_window:
            # Which generation it is turns out at the first turn, which ends none: -1 is never the current one.
            self._windows[queue.name] = _Window(-1)
            self._arm(queue)

    def _arm(self, queue: Queue, seconds: float | None = None) -> None:
        span = queue.policy.dedupe_window.total_seconds() if seconds is None else seconds
        heapq.heappush(self._ends, (monotonic() + span, queue.name))
        self._more.set()

    async def _turn(self, name: str) -> None:
        queue, window = self._queues.get(name), self._windows[name]
        if queue is None:
            del self._windows[name]
            return
        try:
            known = window.generation
            window.generation = await self._functions.rotate(queue, known)
        except rpc.Error:
            log.warning("a dedupe window was not turned yet", extra={"queue": name})
            self._arm(queue, _AGAIN)
            return
        window.quiet = 0 if window.touched else window.quiet + 1
        window.touched = False
        if window.quiet > _QUIET_TURNS:
            del self._windows[name]
        else:
            self._arm(queue)
