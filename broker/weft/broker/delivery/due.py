"""Moves delayed messages into their streams when their time has come: one timer for all queues."""

from __future__ import annotations

import asyncio
import heapq
import logging

from weft import rpc
from weft.broker.bells import Bells
from weft.broker.clock import Clock
from weft.broker.functions import Functions
from weft.broker.layout import SHARDS
from weft.broker.redis import ReplyError

log = logging.getLogger("weft.broker")

_MOST = 200  # messages moved at a time
_AGAIN = 500  # ms after a failure


class Mover:
    """Every broker moves what is due; the moves are atomic, so it does no harm that several do.

    Args:
        functions: move.
        bells: tell of what is delayed.
        clock: the broker's.
    """

    def __init__(self, functions: Functions, bells: Bells, clock: Clock) -> None:
        self._functions = functions
        self._clock = clock
        self._due: list[tuple[int, int]] = []  # ms, shard
        self._known: dict[int, int] = {}  # shard -> earliest ms in the heap
        self._news = asyncio.Event()
        self._unheard = True
        bells.on_due(self._heard)
        bells.on_reset(self._missed)

    async def run(self) -> None:
        """Moves for ever; for a task of its own."""
        while True:
            self._news.clear()
            if self._unheard:
                await self._look()
                continue
            if not self._due:
                await self._news.wait()
                continue
            wait = self._due[0][0] - self._clock.now_ms()
            if wait > 0:
                try:
                    async with asyncio.timeout(wait / 1000):
                        await self._news.wait()
                except TimeoutError:
                    pass
                continue
            due, shard = heapq.heappop(self._due)
            if self._known.get(shard) == due:
                del self._known[shard]
                await self._move(shard)

    async def _move(self, shard: int) -> None:
        try:
            moved = await self._functions.due(shard, now=self._clock.now_ms(), limit=_MOST)
        except (rpc.Unavailable, ReplyError):
            log.warning("delayed messages wait", extra={"shard": shard}, exc_info=True)
            self._heard(shard, self._clock.now_ms() + _AGAIN)
            return
        if moved.next_due:
            self._heard(shard, moved.next_due)

    async def _look(self) -> None:
        """Asks every shard what is due first."""
        self._unheard = False
        try:
            async with asyncio.TaskGroup() as asking:
                tasks = [asking.create_task(self._functions.next_due(n)) for n in range(SHARDS)]
        except* (rpc.Unavailable, ReplyError):
            log.warning("delayed messages wait: Redis cannot be asked", exc_info=True)
            self._unheard = True
        if self._unheard:
            await asyncio.sleep(_AGAIN / 1000)
            return
        for shard, task in enumerate(tasks):
            if task.result():
                self._heard(shard, task.result())

    def _heard(self, shard: int, due: int) -> None:
        known = self._known.get(shard)
        if known is None or due < known:
            self._known[shard] = due
            heapq.heappush(self._due, (due, shard))
            self._news.set()

    def _missed(self) -> None:
        self._unheard = True
        self._news.set()
