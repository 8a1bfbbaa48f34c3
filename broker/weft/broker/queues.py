"""The queues there are, with their policies: durable in Redis, in the memory of every broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.field_mask_pb2 import FieldMask

from weft.broker import layout
from weft.broker.bells import Bells
from weft.broker.errors import QueueUnknown
from weft.broker.functions import Functions
from weft.broker.policy import Policy, merged, parse
from weft.v1 import broker_pb2, message_pb2

log = logging.getLogger("weft.broker")

CONFIG_SHARD = -1
_QUEUES = "{weft}:queues"  # hash: name -> serialized SetQueueRequest (queue, policy)
_PAUSED = "{weft}:paused"  # set of names
_CHANGED = b"queues"


class Runs(Protocol):
    """What is used of weft.broker.redis.Redis."""

    async def run(self, shard: int, *command: bytes | str | float) -> object:
        """Sends a command that may be sent twice."""


@dataclass(slots=True)
class Queue:
    """A queue as a broker has it in mind. `accepted`: how many messages it is known to have accepted."""

    name: str
    policy: Policy
    paused: bool = False
    accepted: int = 0
    shard: int = field(init=False)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.shard = layout.shard_of(self.name)
        self.key = layout.queue_key(self.name)


class Queues:
    """All queues by name. Changes made by other brokers arrive by the bell.

    Args:
        redis: where they are kept.
        functions: makes the streams of a new one.
        bells: tells and hears of changes.
    """

    def __init__(self, redis: Runs, functions: Functions, bells: Bells) -> None:
        self._redis = redis
        self._functions = functions
        self._bells = bells
        self._queues: dict[str, Queue] = {}
        self._records: dict[str, message_pb2.QueuePolicy] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._making: dict[str, asyncio.Lock] = {}
        self._stale = asyncio.Event()
        bells.on_change(self._heard)
        bells.on_reset(self._stale.set)

    def get(self, name: str) -> Queue | None:
        """The queue, if there is one."""
        return self._queues.get(name)

    def known(self, name: str) -> Queue:
        """The queue.

        Raises:
            QueueUnknown: there is none.
        """
        found = self._queues.get(name)
        if found is None:
            raise QueueUnknown(f"There is no queue {name!r}.", metadata={"queue": name})
        return found

    async def find(self, name: str) -> Queue | None:
        """The queue, looked up in Redis if this broker does not know it: another one may have made it a moment ago."""
        found = self._queues.get(name)
        if found is None and await self._redis.run(CONFIG_SHARD, "HEXISTS", _QUEUES, name):
            await self.load()
            found = self._queues.get(name)
        return found

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._queues)

    def all(self) -> list[Queue]:
        """All queues."""
        return list(self._queues.values())

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Calls `listener` with the name of each queue that is made, changed, paused, resumed or removed."""
        self._listeners.append(listener)

    def policy_record(self, name: str) -> message_pb2.QueuePolicy:
        """The policy as it was set, without the defaults."""
        return self._records[name]

    async def load(self) -> None:
        """Reads all queues; at start and whenever something may have changed unheard."""
        self._stale.clear()
        found = await self._redis.run(CONFIG_SHARD, "HGETALL", _QUEUES)
        paused = await self._redis.run(CONFIG_SHARD, "SMEMBERS", _PAUSED)
        assert isinstance(found, list | dict)
        assert isinstance(paused, list | set)
        pairs = (
            found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        )
        asleep = {name.decode() for name in paused}
        fresh: set[str] = set()
        for name, record in pairs:
            request = broker_pb2.SetQueueRequest.FromString(record)
            fresh.add(name.decode())
            self._keep(name.decode(), request.policy, paused=name.decode() in asleep)
        for name in self._queues.keys() - fresh:
            del self._queues[name]
            self._records.pop(name, None)
            self._tell(name)

    async def run(self) -> None:
        """Follows changes for ever; for a task of its own."""
        while True:
            await self._stale.wait()
            await self.load()

    async def declare(self, name: str, policy: message_pb2.QueuePolicy | None = None) -> Queue:
        """The queue, made now if there is none. An existing one keeps its policy."""
        lock = self._making.setdefault(name, asyncio.Lock())
        async with lock:
            if (found := self._queues.get(name)) is not None:
                return found
            await self._store(name, policy or message_pb2.QueuePolicy(), only_new=True)
            await self.load()
            return self.known(name)

    async def set_policy(
        self, name: str, policy: message_pb2.QueuePolicy, mask: FieldMask | None = None
    ) -> Queue:
        """Makes the queue or changes its policy: all of it, or the fields of `mask`."""
        former = self._records.get(name)
        await self._store(name, merged(former, policy, mask))
        await self.load()
        return self.known(name)

    async def pause(self, name: str, *, paused: bool) -> None:
        """Stops deliveries, or goes on with them."""
        self.known(name)
        await self._redis.run(CONFIG_SHARD, "SADD" if paused else "SREM", _PAUSED, name)
        await self._announce()

    async def delete(self, name: str) -> int:
        """Removes it with all it holds; how many messages that were."""
        queue = self.known(name)
        await self._redis.run(CONFIG_SHARD, "HDEL", _QUEUES, name)
        await self._redis.run(CONFIG_SHARD, "SREM", _PAUSED, name)
        await self._announce()
        return await self._functions.delete(queue)

    async def _store(
        self, name: str, policy: message_pb2.QueuePolicy, *, only_new: bool = False
    ) -> None:
        parse(policy)
        queue = Queue(name, parse(policy))
        await self._functions.declare(queue)
        record = broker_pb2.SetQueueRequest(queue=name, policy=policy).SerializeToString()
        await self._redis.run(CONFIG_SHARD, "HSETNX" if only_new else "HSET", _QUEUES, name, record)
        await self._announce()

    async def _announce(self) -> None:
        await self.load()
        await self._bells.announce(_CHANGED)

    def _heard(self, what: bytes) -> None:
        if what == _CHANGED:
            self._stale.set()

    def _keep(self, name: str, record: message_pb2.QueuePolicy, *, paused: bool) -> None:
        former = self._queues.get(name)
        if former is not None and self._records[name] == record and former.paused == paused:
            return
        policy = parse(record)
        self._records[name] = record
        if former is None:
            self._queues[name] = Queue(name, policy, paused)
        else:
            former.policy, former.paused = policy, paused
        self._tell(name)

    def _tell(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)
