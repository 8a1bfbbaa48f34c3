"""Gathers the publishes of all clients into batches: one function call per queue and round (group commit).

No timer: a batch is what has gathered while the rounds before it were under way. Two rounds of a queue may be under way,
one while messages with keys are: a batch that fails and is repeated must not fall behind its successor.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from time import monotonic
from typing import Protocol

from weft import rpc
from weft.broker.clock import Clock
from weft.broker.errors import QueueFull, RateLimited, StoreUnavailable
from weft.broker.functions import ACCEPTED, DUPLICATE, FULL, Functions, Published
from weft.broker.queues import Queue
from weft.broker.redis import StoreRefuses

log = logging.getLogger("weft.broker")

_MOST_MESSAGES = 256
_MOST_BYTES = 1024 * 1024
_UNDER_WAY = 2
_PATIENCE = timedelta(seconds=10)
_FIRST_PAUSE, _LAST_PAUSE = 0.01, 0.25  # in s
# Said by a server that is starting or handing over to another: soon there is one that takes the batch. One that is full
# or cannot write says something else, and the publisher hears of it at once.
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


class Takes(Protocol):
    """What is used of weft.broker.delivery.Post."""

    async def reserve(self) -> int:
        """How many messages a publish may take for consumers at once."""

    def took(self, taken: Sequence[tuple[bytes, bytes]]) -> None:
        """Which it took."""

    def missed(self) -> None:
        """Nobody knows."""


class Rounds:
    """All batches. `settle` ends when none is left.

    Args:
        functions: stores them.
        clock: the broker's.
        post: where a queue is delivered by this broker, None: nowhere. Its consumers are given at once what is stored.
        patience: for how long a batch is repeated, from when its first message came.
    """

    def __init__(
        self,
        functions: Functions,
        clock: Clock,
        *,
        post: Callable[[str], Takes | None] = lambda _: None,
        patience: timedelta = _PATIENCE,
    ) -> None:
        self.functions = functions
        self.clock = clock
        self.post = post
        self.patience = patience.total_seconds()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        # A round serves many callers: the deadline and identity of whoever began it must not follow it about.
        self._context = contextvars.Context()

    def put(
        self, queue: Queue, durability: int, packed: bytes, sink: Sink, number: int, *, keyed: bool
    ) -> None:
        """Adds a message to the next batch of its queue."""
        lane = self._lanes.get((queue.name, durability))
        if lane is None or lane.queue is not queue:
            lane = self._lanes[queue.name, durability] = _Lane(self, queue, durability)
        batch, size = lane.last, len(packed)
        if len(batch.entries) >= _MOST_MESSAGES or (
            batch.entries and batch.size + size > _MOST_BYTES
        ):
            batch = lane.next()
        batch.entries.append(packed)
        batch.owners.append((sink, number))
        batch.size += size
        if keyed:
            batch.keyed = True
        if not lane.scheduled and lane.under_way < _UNDER_WAY:
            lane.scheduled = True
            self._loop.call_soon(lane.flush, context=self._context)

    def start(self, lane: _Lane, batch: _Batch) -> None:
        """Runs a round."""
        task = self._loop.create_task(lane.round(batch), context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def idle(self, lane: _Lane) -> None:
        """Forgets a lane that has nothing to do."""
        if self._lanes.get((lane.queue.name, lane.durability)) is lane:
            del self._lanes[lane.queue.name, lane.durability]

    async def settle(self) -> None:
        """Returns when every message has been answered."""
        while self._lanes or self._tasks:
            if self._tasks:
                await asyncio.wait(self._tasks)
            else:
                await asyncio.sleep(0)  # the first round is about to start


class _Batch:
    """Messages that are stored by one call."""

    __slots__ = ("born", "entries", "keyed", "owners", "size")

    def __init__(self) -> None:
        self.born = monotonic()
        self.entries: list[bytes] = []
        self.owners: list[tuple[Sink, int]] = []
        self.size = 0
        self.keyed = False


class _Lane:
    """What gathers for one queue and durability. The last batch is the one that still grows."""

    __slots__ = (
        "_batches",
        "_keyed_under_way",
        "_rounds",
        "durability",
        "last",
        "queue",
        "scheduled",
        "under_way",
    )

    def __init__(self, rounds: Rounds, queue: Queue, durability: int) -> None:
        self._rounds = rounds
        self.queue = queue
        self.durability = durability
        self._batches: deque[_Batch] = deque()
        self._keyed_under_way = False
        self.scheduled = False
        self.under_way = 0
        self.last = self.next()

    def next(self) -> _Batch:
        """Begins another batch."""
        self.last = _Batch()
        self._batches.append(self.last)
        return self.last

    def flush(self) -> None:
        """Sends what has gathered, as far as rounds are free."""
        self.scheduled = False
        while (batch := self._batches[0]).entries:
            alone = batch.keyed or self._keyed_under_way
            if self.under_way >= (1 if alone else _UNDER_WAY):
                return
            self._batches.popleft()
            if not self._batches:
                self.next()
            self.under_way += 1
            self._keyed_under_way = self._keyed_under_way or batch.keyed
            self._rounds.start(self, batch)
        if not self.under_way:
            self._rounds.idle(self)

    async def round(self, batch: _Batch) -> None:
        """Stores a batch and tells its owners."""
        owners = batch.owners
        try:
            await self._store(batch)
        except rpc.Error as failed:
            for sink, number in owners:
                sink.refused(number, failed)
        except Exception:
            log.exception("a batch could not be stored", extra={"queue": self.queue.name})
            unknown = rpc.Internal()
            for sink, number in owners:
                sink.refused(number, unknown)
        finally:
            self.under_way -= 1
            if not self.under_way:
                self._keyed_under_way = False
            for sink in {sink for sink, _ in owners}:
                sink.settled()
            self.flush()

    async def _store(self, batch: _Batch) -> None:
        owners = batch.owners
        window = self.queue.policy.dedupe_window.total_seconds()
        patience = batch.born + self._rounds.patience
        # Ids are remembered for so long: after that it would be stored twice.
        remembered = monotonic() + window
        pause, unsure = _FIRST_PAUSE, False
        while True:
            try:
                published = await self._publish(batch)
                break
            except StoreUnavailable as failed:
                if not isinstance(failed, StoreRefuses):
                    unsure = True  # it may be stored
                elif failed.refusal not in _PASSING:
                    raise
                give_up = min(patience, remembered) if unsure else patience
                if monotonic() + pause > give_up:
                    raise
            await asyncio.sleep(pause)
            pause = min(_LAST_PAUSE, pause * 2)
        retry_after = timedelta(milliseconds=published.retry_after_ms)
        for code, (sink, number) in zip(published.codes, owners, strict=True):
            if code == ACCEPTED:
                sink.accepted(number)
            elif code == DUPLICATE:
                # Of a batch that was sent before it may be this very message that is there.
                (sink.accepted if unsure else sink.duplicate)(number)
            else:
                sink.refused(
                    number, (QueueFull if code == FULL else RateLimited)(retry_after=retry_after)
                )

    async def _publish(self, batch: _Batch) -> Published:
        functions, now = self._rounds.functions, self._rounds.clock.now_ms()
        post = self._rounds.post(self.queue.name)
        if post is None or not (room := await post.reserve()):
            return await functions.publish(
                self.queue, batch.entries, now=now, durability=self.durability
            )
        try:
            published = await functions.publish(
                self.queue, batch.entries, now=now, durability=self.durability, take=room
            )
        except BaseException:
            post.missed()
            raise
        post.took(published.taken)
        return published
