"""The broker's own metrics of its queues: what waits in them, for how long, and who consumes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic

from weft import rpc
from weft.broker.clock import Clock
from weft.broker.functions import Counts, Functions
from weft.broker.queues import Queue, Queues
from weft.telemetry import Instruments
from weft.v1 import broker_pb2 as pb

log = logging.getLogger("weft.broker")

_EVERY = 5.0  # seconds
_REST = 50  # times as long as counting took: with thousands of queues it is done less often
_AT_ONCE = 64  # queues asked at a time, so that a long list delays no message


class Figures:
    """Counts what is in the queues.

    Args:
        queues: all there are.
        functions: count them.
        clock: the broker's.
        consumers: tells who consumes a queue here.
        metrics: where it is shown.
    """

    def __init__(
        self,
        *,
        queues: Queues,
        functions: Functions,
        clock: Clock,
        consumers: Callable[[str], Sequence[pb.ConsumerStatus]],
        metrics: Instruments,
    ) -> None:
        self._queues = queues
        self._functions = functions
        self._clock = clock
        self._consumers = consumers
        self._metrics = metrics
        self._shown: set[str] = set()

    async def run(self) -> None:
        """Counts until cancelled; for a task of its own."""
        while True:
            began = monotonic()
            try:
                await self._count()
            except rpc.Error as failed:
                log.debug("queues cannot be counted now", exc_info=failed)
            await asyncio.sleep(max(_EVERY, (monotonic() - began) * _REST))

    async def _count(self) -> None:
        queues = self._queues.all()
        for start in range(0, len(queues), _AT_ONCE):
            some = queues[start : start + _AT_ONCE]
            for queue, counts in zip(
                some, await asyncio.gather(*map(self._functions.counts, some)), strict=True
            ):
                self._show(queue, counts)
        there = {queue.name for queue in queues}
        for name in self._shown - there:
            self._forget(name)
        self._shown = there

    def _show(self, queue: Queue, counts: Counts) -> None:
        metrics, name = self._metrics, queue.name
        for state, number in _STATES.items():
            metrics.queue_messages.labels(name, state).set(number(counts))
        age = max(0, self._clock.now_ms() - counts.oldest) / 1_000 if counts.oldest else 0.0
        metrics.queue_oldest.labels(name).set(age)
        metrics.queue_consumers.labels(name).set(len(self._consumers(name)))

    def _forget(self, name: str) -> None:
        metrics = self._metrics
        for state in _STATES:
            metrics.queue_messages.remove(name, state)
        metrics.queue_oldest.remove(name)
        metrics.queue_consumers.remove(name)


_STATES: dict[str, Callable[[Counts], int]] = {
    "ready": lambda counts: max(0, counts.depth - counts.delayed - counts.pending - counts.blocked),
    "delayed": lambda counts: counts.delayed,
    "pending": lambda counts: counts.pending,
    "blocked": lambda counts: counts.blocked,
    "dead": lambda counts: counts.dead,
}
