r"""Copies messages of topics to the queues that subscribe.

A message is copied under its own id, so whatever is copied again, after a router died or a copy was refused, is a
duplicate to the queues that have it. It is acknowledged when every copy is accepted. What was accepted beside a copy that
was refused is written down, since retries may take longer than a dedupe window:

    {w17}:f:<sender\0id>   set of queues that have their copy, for a week
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol

from weft import rpc
from weft.broker import layout
from weft.broker.clock import Clock
from weft.broker.layout import Entry
from weft.broker.publishing.routing import Routed
from weft.broker.queues import Queue, Queues
from weft.broker.topics.copies import Copies
from weft.broker.topics.subscriptions import Subscriptions
from weft.v1 import message_pb2
from weft.v1.message_pb2 import Message

log = logging.getLogger("weft.broker")

_NOTES_LAST = timedelta(days=7)
# Ids of younger messages are in every dedupe window, and a first attempt has no notes.
_YOUNG = timedelta(seconds=30)
_MOST_NAMED = 5


class CopiesRefused(rpc.ResourceExhausted):
    """Some queues did not take their copy: an attempt that failed, which is not so while Redis is away."""

    reason = "COPIES_REFUSED"


class Runs(Protocol):
    """What is used of weft.broker.redis.Redis."""

    async def run(self, shard: int, *command: bytes | str | float) -> Any:
        """Sends a command that may be sent twice."""


class Router:
    """Routes.

    Args:
        redis: has the notes.
        subscriptions: tell which queues get a copy.
        queues: all there are.
        copies: puts them.
        clock: the broker's.
    """

    def __init__(
        self,
        *,
        redis: Runs,
        subscriptions: Subscriptions,
        queues: Queues,
        copies: Copies,
        clock: Clock,
    ) -> None:
        self._redis = redis
        self._subscriptions = subscriptions
        self._queues = queues
        self._copies = copies
        self._clock = clock

    async def route(self, shard: int, entry: Entry) -> None:
        """Copies a message of a topic queue in `shard`; returns when all copies are accepted.

        Raises:
            CopiesRefused: the message must be tried again.
            rpc.Unavailable: the same, and it is nobody's fault.
        """
        await self._subscriptions.fresh()
        message = Message.FromString(entry.message)
        targets = self._subscriptions.queues_for(message.topic)
        if not targets:
            return
        notes = f"{layout.tag(shard)}:f:".encode() + entry.identity
        age = self._clock.now_ms() - entry.published
        seasoned = entry.attempt > 1 or age > _YOUNG.total_seconds() * 1000
        if seasoned:
            have = await self._redis.run(shard, "SMEMBERS", notes)
            targets -= {name.decode() for name in have}
        queues = [queue for name in sorted(targets) if (queue := await self._queue(name, message))]
        copies = [(queue, self._copy(entry, message, queue)) for queue in queues]
        refusals = await self._copies.put(copies)
        if not refusals:
            if seasoned:
                await self._redis.run(shard, "DEL", notes)
            return
        accepted = [queue.name for queue in queues if queue.name not in refusals]
        if accepted:
            await self._redis.run(shard, "SADD", notes, *accepted)
            span = int(_NOTES_LAST.total_seconds())
            await self._redis.run(shard, "EXPIRE", notes, span)
        away = [why for why in refusals.values() if isinstance(why, rpc.Unavailable)]
        if len(away) == len(refusals):
            raise away[0]
        raise CopiesRefused(_summary(refusals, len(queues)))

    async def _queue(self, name: str, message: Message) -> Queue | None:
        """The queue of a subscription, also if another broker made it a moment ago."""
        found = await self._queues.find(name)
        if found is None:
            log.warning(
                "a subscription's queue is gone: it gets no copy",
                extra={"queue": name, "topic": message.topic},
            )
        return found

    def _copy(self, entry: Entry, message: Message, queue: Queue) -> Routed:
        """A copy as the publisher asked for it; what is handed to an internal consumer has not all of it."""
        return Routed(
            entry.message,
            entry.identity,
            entry.key,
            message.priority or message_pb2.PRIORITY_NORMAL,
            published=self._clock.now_ms(),
            expires=message.expire_time.ToMilliseconds() if message.HasField("expire_time") else 0,
            queue=queue.name,
        )


def _summary(refusals: Mapping[str, rpc.Error], count: int) -> str:
    named = ", ".join(f"{name}: {why.reason}" for name, why in list(refusals.items())[:_MOST_NAMED])
    more = ", ..." if len(refusals) > _MOST_NAMED else ""
    return f"{len(refusals)} of {count} queues did not take their copy ({named}{more})"
