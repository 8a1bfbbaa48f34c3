"""What is under way when something ends or comes back, with the answers of a real Redis held up on their way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import pytest
import pytest_asyncio

from weft import rpc
from weft.broker.bells import Bells
from weft.broker.clock import Clock
from weft.broker.delivery.internal import InternalConsumer
from weft.broker.delivery.post import Message, Post
from weft.broker.functions import SOURCE, Functions
from weft.broker.layout import Entry
from weft.broker.policy import parse
from weft.broker.publishing import Payloads
from weft.broker.queues import Queue
from weft.broker.redis import Redis
from weft.rpc.testing import wait_until
from weft.v1 import message_pb2

NOW = 1_800_000_000_000


class Gate:
    """Redis, whose answers to one kind of command on messages of normal priority can be held up."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.held_up = ""
        self.waiting = 0
        self.open = asyncio.Event()

    def send(self, shard: int, *command: Any) -> asyncio.Future[Any]:
        answer = self._redis.send(shard, *command)
        if command[0] != self.held_up or not any(str(part).endswith(":2") for part in command):
            return answer
        return asyncio.ensure_future(self._later(answer))

    async def _later(self, answer: asyncio.Future[Any]) -> Any:
        found = await answer
        self.waiting += 1
        await self.open.wait()
        return found


@dataclass
class Taker:
    """A consumer that only takes."""

    room: int = 10
    consumer: str = "taker"
    session: str = ""
    taken: list[Message] = field(default_factory=list)

    def deliver(self, messages: Any) -> None:
        self.room -= len(messages)
        self.taken += messages


@dataclass
class Place:
    post: Post
    gate: Gate
    functions: Functions
    redis: Redis

    async def publish(self, *texts: str) -> None:
        packed = [
            Entry(text.encode(), b"test\0" + text.encode(), published=NOW).pack() for text in texts
        ]
        await self.functions.publish(self.post.queue, packed, now=NOW, durability=1)

    async def in_hand(self) -> int:
        return (await self.functions.counts(self.post.queue)).pending


@pytest_asyncio.fixture
async def place(redis_url: str) -> AsyncIterator[Place]:
    redis = await Redis.connect(redis_url, library=SOURCE)
    bells = Bells(redis, "one")
    functions = Functions(redis, "one", bells, archive=False)
    gate = Gate(redis)
    queue = Queue("inbox", parse(message_pb2.QueuePolicy()))
    await functions.declare(queue)
    post = Post(
        queue,
        redis=gate,
        functions=functions,
        clock=Clock(),
        payloads=Payloads(None),
        instance="one",
        fresh=lambda: True,
        doubt=lambda: None,
    )
    bells.on_ready(lambda _, bits: post.wake(bits))
    yield Place(post, gate, functions, redis)
    gate.open.set()
    await post.close()
    await redis.close()


async def test_what_a_read_brings_while_it_closes_goes_back(place: Place) -> None:
    """Left in the pending list of a broker that has said goodbye, it would wait there for ever."""
    taker = Taker()
    place.post.join(taker)
    place.gate.held_up = "XREADGROUP"
    await place.publish("one")
    await wait_until(lambda: place.gate.waiting)
    closing = asyncio.create_task(place.post.close())
    await asyncio.sleep(0)
    place.gate.open.set()
    await closing
    assert await place.in_hand() == 0
    assert (await place.functions.counts(place.post.queue)).depth == 1


async def test_what_is_resumed_while_leases_are_checked_stays(place: Place) -> None:
    first = Taker()
    place.post.join(first)
    await place.publish("one")
    await wait_until(lambda: first.taken)
    lease = first.taken[0][0]
    place.post.settlements.leases.end(lease.lease_id)  # as if another broker had had it
    place.post.leave(first)
    place.gate.held_up = "XPENDING"
    checking = asyncio.create_task(place.post.recover())
    await wait_until(lambda: place.gate.waiting)
    second = Taker()
    assert await place.post.resume([lease.lease_id], second) == []
    place.gate.open.set()
    await checking
    await place.post.settlements.settle()
    assert [one.holder for one in place.post.settlements.leases.all()] == [second]
    assert await place.in_hand() == 1


async def test_what_was_read_and_never_arrived_is_put_back(place: Place) -> None:
    await place.publish("one")
    await place.redis.send(
        place.post.queue.shard,
        *("XREADGROUP", "GROUP", "w", "one", "STREAMS", f"{place.post.queue.key}:2", ">"),
    )
    taker = Taker()
    place.post.join(taker)
    await place.post.recover()
    await wait_until(lambda: taker.taken)
    [(lease, message, _)] = taker.taken
    assert (message, lease.attempt) == (b"one", 1)


async def test_many_leases_are_settled_in_calls_that_redis_can_take(place: Place) -> None:
    taker = Taker(room=1_200)
    place.post.join(taker)
    for begin in range(0, 1_200, 300):
        await place.publish(*(f"m{number}" for number in range(begin, begin + 300)))
    await wait_until(lambda: len(taker.taken) == 1_200)
    leases = [lease for lease, _, _ in taker.taken]
    for lease in leases:
        place.post.settlements.leases.end(lease.lease_id)
    place.post.settlements.ack(leases, consumer="taker")
    await place.post.settlements.settle()
    counts = await place.functions.counts(place.post.queue)
    assert (counts.depth, counts.acked) == (0, 1_200)


async def test_an_outage_met_by_a_consumer_within_the_broker_is_no_attempt(place: Place) -> None:
    attempts: list[int] = []

    async def handle(entry: Entry) -> None:
        attempts.append(entry.attempt)
        if len(attempts) == 1:
            raise rpc.Unavailable("away", retry_after=None)

    consumer = InternalConsumer(place.post, handle, 1)
    place.post.join(consumer)
    await place.publish("one")
    await wait_until(lambda: attempts)
    await place.post.settlements.settle()
    counts = await place.functions.counts(place.post.queue)
    assert (counts.delayed, counts.dead) == (1, 0)
    await place.functions.due(
        place.post.queue.shard, now=place.post.settlements._clock.now_ms() + 5_000
    )
    await wait_until(lambda: len(attempts) == 2)
    assert attempts == [1, 1]
    place.post.leave(consumer)
    await consumer.close()


async def test_a_consumer_may_leave_after_the_end(place: Place) -> None:
    taker = Taker()
    place.post.join(taker)
    await place.post.close()
    place.post.leave(taker)
    assert place.post.receivers == []


async def test_what_is_resumed_in_its_last_moment_does_not_run_out_meanwhile(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be put back for another consumer, and be in the hand of the one who was told that it has it."""
    first, again = Taker(), Taker(room=0)
    place.post.join(first)
    await place.publish("one")
    await wait_until(lambda: first.taken)
    lease = first.taken[0][0]
    place.post.leave(first)
    claim, asked, go_on = place.functions.claim, asyncio.Event(), asyncio.Event()

    async def slow_claim(*args: Any) -> list[bytes | None]:
        asked.set()
        await go_on.wait()
        return await claim(*args)

    monkeypatch.setattr(place.functions, "claim", slow_claim)
    leases = place.post.settlements.leases
    lease.deadline = monotonic() + 0.05
    leases._arm()
    resuming = asyncio.create_task(place.post.resume([lease.lease_id], again))
    await asked.wait()
    over = monotonic() + 0.1
    await wait_until(lambda: monotonic() > over)
    go_on.set()
    assert await resuming == []
    await place.post.settlements.settle()
    assert [one.holder for one in leases.all()] == [again]
    assert await place.in_hand() == 1
