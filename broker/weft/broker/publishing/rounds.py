"""Gathers the publishes of all clients into batches: one function call per queue and round (group commit).

No timer: a batch is what has gathered while the rounds before it were under way. Two rounds of a queue may be under way,
one while messages with keys are: a batch that fails and is repeated must not fall behind its successor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from time import monotonic
from typing import Any, Protocol

from weft import rpc
from weft.broker.clock import Clock
from weft.broker.errors import QueueFull, RateLimited
from weft.broker.functions import ACCEPTED, DUPLICATE, FULL, Functions
from weft.broker.queues import Queue
from weft.broker.redis import ConnectionLost, StoreRefuses

_MOST_MESSAGES = 256
_MOST_BYTES = 1024 * 1024
_UNDER_WAY = 2
_PATIENCE = 10.0  # seconds for which a batch is repeated
_FIRST_PAUSE, _LAST_PAUSE = 0.01, 0.25
# Said by a server that is starting or handing over to another: soon there is one that takes the batch.
_PASSING = frozenset({"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "UNBLOCKED"})


class Sink(Protocol):
    """Who is told what became of a message."""

    def accepted(self, number: int) -> None:
        """It is stored, as safe as asked."""

    def duplicate(self, number: int) -> None:
        """It was stored before."""

    def refused(self, number: int, error: rpc.Error) -> None:
        """It is not stored, or nothing is known of it."""

    def settled(self) -> None:
        """That was all of a batch."""


class Rounds:
    """All batches. `settle` ends when none is left.

    Args:
        functions: stores them.
        clock: the broker's.
    """

    def __init__(self, functions: Functions, clock: Clock) -> None:
        self.functions = functions
        self.clock = clock
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def put(
        self, queue: Queue, durability: int, packed: bytes, sink: Sink, number: int, *, keyed: bool
    ) -> None:
        """Adds a message to the next batch of its queue."""
        lane = self._lanes.get((queue.name, durability))
        if lane is None or lane.queue is not queue:
            lane = self._lanes[queue.name, durability] = _Lane(self, queue, durability)
        lane.entries.append(packed)
        lane.owners.append((sink, number))
        if keyed:
            lane.keyed = True
        if not lane.scheduled and lane.under_way < _UNDER_WAY:
            lane.scheduled = True
            self._loop.call_soon(lane.flush)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a round."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Returns when every message has been answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)


class _Lane:
    """What gathers for one queue and durability."""

    __slots__ = (
        "durability",
        "entries",
        "keyed",
        "keyed_under_way",
        "owners",
        "queue",
        "rounds",
        "scheduled",
        "under_way",
    )

    def __init__(self, rounds: Rounds, queue: Queue, durability: int) -> None:
        self.rounds = rounds
        self.queue = queue
        self.durability = durability
        self.entries: list[bytes] = []
        self.owners: list[tuple[Sink, int]] = []
        self.keyed = False
        self.keyed_under_way = False
        self.scheduled = False
        self.under_way = 0

    def flush(self) -> None:
        """Sends what has gathered, as far as rounds are free."""
        self.scheduled = False
        while self.entries:
            alone = self.keyed or self.keyed_under_way
            if self.under_way >= (1 if alone else _UNDER_WAY):
                return
            entries, owners = self._next()
            self.under_way += 1
            self.keyed_under_way = self.keyed_under_way or self.keyed
            if not self.entries:
                self.keyed = False
            self.rounds.start(self._round(entries, owners))

    def _next(self) -> tuple[list[bytes], list[tuple[Sink, int]]]:
        entries, owners = self.entries, self.owners
        count = min(len(entries), _MOST_MESSAGES)
        if sum(map(len, entries[:count])) > _MOST_BYTES:
            size = count = 0
            for entry in entries:
                size += len(entry)
                if count and size > _MOST_BYTES:
                    break
                count += 1
        self.entries, self.owners = entries[count:], owners[count:]
        return entries[:count], owners[:count]

    async def _round(self, entries: list[bytes], owners: list[tuple[Sink, int]]) -> None:
        try:
            await self._store(entries, owners)
        except rpc.Error as failed:
            for sink, number in owners:
                sink.refused(number, failed)
        except Exception:
            for sink, number in owners:
                sink.refused(number, rpc.Internal())
            raise
        finally:
            self.under_way -= 1
            if not self.under_way:
                self.keyed_under_way = False
            for sink in {sink for sink, _ in owners}:
                sink.settled()
            self.flush()

    async def _store(self, entries: list[bytes], owners: list[tuple[Sink, int]]) -> None:
        functions, clock = self.rounds.functions, self.rounds.clock
        give_up = monotonic() + _PATIENCE
        pause, repeated = _FIRST_PAUSE, False
        while True:
            try:
                published = await functions.publish(
                    self.queue, entries, now=clock.now_ms(), durability=self.durability
                )
                break
            except (ConnectionLost, StoreRefuses) as failed:
                if isinstance(failed, StoreRefuses) and failed.refusal not in _PASSING:
                    raise
                # With no memory of ids it might be stored twice: whoever publishes must decide.
                if not self.queue.policy.dedupe_window or monotonic() + pause > give_up:
                    raise
            repeated = True
            await asyncio.sleep(pause)
            pause = min(_LAST_PAUSE, pause * 2)
        for code, (sink, number) in zip(published.codes, owners, strict=True):
            if code == ACCEPTED:
                sink.accepted(number)
            elif code == DUPLICATE:
                # Of a batch that was sent before it may be this very message that is there.
                (sink.accepted if repeated else sink.duplicate)(number)
            else:
                kind = QueueFull if code == FULL else RateLimited
                sink.refused(
                    number, kind(retry_after=timedelta(milliseconds=published.retry_after_ms))
                )
