"""Notices when Redis comes back older than it was: from a snapshot, or as a replica that lagged.

Every queue counts the messages it has accepted. Brokers remember the counts, in memory and in PostgreSQL: a count that is
lower than its mark is a loss. It is logged, counted, and told by Describe for a day; it is never silent.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Protocol

from weft import rpc
from weft.broker.bells import Bells
from weft.broker.functions import Functions
from weft.broker.queues import Queue, Queues
from weft.postgres import Database
from weft.telemetry import Telemetry

log = logging.getLogger("weft.broker")

_SAVED = 1.0  # seconds between saves
_TOLD = timedelta(days=1).total_seconds()
_AGAIN = 1.0


class Runs(Protocol):
    """What is used of weft.broker.redis.Redis."""

    async def run(self, shard: int, *command: bytes | str | float) -> Any:
        """Sends a command that may be sent twice."""


class Marks:
    """The marks of all queues.

    Args:
        redis: where queues count.
        functions: tell of publishes.
        queues: all there are.
        bells: tell when Redis may have become another one.
        database: keeps marks; None: they last as long as this process.
        telemetry: where losses are counted; None: nowhere.
    """

    def __init__(
        self,
        *,
        redis: Runs,
        functions: Functions,
        queues: Queues,
        bells: Bells,
        database: Database | None,
        telemetry: Telemetry | None,
    ) -> None:
        self._redis = redis
        self._queues = queues
        self._database = database
        self._lost = telemetry.metrics.broker_data_loss if telemetry else None
        self._marks: dict[str, int] = {}
        self._unsaved: set[str] = set()
        self._losses: dict[str, tuple[float, str]] = {}
        self._doubtful = asyncio.Event()
        self._doubtful.set()
        functions.on_published(self._saw)
        queues.on_change(self._changed)
        bells.on_reset(self._doubtful.set)

    def loss(self, queue: str) -> str:
        """What is known to be lost of a queue, in words; empty: nothing."""
        noticed, text = self._losses.get(queue, (0.0, ""))
        return text if noticed and monotonic() - noticed < _TOLD else ""

    async def load(self) -> None:
        """Reads the marks of former brokers; before anything is published."""
        if self._database is None:
            return
        for row in await self._database.fetch("load_marks"):
            name, published = row["queue"], row["published"]
            self._marks[name] = max(published, self._marks.get(name, 0))
            if self._queues.get(name) is None:
                self._report(name, published, "the queue itself is gone")

    async def run(self) -> None:
        """Compares and saves for ever; for a task of its own."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._compare_for_ever())
            tasks.create_task(self._save_for_ever())

    def _saw(self, queue: Queue, total: int, lost: int) -> None:
        if lost:
            self._report(queue.name, lost, "its count of accepted messages went back")
            self._marks[queue.name] = total
            self._unsaved.add(queue.name)
        elif total > self._marks.get(queue.name, 0):
            self._marks[queue.name] = total
            self._unsaved.add(queue.name)

    def _changed(self, name: str) -> None:
        if self._queues.get(name) is None:
            # Deleted by somebody, or lost with a Redis that came back empty: comparing tells which.
            self._doubtful.set()

    async def _compare_for_ever(self) -> None:
        while True:
            await self._doubtful.wait()
            self._doubtful.clear()
            try:
                await self._compare()
            except rpc.Unavailable:
                await asyncio.sleep(_AGAIN)
                self._doubtful.set()

    async def _compare(self) -> None:
        for name, mark in list(self._marks.items()):
            queue = self._queues.get(name)
            if queue is None:
                continue
            found = await self._redis.run(queue.shard, "HGET", f"{queue.key}:m", "p")
            count = int(found or 0)
            if count < mark:
                self._report(name, mark - count, "its count of accepted messages went back")
                self._marks[name] = count
                self._unsaved.add(name)

    def _report(self, name: str, lost: int, why: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._losses[name] = (
            monotonic(),
            f"Redis lost at least {lost} accepted messages of this queue; noticed {now}",
        )
        log.error("Redis lost messages", extra={"queue": name, "lost": lost, "why": why})
        if self._lost is not None:
            self._lost.labels(name).inc(lost)

    async def forget(self, name: str) -> None:
        """The queue was deleted on purpose: that is no loss."""
        self._marks.pop(name, None)
        self._losses.pop(name, None)
        if self._database is not None:
            await self._database.execute("drop_mark", name)

    async def _save_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_SAVED)
            names = list(self._unsaved)
            if not names or self._database is None:
                continue
            self._unsaved.clear()
            try:
                await self._database.execute(
                    "save_marks", names, [self._marks.get(name, 0) for name in names]
                )
            except rpc.Error:
                log.warning("marks were not saved yet", exc_info=True)
                self._unsaved.update(names)
