"""What becomes of copies when a router dies half way: the same message routed again, by another broker."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from weft.broker.bells import Bells
from weft.broker.clock import Clock
from weft.broker.functions import SOURCE, Functions
from weft.broker.layout import Entry, shard_of
from weft.broker.publishing import Payloads, Publishing
from weft.broker.publishing.rounds import Rounds
from weft.broker.queues import Queues
from weft.broker.redis import Redis
from weft.broker.senders import Senders
from weft.broker.topics.copies import Copies
from weft.broker.topics.router import CopiesRefused, Router
from weft.broker.topics.subscriptions import Subscriptions
from weft.v1 import broker_pb2 as pb
from weft.v1.message_pb2 import Message, QueuePolicy

SHARD = shard_of("_topics.0")


@dataclass
class Parts:
    """Those of a broker that route."""

    router: Router
    subscriptions: Subscriptions
    queues: Queues
    functions: Functions
    clock: Clock

    async def subscribe(self, queue: str, policy: QueuePolicy | None = None) -> None:
        await self.queues.declare(queue, policy)
        await self.subscriptions.keep(pb.Subscription(name=queue, pattern="a.>", queue=queue))

    async def published(self, queue: str) -> int:
        return (await self.functions.counts(self.queues.known(queue))).published

    def entry(self, *, attempt: int = 1, age_ms: int = 0) -> Entry:
        message = Message(id="m", sender="s", topic="a.b", payload=b"x")
        return Entry(
            message.SerializeToString(),
            b"s\0m",
            attempt=attempt,
            published=self.clock.now_ms() - age_ms,
        )


@contextlib.asynccontextmanager
async def broker(url: str, instance: str) -> AsyncIterator[Parts]:
    redis = await Redis.connect(url, library=SOURCE)
    bells = Bells(redis, instance)
    functions = Functions(redis, instance, bells, archive=False)
    queues = Queues(redis, functions, bells)
    clock, payloads, rounds = Clock(), Payloads(None), Rounds(functions, Clock())
    publishing = Publishing(
        rounds=rounds,
        queues=queues,
        clock=clock,
        payloads=payloads,
        senders=Senders(redis, functions, bells, clock),
        max_message=1_000_000,
    )
    subscriptions = Subscriptions(redis, bells)
    router = Router(
        redis=redis,
        subscriptions=subscriptions,
        queues=queues,
        copies=Copies(publishing, payloads),
        clock=clock,
    )
    await queues.load()
    yield Parts(router, subscriptions, queues, functions, clock)
    await rounds.settle()
    await redis.close()


@pytest_asyncio.fixture
async def one(redis_url: str) -> AsyncIterator[Parts]:
    async with broker(redis_url, "one") as parts:
        yield parts


@pytest_asyncio.fixture
async def two(redis_url: str) -> AsyncIterator[Parts]:
    async with broker(redis_url, "two") as parts:
        yield parts


async def test_what_a_dead_router_copied_is_not_stored_again(one: Parts, two: Parts) -> None:
    await one.subscribe("x")
    await one.subscribe("y")
    await one.router.route(SHARD, one.entry())
    await two.router.route(SHARD, two.entry(attempt=2))
    assert (await one.published("x"), await one.published("y")) == (1, 1)


async def test_a_queue_made_elsewhere_is_found(one: Parts, two: Parts) -> None:
    await one.subscribe("x")  # nobody told `two`
    await two.router.route(SHARD, two.entry())
    assert await one.published("x") == 1


@pytest.mark.parametrize(
    ("attempt", "age_ms"), [(2, 0), (1, 3_600_000)], ids=["tried again", "requeued when dead"]
)
async def test_a_refused_copy_is_made_later_and_no_other_twice(
    one: Parts, two: Parts, attempt: int, age_ms: int
) -> None:
    forgetful = QueuePolicy()
    forgetful.dedupe_window.FromSeconds(0)
    await one.subscribe("x", forgetful)
    await one.subscribe("full", QueuePolicy(max_bytes=1))
    with pytest.raises(CopiesRefused, match="1 of 2 queues did not take their copy") as refused:
        await one.router.route(SHARD, one.entry())
    assert "full: QUEUE_FULL" in refused.value.message
    assert (await one.published("x"), await one.published("full")) == (1, 0)
    await one.queues.set_policy("full", QueuePolicy())
    await two.queues.load()
    again = two.entry(attempt=attempt, age_ms=age_ms)
    await two.router.route(SHARD, again)
    assert (await one.published("x"), await one.published("full")) == (1, 1)
    # Nothing is left of the notes.
    await two.router.route(SHARD, again)
    assert await one.published("x") == 2
