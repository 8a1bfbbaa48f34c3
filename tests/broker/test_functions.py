"""The functions in Redis, on a real one: what each does, and what it leaves alone."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from weft.broker import functions
from weft.broker.bells import Bells
from weft.broker.functions import Ack, Death, Functions, Retry
from weft.broker.layout import Entry, done_key, lease_id, replies_key
from weft.broker.policy import Policy
from weft.broker.queues import Queue
from weft.broker.redis import Redis

NOW = 1_800_000_000_000
Held = tuple[bytes, Entry]


@dataclass
class Store:
    """A queue and the functions of two brokers on it."""

    redis: Redis
    queue: Queue
    rung: list[tuple[str, int]]
    one: Functions
    two: Functions
    archiving: Functions

    def policy(self, **changes: Any) -> None:
        self.queue.policy = dataclasses.replace(self.queue.policy, **changes)

    async def publish(self, *entries: Entry, now: int = NOW) -> bytes:
        packed = [entry.pack() for entry in entries]
        return (await self.one.publish(self.queue, packed, now=now, durability=0)).codes

    async def read(
        self, count: int = 100, *, instance: str = "one", priority: int = 2
    ) -> list[Held]:
        stream = f"{self.queue.key}:{priority}"
        found: Any = await self.redis.send(
            self.queue.shard,
            *("XREADGROUP", "GROUP", "w", instance, "COUNT", count, "STREAMS", stream, ">"),
        )
        rows = found[0][1] if found else []
        return [(lease_id(priority, row[0]), Entry.unpack(row[1][1])) for row in rows]

    async def ack(self, *held: Held, by: Functions | None = None, reply: bytes = b"") -> int:
        acks = [
            Ack(
                lease_id=lease,
                size=len(entry.pack()),
                key=entry.key,
                identity=entry.identity,
                reply=reply,
            )
            for lease, entry in held
        ]
        return (await (by or self.one).ack(self.queue, acks, now=NOW, consumer="c")).done

    async def counts(self) -> functions.Counts:
        return await self.one.counts(self.queue)

    async def dead(self) -> list[Any]:
        found: list[Any] = await self.redis.send(
            self.queue.shard, "XRANGE", f"{self.queue.key}:x", "-", "+"
        )
        return found


@pytest_asyncio.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    redis = await Redis.connect(redis_url, library=functions.SOURCE)
    bells = Bells(redis, "one")
    rung: list[tuple[str, int]] = []
    bells.on_ready(lambda queue, bits: rung.append((queue, bits)))
    queue = Queue("inbox", Policy())
    one = Functions(redis, "one", bells, archive=False)
    await one.declare(queue)
    yield Store(
        redis,
        queue,
        rung,
        one,
        Functions(redis, "two", bells, archive=False),
        Functions(redis, "one", bells, archive=True),
    )
    await redis.close()


def entry(number: int, **more: Any) -> Entry:
    identity = b"sender\0%d" % number
    return Entry(message=b"message %d" % number, identity=identity, published=NOW, **more)


def texts(held: list[Held]) -> list[bytes]:
    return [found.message for _, found in held]


async def test_published_messages_are_read_in_order_and_counted(store: Store) -> None:
    assert await store.publish(*map(entry, range(5))) == b"+++++"
    assert store.rung == [("inbox", 1 << 2)]
    held = await store.read()
    assert texts(held) == [b"message %d" % number for number in range(5)]
    counts = await store.counts()
    assert (counts.depth, counts.pending, counts.published) == (5, 5, 5)
    assert counts.bytes == sum(len(entry(number).pack()) for number in range(5))
    assert await store.ack(*held) == 5
    counts = await store.counts()
    assert (counts.depth, counts.pending, counts.acked, counts.bytes) == (0, 0, 5, 0)
    assert await store.redis.send(store.queue.shard, "XLEN", f"{store.queue.key}:2") == 0


def taken(found: functions.Published) -> list[Held]:
    return [(lease, Entry.unpack(stored)) for lease, stored in found.taken]


async def test_a_publish_takes_what_became_ready(store: Store) -> None:
    entries = [entry(0, priority=3), entry(1), entry(2), entry(3, not_before=NOW + 1)]
    entries += [entry(4, key=b"k"), entry(5, key=b"k")]
    packed = [one.pack() for one in entries]
    found = await store.one.publish(store.queue, packed, now=NOW, durability=0, take=3)
    assert texts(taken(found)) == [b"message 1", b"message 2", b"message 4"]
    assert found.ready == 1 << 2 | 1 << 3  # so many were asked for: there may be more
    assert await store.read() == []
    assert texts(await store.read(priority=3)) == [b"message 0"]
    assert await store.ack(*taken(found)) == 3
    assert texts(await store.read()) == [b"message 5"]


async def test_a_publish_takes_of_all_priorities(store: Store) -> None:
    packed = [entry(number, priority=number).pack() for number in (3, 2, 1)]
    found = await store.one.publish(store.queue, packed, now=NOW, durability=0, take=9)
    assert texts(taken(found)) == [b"message 1", b"message 2", b"message 3"]
    assert [lease[:1] for lease, _ in found.taken] == [b"1", b"2", b"3"]


async def test_a_publish_takes_older_ones_first(store: Store) -> None:
    await store.publish(entry(1))
    found = await store.one.publish(store.queue, [entry(2).pack()], now=NOW, durability=0, take=5)
    assert texts(taken(found)) == [b"message 1", b"message 2"]
    assert found.ready == 0


async def test_an_entry_says_all_that_was_packed() -> None:
    full = entry(1, key=b"k", priority=3, attempt=7, not_before=NOW + 1, expires=NOW + 2, flags=1)
    assert Entry.unpack(full.pack()) == full


async def test_a_repeated_id_is_a_duplicate_within_a_batch_and_after(store: Store) -> None:
    assert await store.publish(entry(1), entry(1), entry(2)) == b"+=+"
    assert await store.publish(entry(2), entry(3)) == b"=+"
    assert (await store.counts()).depth == 3


async def test_the_same_id_of_another_sender_is_another_message(store: Store) -> None:
    other = dataclasses.replace(entry(1), identity=b"another\0" + b"1")
    assert await store.publish(entry(1), other) == b"++"


async def test_an_id_is_known_for_one_more_window_and_then_forgotten(store: Store) -> None:
    await store.publish(entry(1))
    assert await store.one.rotate(store.queue, 0) == 1
    assert await store.publish(entry(1)) == b"="
    assert await store.one.rotate(store.queue, 0) == 1  # somebody has turned it already
    assert await store.publish(entry(1)) == b"="
    assert await store.one.rotate(store.queue, 1) == 2
    assert await store.publish(entry(1)) == b"+"


async def test_without_a_window_nothing_is_a_duplicate(store: Store) -> None:
    store.policy(dedupe_window=timedelta(0))
    assert await store.publish(entry(1), entry(1)) == b"++"


async def test_a_full_queue_refuses_the_rest_of_a_batch(store: Store) -> None:
    store.policy(max_depth=2)
    assert await store.publish(*map(entry, range(4))) == b"++ff"
    await store.ack(*await store.read(1))
    assert await store.publish(entry(2), entry(3)) == b"+f"
    store.policy(max_depth=100, max_bytes=(await store.counts()).bytes)
    assert await store.publish(entry(9)) == b"f"


async def test_a_rate_limit_lets_a_burst_through_and_then_its_rate(store: Store) -> None:
    store.policy(publish_rate=(10.0, 3))
    packed = [entry(number).pack() for number in range(5)]
    published = await store.one.publish(store.queue, packed, now=NOW, durability=0)
    assert published.codes == b"+++rr"
    assert published.retry_after_ms == 100
    assert await store.publish(entry(3), entry(4), now=NOW + 100) == b"+r"


async def test_one_message_of_a_key_is_in_hand_at_a_time(store: Store) -> None:
    first, second = entry(1, key=b"a"), entry(2, key=b"a")
    await store.publish(first, second, entry(3, key=b"b"), entry(4))
    held = await store.read()
    assert texts(held) == [b"message 1", b"message 3", b"message 4"]
    assert (await store.counts()).blocked == 1
    store.rung.clear()
    await store.ack(held[0])
    assert store.rung == [("inbox", 1 << 2)]
    assert texts(await store.read()) == [b"message 2"]


async def test_a_key_waits_while_its_message_is_retried(store: Store) -> None:
    await store.publish(entry(1, key=b"a"), entry(2, key=b"a"))
    [(lease, _)] = await store.read()
    await store.one.retry(store.queue, [Retry(lease_id=lease, attempt=2, due=NOW + 500)], now=NOW)
    assert await store.read() == []
    due = await store.one.due(store.queue.shard, now=NOW + 500)
    assert due.moved == {"inbox": 1 << 2}
    [(_, again)] = await store.read()
    assert (again.message, again.attempt) == (b"message 1", 2)


async def test_a_stale_lease_settles_nothing_and_releases_no_key(store: Store) -> None:
    await store.publish(entry(1, key=b"a"), entry(2, key=b"a"))
    held = await store.read()
    assert await store.ack(*held) == 1
    second = await store.read()
    assert await store.ack(*held) == 0
    counts = await store.counts()
    assert (counts.depth, counts.acked, counts.blocked) == (1, 1, 0)
    assert await store.ack(*second) == 1


async def test_another_broker_cannot_put_back_what_it_does_not_hold(store: Store) -> None:
    await store.publish(entry(1))
    [(lease, _)] = await store.read()
    for settled in (
        await store.two.retry(store.queue, [Retry(lease_id=lease, attempt=2)], now=NOW),
        await store.two.kill(
            store.queue, [Death(lease_id=lease, reason="REJECTED", error="")], now=NOW
        ),
    ):
        assert settled.done == 0
    assert (await store.counts()).pending == 1


async def test_a_claimed_lease_has_a_new_owner(store: Store) -> None:
    await store.publish(entry(1), entry(2))
    held = await store.read()
    await store.ack(held[1])
    assert await store.two.claim(store.queue, [lease for lease, _ in held]) == [
        entry(1).pack(),
        None,
    ]
    retry = Retry(lease_id=held[0][0], attempt=2)
    assert (await store.one.retry(store.queue, [retry], now=NOW)).done == 0
    assert (await store.two.retry(store.queue, [retry], now=NOW)).done == 1


async def test_a_delayed_message_waits_for_its_time(store: Store) -> None:
    await store.publish(entry(1, not_before=NOW + 200), entry(2, not_before=NOW + 100), entry(3))
    assert texts(await store.read()) == [b"message 3"]
    shard = store.queue.shard
    assert await store.one.next_due(shard) == NOW + 100
    due = await store.one.due(shard, now=NOW + 150)
    assert (due.moved, due.next_due) == ({"inbox": 1 << 2}, NOW + 200)
    assert texts(await store.read()) == [b"message 2"]
    assert (await store.one.due(shard, now=NOW + 200)).next_due == 0
    assert await store.one.next_due(shard) == 0
    assert texts(await store.read()) == [b"message 1"]
    assert (await store.counts()).delayed == 0


async def test_a_reply_is_kept_with_the_acknowledgement_and_the_first_one_counts(
    store: Store,
) -> None:
    await store.publish(entry(1), entry(2))
    first, second = await store.read()
    await store.ack(first, reply=b"yes")
    twin = (second[0], dataclasses.replace(second[1], identity=first[1].identity))
    await store.ack(twin, reply=b"no")
    key, identity = replies_key(store.queue.shard), first[1].identity
    assert await store.redis.send(store.queue.shard, "HGET", key, identity) == b"yes"


async def test_a_reply_is_forgotten_when_its_time_is_over(store: Store) -> None:
    await store.publish(entry(1), entry(2))
    first, second = await store.read()
    await store.ack(first, reply=b"old")
    acks = [Ack(lease_id=second[0], size=1, identity=second[1].identity, reply=b"new")]
    await store.one.ack(store.queue, acks, now=NOW + 600_001)
    key = replies_key(store.queue.shard)
    assert await store.redis.send(store.queue.shard, "HVALS", key) == [b"new"]


async def test_a_dead_letter_keeps_what_happened_and_can_come_back(store: Store) -> None:
    await store.publish(entry(1, key=b"a", expires=NOW + 1), entry(2, key=b"a"))
    [(lease, _)] = await store.read()
    death = Death(lease_id=lease, reason="REJECTED", error="no such customer")
    await store.one.kill(store.queue, [death], now=NOW)
    [(dead_id, fields)] = await store.dead()
    assert fields[2:6] == [b"r", b"REJECTED", b"m", b"no such customer"]
    assert (await store.counts()).dead == 1
    assert texts(await store.read()) == [b"message 2"]  # the key went on without it
    changed = entry(1, key=b"a")
    changed.message = b"mended"
    edited = await store.one.edit_dead(store.queue, dead_id, changed.pack())
    assert edited is not None
    assert await store.one.edit_dead(store.queue, dead_id, changed.pack()) is None
    assert (await store.one.requeue_dead(store.queue, [edited], now=NOW)).done == 1
    assert await store.read() == []  # its key is taken by message 2
    assert (await store.counts()).blocked == 1


async def test_a_dead_message_may_hold_its_key_until_it_is_given_up(store: Store) -> None:
    store.policy(block_dead_key=True)
    await store.publish(entry(1, key=b"a"), entry(2, key=b"a"))
    [(lease, _)] = await store.read()
    await store.one.kill(store.queue, [Death(lease_id=lease, reason="REJECTED", error="")], now=NOW)
    assert await store.read() == []
    [(dead_id, _)] = await store.dead()
    await store.one.discard_dead(store.queue, [dead_id], now=NOW)
    assert texts(await store.read()) == [b"message 2"]


async def test_a_requeued_message_has_no_expiry_and_its_first_attempt_again(store: Store) -> None:
    await store.publish(entry(1, attempt=9, expires=NOW + 1))
    [(lease, _)] = await store.read()
    await store.one.kill(store.queue, [Death(lease_id=lease, reason="EXPIRED", error="")], now=NOW)
    [(dead_id, _)] = await store.dead()
    await store.one.requeue_dead(store.queue, [dead_id], now=NOW)
    [(_, found)] = await store.read()
    assert (found.attempt, found.expires, found.message) == (1, 0, b"message 1")


async def test_what_a_dead_broker_had_in_hand_is_taken_over(store: Store) -> None:
    store.policy(max_attempts=2)
    await store.publish(entry(1), entry(2, attempt=2), entry(3))
    held = await store.read()
    await store.ack(held[2])
    assert await store.two.takeover(store.queue, "one", now=NOW) == (2, False)
    assert await store.ack(*held[:2]) == 0
    [(_, found)] = await store.read(instance="two")
    assert (found.message, found.attempt) == (b"message 1", 2)
    [(_, fields)] = await store.dead()
    assert fields[3] == b"LEASE_EXPIRED"


async def test_a_takeover_goes_on_where_its_limit_ended_it(store: Store) -> None:
    await store.publish(*map(entry, range(5)))
    await store.read()
    assert await store.two.takeover(store.queue, "one", now=NOW, limit=3) == (3, True)
    assert await store.two.takeover(store.queue, "one", now=NOW, limit=3) == (2, False)
    assert len(await store.read(instance="two")) == 5


async def test_a_purge_drops_what_nobody_has_in_hand(store: Store) -> None:
    await store.publish(
        entry(1),
        *(entry(number, key=b"a") for number in range(2, 6)),
        entry(6, not_before=NOW + 1000),
        entry(7, priority=1),
    )
    held = await store.read(1)
    purged = 0
    while count := await store.one.purge(store.queue, now=NOW):
        purged += count
    assert purged == 6
    counts = await store.counts()
    assert (counts.depth, counts.pending, counts.delayed, counts.blocked) == (1, 1, 0, 0)
    assert await store.ack(*held) == 1
    assert await store.publish(entry(8, key=b"a")) == b"+"
    assert texts(await store.read()) == [b"message 8"]


async def test_finished_messages_stay_for_the_archive_with_a_note(store: Store) -> None:
    await store.publish(entry(1), entry(2))
    held = await store.read()
    assert await store.ack(*held, by=store.archiving) == 2
    shard = store.queue.shard
    assert await store.redis.send(shard, "XLEN", f"{store.queue.key}:2") == 2
    [(_, fields)] = await store.redis.send(shard, "XRANGE", done_key(shard), "-", "+")
    note = dict(zip(fields[::2], fields[1::2], strict=True))
    assert note[b"q"] == b"inbox"
    assert note[b"o"] == b"2"
    assert note[b"l"].split() == [lease for lease, _ in held]
    assert (await store.counts()).depth == 0


async def test_a_deleted_queue_leaves_nothing(store: Store) -> None:
    await store.publish(
        entry(1), entry(2, key=b"a"), entry(3, key=b"a"), entry(4, not_before=NOW + 9)
    )
    assert await store.one.delete(store.queue) == 4
    assert await store.redis.send(store.queue.shard, "KEYS", "*inbox*") == []
    assert await store.one.next_due(store.queue.shard) == 0


async def test_a_senders_limit_grants_what_it_has(store: Store) -> None:
    limit = {"per_second": 10.0, "burst": 5, "wanted": 8}
    assert await store.one.limit_sender("a", now=NOW, **limit) == (5, 100)
    assert await store.one.limit_sender("a", now=NOW + 100, **limit) == (1, 100)
    assert (await store.one.limit_sender("b", now=NOW, **limit))[0] == 5


async def test_a_dead_letter_needs_a_reason(store: Store) -> None:
    await store.publish(entry(1))
    [(lease, _)] = await store.read()
    with pytest.raises(Exception, match="needs a reason"):
        await store.one.kill(store.queue, [Death(lease_id=lease, reason="", error="")], now=NOW)
    assert (await store.counts()).pending == 1
