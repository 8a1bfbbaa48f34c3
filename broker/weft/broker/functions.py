"""What is done in Redis atomically: one typed method for each function of functions.lua.

Each works on one shard. `now` is the brokers' clock in milliseconds. A method returns a future or a coroutine of what the
function says; which of them may be sent twice, when a connection breaks before the answer, is said at each.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from weft.broker import layout
from weft.broker.bells import Bells
from weft.telemetry import Telemetry
from weft.v1.message_pb2 import DURABILITY_REPLICATED

if TYPE_CHECKING:
    from weft.broker.queues import Queue

SOURCE = importlib.resources.files(__package__).joinpath("functions.lua").read_text("utf-8")

ACCEPTED, DUPLICATE, FULL, LIMITED = b"+=fr"


class Redis(Protocol):
    """What is used of weft.broker.redis.Redis."""

    def send(self, shard: int, *command: bytes | str | float) -> asyncio.Future[Any]:
        """Sends a command once."""

    def send_durably(
        self, shard: int, *command: bytes | str | float, durability: int
    ) -> asyncio.Future[Any]:
        """Sends a command once; done when its effect is as safe as asked."""

    async def run(self, shard: int, *command: bytes | str | float) -> Any:
        """Sends a command until it is answered; it may be done twice."""

    @property
    def default_durability(self) -> int:
        """What is said to be safe when nothing else is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of a batch.

    Attributes:
        codes: one of ACCEPTED, DUPLICATE, FULL, LIMITED for each message, in order.
        retry_after_ms: for the FULL or LIMITED ones.
        total: messages the queue has accepted since it was made, these included.
        ready: bits of the priorities that have new messages to deliver (1 << priority).
        due: earliest due time among the delayed ones of this batch; 0: none.
        taken: lease id and packed entry of those that are in this broker's hand now.
    """

    codes: bytes
    retry_after_ms: int
    total: int
    ready: int
    due: int
    taken: Sequence[tuple[bytes, bytes]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of a batch of settlements.

    Attributes:
        done: how many leases were still held; the others had been taken over.
        late: those that were not, of an acknowledgement.
        ready: bits of the priorities that have new messages to deliver.
        due: earliest due time of what was put off; 0: none.
    """

    done: int
    ready: int
    due: int
    late: Sequence[bytes] = ()


