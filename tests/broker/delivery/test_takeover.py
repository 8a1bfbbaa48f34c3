"""Brokers that die, as their peers see it."""

from __future__ import annotations

import redis.asyncio
from google.protobuf.duration_pb2 import Duration
from tests.broker.delivery.conftest import Start

from weft.broker import layout

TIMEOUT = Duration(nanos=200_000_000)


async def test_a_queue_that_vanishes_stops_no_funeral(start: Start, redis_url: str) -> None:
    """A broker that takes over meets a queue whose streams are gone; the other queues go on."""
    _, client = await start(visibility_timeout=TIMEOUT)
    await client.queue("aaa", visibility_timeout=Duration(nanos=100_000_000))
    await client.publish("one")
    async with redis.asyncio.Redis.from_url(redis_url) as store:
        key = layout.queue_key("inbox")
        await store.xreadgroup("w", "dead", {f"{key}:2": ">"})
        gone = layout.queue_key("aaa")
        await store.delete(f"{gone}:1", f"{gone}:2", f"{gone}:3")
        await store.hset("{weft}:brokers", "dead", "7")
    async with client.consume() as consumer:
        delivery = await consumer.next()
        assert delivery.attempt == 2
        await consumer.ack(delivery)


async def test_what_an_unknown_broker_has_in_hand_goes_on(start: Start, redis_url: str) -> None:
    """Its beats were lost, as when the node of a cluster that kept them fell back behind the others."""
    _, first = await start(visibility_timeout=TIMEOUT)
    await first.publish("one")
    async with redis.asyncio.Redis.from_url(redis_url) as store:
        await store.xreadgroup("w", "forgotten", {f"{layout.queue_key('inbox')}:2": ">"})
    _, client = await start(visibility_timeout=TIMEOUT)
    async with client.consume() as consumer:
        delivery = await consumer.next()
        assert delivery.attempt == 2
        await consumer.ack(delivery)
