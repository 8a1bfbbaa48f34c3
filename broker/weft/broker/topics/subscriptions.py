"""Subscriptions: durable records in Redis, in the memory of every broker.

A counter in Redis is the version of the records: it is counted up before a `Subscribe` is answered, and read before
messages are routed. So whoever routes a message that was accepted after that answer knows the subscription, with no bell
that could be missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from weft import rpc
from weft.broker.bells import Bells
from weft.broker.topics.patterns import Patterns
from weft.v1 import broker_pb2 as pb

_CONFIG_SHARD = -1
_RECORDS = "{weft}:subs"  # hash: name -> serialized weft.v1.Subscription
_VERSIONS = "{weft}:versions"  # hash: what -> how often it changed
_VERSION = "subs"
_UNKNOWN = -1


class Stores(Protocol):
    """What is used of weft.broker.redis.Redis."""

    async def run(self, shard: int, *command: bytes | str | float) -> Any:
        """Sends a command that may be sent twice."""

    def send_durably(
        self, shard: int, *command: bytes | str | float, durability: int = 0
    ) -> asyncio.Future[Any]:
        """Sends a command once; done when its effect is as safe as asked."""


class Subscriptions:
    """All of them. The table is as new as the last `fresh`.

    Args:
        redis: where they are kept.
        bells: say when Redis may have become another one.
    """

    def __init__(self, redis: Stores, bells: Bells) -> None:
        self._redis = redis
        self._version = _UNKNOWN
        self._records: dict[bytes, bytes] = {}
        self._table: dict[str, pb.Subscription] = {}
        self._patterns: Patterns[tuple[str, str]] = Patterns()
        self._begun = 0  # reads
        self._ended = 0
        self._reading: asyncio.Event | None = None
        self._failed: tuple[int, rpc.Unavailable] | None = None
        bells.on_reset(self._doubt)

    @property
    def table(self) -> Mapping[str, pb.Subscription]:
        """By name."""
        return self._table

    def queues_for(self, topic: str) -> set[str]:
        """Queues that get a copy of a topic's messages."""
        return {queue for _, queue in self._patterns.matching(topic)}

    async def fresh(self) -> None:
        """Returns when the table has all that was answered before this call. Calls at the same time share a read.

        Raises:
            rpc.Unavailable: Redis is away.
        """
        came = self._begun
        while self._ended <= came:  # no read that began after this call has ended yet
            if self._reading is None:
                await self._read()
            else:
                await self._reading.wait()
        if self._failed is not None and self._failed[0] > came:
            raise self._failed[1]

    async def _read(self) -> None:
        self._begun += 1
        number = self._begun
        reading = self._reading = asyncio.Event()
        try:
            found = await self._redis.run(_CONFIG_SHARD, "HGET", _VERSIONS, _VERSION)
            version = int(found or 0)
            if version != self._version:
                # Read after the version: they are as new as it says, or newer.
                self._take(await self._redis.run(_CONFIG_SHARD, "HGETALL", _RECORDS))
                self._version = version
        except rpc.Unavailable as failed:
            self._failed = (number, failed)
            self._ended = number
        else:
            self._failed = None
            self._ended = number
        finally:
            self._reading = None
            reading.set()

    async def keep(self, subscription: pb.Subscription) -> None:
        """Keeps one, instead of a former one of its name. Every broker routes by it when this returns.

        Raises:
            rpc.Unavailable: it is not known to be kept; try again.
        """
        record = subscription.SerializeToString(deterministic=True)
        await self._redis.run(_CONFIG_SHARD, "HSET", _RECORDS, subscription.name, record)
        await self._changed()

    async def drop(self, name: str) -> None:
        """Ends one.

        Raises:
            rpc.Unavailable: it is not known to have ended; try again.
        """
        await self._redis.run(_CONFIG_SHARD, "HDEL", _RECORDS, name)
        await self._changed()

    async def _changed(self) -> None:
        # As safe as a durable publish: a barrier covers all that Redis did before it.
        await self._redis.send_durably(_CONFIG_SHARD, "HINCRBY", _VERSIONS, _VERSION, 1)
        await self.fresh()

    def _doubt(self) -> None:
        self._version = _UNKNOWN

    def _take(self, found: list[bytes]) -> None:
        records = dict(zip(found[::2], found[1::2], strict=True))
        for name, record in self._records.items():
            if records.get(name) != record:
                former = self._table.pop(name.decode())
                self._patterns.remove(former.pattern, (former.name, former.queue))
        for name, record in records.items():
            if self._records.get(name) != record:
                one = pb.Subscription.FromString(record)
                self._table[name.decode()] = one
                self._patterns.add(one.pattern, (one.name, one.queue))
        self._records = records