@dataclass(slots=True)
class Ack:
    """A handled message. `key`: its ordering key; `reply`: serialized weft.v1.Reply to keep for `identity`."""

    lease_id: bytes
    size: int
    key: bytes = b""
    identity: bytes = b""
    reply: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A message to try again at `due` (0: now). `attempt`: the number its next delivery has."""

    lease_id: bytes
    attempt: int
    due: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A message for the dead letters. `reason` is never empty."""

    lease_id: bytes
    reason: str
    error: str
    identity: bytes = b""
    reply: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What was due in a shard. `moved`: bits of the priorities by queue; `next_due`: ms, 0: nothing waits."""

    moved: dict[str, int]
    next_due: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """A queue in numbers; see weft.v1.QueueStatus.

    Attributes:
        oldest: when the oldest ready message was published, in ms; 0: none is ready.
        publish_samples, ack_samples: when (ms) `published` and `acked` were looked at last, what they were, and the
            same of the time before.
    """

    depth: int
    bytes: int
    published: int
    acked: int
    blocked: int
    delayed: int
    pending: int
    dead: int
    oldest: int
    publish_samples: tuple[int, int, int, int]
    ack_samples: tuple[int, int, int, int]


class Functions:
    """The functions, and the rings for this broker that follow from them.

    Args:
        redis: where they run; it has loaded SOURCE.
        instance: id of this broker; owner of what it delivers.
        bells: told of what became ready or due.
        archive: whether finished messages are kept for the archive.
        reply_ttl_ms: how long replies are kept, in ms.
        telemetry: where messages are counted; None: nowhere.
    """

    def __init__(
        self,
        redis: Redis,
        instance: str,
        bells: Bells,
        *,
        archive: bool,
        reply_ttl_ms: int = 600_000,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._counted = telemetry.metrics.broker_messages if telemetry else None
        self._redis = redis
        self._instance = instance
        self._bells = bells
        self._archive = archive
        self._reply_ttl = reply_ttl_ms
        self._published: list[Callable[[Queue, int, int], None]] = []

    def on_published(self, listener: Callable[[Queue, int, int], None]) -> None:
        """`listener(queue, total, lost)`: the queue counts `total` accepted messages; of former ones it lost `lost`."""
        self._published.append(listener)

    def archives(self, queue: Queue) -> bool:
        """Whether finished messages of a queue go to the archive."""
        return self._archive and queue.policy.retention.total_seconds() > 0

    async def publish(
        self,
        queue: Queue,
        entries: Sequence[bytes],
        *,
        now: int,
        durability: int,
        take: int = 0,
    ) -> Published:
        """Stores packed layout.Entry objects in order. May be sent twice where the queue dedupes.

        Up to `take` messages that became ready are read for this broker at once: of the call that failed too, perhaps.
        """
        policy, known = queue.policy, queue.accepted
        rate, burst = policy.publish_rate or (0, 0)
        reply = await self._redis.send_durably(
            queue.shard,
            *("FCALL", "weft_publish", 1, queue.key, self._instance, now),
            *(policy.max_depth, policy.max_bytes, 1 if policy.dedupe_window else 0, rate, burst),
            take,
            *entries,
            durability=durability,
        )
        codes, retry_after, total, ready, due, taken = reply
        self._rang(queue, ready, due)
        stored = codes.count(ACCEPTED)
        # The count that these were added to is not less than the one we knew of: a Redis that came back older tells itself.
        lost = max(0, known - (total - stored))
        queue.accepted = total if lost else max(total, queue.accepted)
        for listener in self._published:
            listener(queue, total, lost)
        self._count(queue, "accepted", stored)
        self._count(queue, "duplicate", codes.count(DUPLICATE))
        return Published(
            codes=codes,
            retry_after_ms=retry_after,
            total=total,
            ready=ready,
            due=due,
            taken=[
                (lease_id, entries[entry - 1] if isinstance(entry, int) else entry)
                for lease_id, entry in zip(taken[::2], taken[1::2], strict=True)
            ],
        )

    async def ack(
        self, queue: Queue, acks: Sequence[Ack], *, now: int, consumer: str = ""
    ) -> Settled:
        """Settles handled messages and keeps their replies. May be sent twice.

        Where the queue is replicated it is done when the replica has it: what is confirmed does not come back after a
        fail-over.
        """
        plain = [ack for ack in acks if not ack.key and not ack.reply]
        others = [ack for ack in acks if ack.key or ack.reply]
        sizes = struct.pack(f">{len(acks)}I", *(ack.size for ack in (*plain, *others)))
        reply = await self._settle(
            queue,
            *("FCALL", "weft_ack", 1, queue.key, self._instance, now),
            *(1 if self.archives(queue) else 0, consumer, self._reply_ttl, sizes, len(plain)),
            *(ack.lease_id for ack in plain),
            *(part for ack in others for part in (ack.lease_id, ack.key, ack.identity, ack.reply)),
        )
        late, older = set(reply[3]), set(reply[4])
        for ack in others:
            if ack.reply and ack.lease_id not in late:
                self._bells.reply(ack.identity, None if ack.lease_id in older else ack.reply)
        self._count(queue, "acked", reply[0])
        return self._settled(queue, reply)

    async def retry(self, queue: Queue, retries: Sequence[Retry], *, now: int) -> Settled:
        """Puts messages that this broker has in hand back for another attempt. May be sent twice."""
        reply = await self._settle(
            queue,
            *("FCALL", "weft_retry", 1, queue.key, self._instance, now),
            *(part for one in retries for part in (one.lease_id, one.attempt, one.due)),
        )
        self._count(queue, "retried", reply[0])
        return self._settled(queue, reply)

    async def kill(self, queue: Queue, deaths: Sequence[Death], *, now: int) -> Settled:
        """Moves messages that this broker has in hand to the dead letters. May be sent twice."""
        reply = await self._settle(
            queue,
            *("FCALL", "weft_kill", 1, queue.key, self._instance, now),
            *(self._reply_ttl, 1 if queue.policy.block_dead_key else 0),
            *(
                part
                for one in deaths
                for part in (one.lease_id, one.reason, one.error, one.identity, one.reply)
            ),
        )
        for one in deaths:
            if one.reply:
                self._bells.reply(one.identity, None)
        self._count(queue, "dead", reply[0])
        return self._settled(queue, reply)

    async def claim(self, queue: Queue, lease_ids: Sequence[bytes]) -> list[bytes | None]:
        """Makes leases this broker's own, whosever they are; the packed entries, None for those nobody holds."""
        if not lease_ids:
            return []
        found: list[bytes | None] = await self._redis.run(
            queue.shard, "FCALL", "weft_claim", 1, queue.key, self._instance, *lease_ids
        )
        return found

    async def due(self, shard: int, *, now: int, limit: int = 100) -> Due:
        """Moves up to `limit` delayed messages whose time has come. May be sent twice."""
        moved, following = await self._redis.run(
            shard,
            *("FCALL", "weft_due", 1, layout.due_key(shard), self._instance, now, limit),
        )
        queues = {name.decode(): bits for name, bits in zip(moved[::2], moved[1::2], strict=True)}
        for name, bits in queues.items():
            self._bells.ready(name, bits)
        return Due(moved=queues, next_due=int(float(following)))

    async def next_due(self, shard: int) -> int:
        """When the next delayed message of a shard is due, in ms; 0: none waits."""
        found = await self._redis.run(shard, "ZRANGE", layout.due_key(shard), 0, 0, "WITHSCORES")
        if not found:
            return 0
        score = found[0][1] if isinstance(found[0], list | tuple) else found[1]
        return int(float(score))

    async def declare(self, queue: Queue) -> None:
        """Makes the streams and groups of a queue where they are missing."""
        await self._redis.run(queue.shard, "FCALL", "weft_declare", 1, queue.key)

    async def takeover(
        self, queue: Queue, dead: str, *, now: int, limit: int = 100
    ) -> tuple[int, bool]:
        """Puts back what a dead broker had in hand: how many, and whether more is left."""
        policy = queue.policy
        moved, left, ready = await self._redis.run(
            queue.shard,
            *("FCALL", "weft_takeover", 1, queue.key, self._instance, now, dead, limit),
            *(policy.max_attempts, 1 if policy.block_dead_key else 0),
        )
        self._bells.ready(queue.name, ready)
        return moved, bool(left)

    async def purge(self, queue: Queue, *, now: int, limit: int = 500) -> int:
        """Drops up to `limit` messages of each priority that nobody has in hand; 0: there are no more."""
        archive = 1 if self.archives(queue) else 0
        count: int = await self._redis.run(
            queue.shard,
            *("FCALL", "weft_purge", 1, queue.key, self._instance, now, archive, limit),
        )
        return count

    async def delete(self, queue: Queue) -> int:
        """Removes all that a queue holds; how many messages that were."""
        count: int = await self._redis.run(queue.shard, "FCALL", "weft_delete", 1, queue.key)
        return count

    async def requeue_dead(self, queue: Queue, ids: Sequence[bytes], *, now: int) -> Settled:
        """Puts dead letters back into their queue as first attempts, without their expiry."""
        return await self._dead("weft_requeue", queue, self._instance, now, *ids)

    async def discard_dead(self, queue: Queue, ids: Sequence[bytes], *, now: int) -> Settled:
        """Gives dead letters up."""
        archive = 1 if self.archives(queue) else 0
        return await self._dead("weft_discard", queue, self._instance, now, archive, *ids)

    async def edit_dead(self, queue: Queue, dead_letter_id: bytes, entry: bytes) -> bytes | None:
        """Replaces the entry of a dead letter: its new id; None: there is none of this id."""
        found: bytes | None = await self._redis.run(
            queue.shard, "FCALL", "weft_edit", 1, queue.key, dead_letter_id, entry
        )
        return found

    async def rotate(self, queue: Queue, generation: int) -> int:
        """Begins a new dedupe window if `generation` is the current one; the current one after that."""
        found: int = await self._redis.run(
            queue.shard, "FCALL", "weft_rotate", 1, queue.key, generation
        )
        return found

    async def limit_sender(
        self, sender: str, *, now: int, per_second: float, burst: int, wanted: int
    ) -> tuple[int, int]:
        """Takes up to `wanted` messages from a sender's limit: how many are granted, and ms until the next."""
        shard = layout.shard_of(sender)
        granted, wait = await self._redis.run(
            shard,
            *("FCALL", "weft_limit", 1, f"{layout.tag(shard)}:s:{sender}"),
            *(now, per_second, burst, wanted),
        )
        return granted, wait

    async def counts(self, queue: Queue) -> Counts:
        """A queue in numbers."""
        found = await self._redis.run(queue.shard, "FCALL", "weft_status", 1, queue.key)
        depth, size, published, acked, blocked, delayed, pending, dead, oldest = found[:9]
        return Counts(
            depth=depth,
            bytes=size,
            published=published,
            acked=acked,
            blocked=blocked,
            delayed=delayed,
            pending=pending,
            dead=dead,
            oldest=oldest,
            publish_samples=tuple(found[9:13]),
            ack_samples=tuple(found[13:17]),
        )

    async def _dead(self, function: str, queue: Queue, *arguments: bytes | str | int) -> Settled:
        reply = await self._redis.run(queue.shard, "FCALL", function, 1, queue.key, *arguments)
        return self._settled(queue, reply)

    def _settled(self, queue: Queue, reply: Sequence[Any]) -> Settled:
        done, ready, due, *more = reply
        self._rang(queue, ready, due)
        return Settled(done=done, ready=ready, due=due, late=more[0] if more else [])

    async def _settle(self, queue: Queue, *command: bytes | str | float) -> Any:
        wanted = queue.policy.durability or self._redis.default_durability
        if wanted != DURABILITY_REPLICATED:
            return await self._redis.run(queue.shard, *command)
        return await self._redis.send_durably(queue.shard, *command, durability=wanted)

    def _count(self, queue: Queue, event: str, count: int) -> None:
        if count and self._counted is not None:
            self._counted.labels(queue.name, event).inc(count)

    def _rang(self, queue: Queue, ready: int, due: int) -> None:
        if ready:
            self._bells.ready(queue.name, ready)
        if due:
            self._bells.due(queue.shard, due)
