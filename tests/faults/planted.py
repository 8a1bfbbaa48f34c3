"""Bugs for the broker, by which the suite shows that it finds such: `WEFT_BROKER_PLANT` or `run.py --plant` names one.

ack-before-store   a publish is acknowledged before Redis has it
lose-redelivery    of the messages that go back into their queue, every fifth is dropped
reorder-key        of the messages that wait for their key, the last is let in first
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

from weft.broker import functions, server
from weft.broker.functions import ACCEPTED, Ack, Functions, Published, Retry, Settled
from weft.broker.queues import Queue


def _ack_before_store() -> None:
    store = Functions.publish
    under_way: set[asyncio.Task[Published]] = set()

    async def publish(
        self: Functions,
        queue: Queue,
        entries: Sequence[bytes],
        *,
        now: int,
        durability: int,
        take: int = 0,  # nothing is: whoever asks is told before anything is there
    ) -> Published:
        task = asyncio.create_task(store(self, queue, entries, now=now, durability=durability))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return Published(
            codes=bytes([ACCEPTED]) * len(entries), retry_after_ms=0, total=0, ready=0, due=0
        )

    Functions.publish = publish  # type: ignore[method-assign]


def _lose_redelivery() -> None:
    put_back = Functions.retry
    numbers = itertools.count(1)

    async def retry(
        self: Functions, queue: Queue, retries: Sequence[Retry], *, now: int
    ) -> Settled:
        kept = []
        for one in retries:
            if next(numbers) % 5:
                kept.append(one)
            else:
                await self.ack(queue, [Ack(lease_id=one.lease_id, size=0)], now=now)
        return await put_back(self, queue, kept, now=now)

    Functions.retry = retry  # type: ignore[method-assign]


def _reorder_key() -> None:
    first, last = "redis.call('LPOP', base .. ':w:'", "redis.call('RPOP', base .. ':w:'"
    assert first in functions.SOURCE
    server.SOURCE = functions.SOURCE.replace(first, last)  # type: ignore[attr-defined]


PLANTS: dict[str, Callable[[], None]] = {
    "ack-before-store": _ack_before_store,
    "lose-redelivery": _lose_redelivery,
    "reorder-key": _reorder_key,
}
