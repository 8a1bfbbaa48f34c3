"""The brokers that are alive, and what becomes of the messages of those that are not.

A broker counts its beats in a hash. Another one is dead when its count has stood still over so many beats of our own
that were answered: no clock is compared, and an outage of Redis makes nobody dead. What a dead broker had in hand goes
back into its queues after their visibility timeout: its consumers may be at work still, and may come to us with it.

Messages may also be in the hands of a broker whose count is lost: one that read on after it was given up, or that a
Redis node counted which fell back behind the others. Each broker looks for those when it starts, when connections began
anew, and after a funeral; they count as brokers that stand still.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any, Protocol

from weft import rpc
from weft.broker.clock import Clock
from weft.broker.functions import Functions
from weft.broker.layout import GROUP, PRIORITIES
from weft.broker.queues import CONFIG_SHARD, Queue, Queues
from weft.broker.redis import ReplyError

log = logging.getLogger("weft.broker")

_BEATS = "{weft}:brokers"  # hash: instance -> beats
_MISSED = 6  # beats of ours over which another one's count stands still


class Runs(Protocol):
    """What is used of weft.broker.redis.Redis."""

    async def run(self, shard: int, *command: bytes | str | float) -> Any:
        """Sends a command that may be sent twice."""


class Instances:
    """All brokers of this Redis.

    Args:
        redis: where beats are counted.
        functions: take over.
        queues: all there are.
        clock: the broker's.
        instance: id of this one.
        beat: how often it counts.
        stale: called when this one was silent so long that the others may have given it up.
    """

    def __init__(
        self,
        *,
        redis: Runs,
        functions: Functions,
        queues: Queues,
        clock: Clock,
        instance: str,
        beat: timedelta,
        stale: Callable[[], None],
    ) -> None:
        self._redis = redis
        self._functions = functions
        self._queues = queues
        self._clock = clock
        self._instance = instance
        self._beat = beat.total_seconds()
        self._stale = stale
        self._last = monotonic()
        self._counts: dict[str, int] = {}
        self._missed: dict[str, int] = {}
        self._funerals: dict[str, asyncio.Task[None]] = {}
        self._uncounted: set[str] = set()
        self._search = True

    def fresh(self) -> bool:
        """Whether the others still count with this broker: its last beat is younger than half of what they wait."""
        return monotonic() - self._last < self._beat * _MISSED / 2

    @property
    def alive(self) -> int:
        """How many brokers there are, this one included."""
        return 1 + sum(missed < _MISSED for missed in self._missed.values())

    def search(self) -> None:
        """Looks with the next beat whether messages are in the hands of brokers that nobody counts."""
        self._search = True

    async def run(self) -> None:
        """Beats for ever; for a task of its own."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                began = monotonic()
                try:
                    with rpc.Deadline.after_seconds(self._beat * _MISSED).applied():
                        await self._redis.run(CONFIG_SHARD, "HINCRBY", _BEATS, self._instance, 1)
                        found = await self._redis.run(CONFIG_SHARD, "HGETALL", _BEATS)
                except rpc.Unavailable:
                    continue
                if not self.fresh():
                    self._stale()
                self._last = began
                self._look(found, tasks)
                if self._search:
                    self._search = False
                    tasks.create_task(self._find_uncounted())
                await asyncio.sleep(max(0.0, self._beat - (monotonic() - began)))

    async def leave(self) -> None:
        """Says that this broker is gone; it has nothing in hand any more."""
        await self._redis.run(CONFIG_SHARD, "HDEL", _BEATS, self._instance)

    def _look(self, found: list[bytes], tasks: asyncio.TaskGroup) -> None:
        counts = {
            name.decode(): int(count)
            for name, count in zip(found[::2], found[1::2], strict=True)
            if name.decode() != self._instance
        }
        self._uncounted -= counts.keys()
        counts.update(dict.fromkeys(self._uncounted, 0))
        for name in self._missed.keys() - counts.keys():
            del self._missed[name]
        for name, count in counts.items():
            moved = self._counts.get(name) != count
            self._missed[name] = 0 if moved else self._missed.get(name, 0) + 1
            if moved and (funeral := self._funerals.get(name)) is not None:
                log.warning("a broker that was silent is back", extra={"instance": name})
                funeral.cancel()
            elif self._missed[name] >= _MISSED and name not in self._funerals:
                log.warning("a broker is silent", extra={"instance": name})
                funeral = tasks.create_task(self._bury(name))
                self._funerals[name] = funeral
                funeral.add_done_callback(functools.partial(self._buried, name))
        self._counts = counts

    def _buried(self, name: str, _: asyncio.Task[None]) -> None:
        del self._funerals[name]

    async def _bury(self, dead: str) -> None:
        """Takes over all queues of a dead broker, each after its visibility timeout."""
        died = monotonic()
        order = sorted(self._queues.all(), key=lambda queue: queue.policy.visibility_timeout)
        moved = 0
        for queue in order:
            wait = died + queue.policy.visibility_timeout.total_seconds() - monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            moved += await self._take_over(queue, dead)
        while True:
            try:
                await self._redis.run(CONFIG_SHARD, "HDEL", _BEATS, dead)
                break
            except rpc.Unavailable:
                await asyncio.sleep(self._beat)
        self._uncounted.discard(dead)
        self._search = True
        log.warning("a dead broker's messages went on", extra={"instance": dead, "count": moved})

    async def _take_over(self, queue: Queue, dead: str) -> int:
        moved, more = 0, True
        while more:
            try:
                count, more = await self._functions.takeover(queue, dead, now=self._clock.now_ms())
                moved += count
            except rpc.Unavailable:
                await asyncio.sleep(self._beat)
            except ReplyError as failed:
                # The queue was removed meanwhile, most likely: the others must not wait for it.
                log.warning(
                    "a queue of a dead broker cannot be taken over",
                    extra={"queue": queue.name, "instance": dead, "why": str(failed)},
                )
                break
        return moved

    async def _find_uncounted(self) -> None:
        """Notes who has messages in hand and is not counted."""
        for queue in self._queues.all():
            try:
                holders = await self._holders(queue)
            except rpc.Unavailable:
                self._search = True
                return
            unknown = holders - self._counts.keys() - self._uncounted - {self._instance}
            for name in unknown:
                log.warning(
                    "messages are in the hands of a broker that nobody counts",
                    extra={"queue": queue.name, "instance": name},
                )
            self._uncounted |= unknown

    async def _holders(self, queue: Queue) -> set[str]:
        """The brokers that have messages of a queue in hand."""
        names: set[str] = set()
        for priority in PRIORITIES:
            try:
                pending = await self._redis.run(
                    queue.shard, "XPENDING", f"{queue.key}:{priority}", GROUP
                )
            except ReplyError:  # its streams are gone
                continue
            names.update(name.decode() for name, _ in pending[3] or ())
        return names
