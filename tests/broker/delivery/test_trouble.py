"""Deliveries while Redis refuses, forgets or comes back."""

from __future__ import annotations

from typing import Any

import pytest
from tests.broker.clients import Client
from tests.broker.delivery.conftest import Start
from tests.broker.servers import Server

from weft import rpc
from weft.broker import Broker
from weft.broker.functions import Functions, Published
from weft.broker.redis import ConnectionLost
from weft.rpc.testing import wait_until


async def test_a_consumer_goes_on_after_redis_refused_for_a_moment(
    store: Server, start: Start
) -> None:
    _, client = await start(store.url, beat=1.0)
    async with client.consume(credit=0) as consumer:
        await client.publish("waits")
        await store.do("CONFIG", "SET", "min-replicas-to-write", 1)
        await consumer.say(credit=1)
        await consumer.nothing(0.2)
        await store.do("CONFIG", "SET", "min-replicas-to-write", 0)
        delivery = await consumer.next(3)
        await consumer.ack(delivery)


async def test_what_a_publish_took_is_delivered_though_its_answer_was_lost(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = await start()
    publish = Functions.publish
    lost: list[Published] = []

    async def losing(self: Functions, *args: Any, **how: Any) -> Published:
        found = await publish(self, *args, **how)
        if found.taken and not lost:
            lost.append(found)
            raise ConnectionLost("the answer is lost")
        return found

    async with client.consume() as consumer:
        await client.publish("finds the queue empty")
        await consumer.ack(await consumer.next())
        monkeypatch.setattr(Functions, "publish", losing)
        await client.publish("one", "two")
        deliveries = await consumer.take(2)
        await consumer.ack(*deliveries)
        assert sorted(one.message.payload for one in deliveries) == [b"one", b"two"]
        assert {one.attempt for one in deliveries} == {1}
        assert lost
        await consumer.nothing()
    assert (await client.status()).depth == 0


async def test_a_large_message_reaches_a_consumer_that_waits(
    redis_url: str, database_url: str
) -> None:
    async with (
        Broker(redis_url=redis_url, database_url=database_url, address="127.0.0.1:0") as broker,
        rpc.Channel(broker.address) as channel,
    ):
        client = Client(channel)
        await client.queue()
        async with client.consume() as consumer:
            for size in (1, 300_000, 1):  # larger ones are in PostgreSQL
                await client.publish("x" * size)
                delivery = await consumer.next()
                assert len(delivery.message.payload) == size
                await consumer.ack(delivery)


async def test_a_redis_that_lost_its_streams_while_away_is_served_again(
    store: Server, start: Start
) -> None:
    _broker, client = await start(store.url)
    async with client.consume() as consumer:
        await client.publish("lost")
        await consumer.next()
        streams = await store.do("KEYS", "*:q:inbox:[123]")
        await store.do("DEL", *streams)
        await store.do("CLIENT", "KILL", "TYPE", "normal")
        await wait_until(lambda: served(client))
        await client.publish("here")
        assert await consumer.texts(1) == ["here"]


async def served(client: Client) -> bool:
    await client.queue()
    return True


async def test_a_settlement_that_redis_rejects_is_not_called_safe(
    store: Server, start: Start
) -> None:
    _, client = await start(store.url)
    async with client.consume() as consumer:
        await client.publish("one")
        delivery = await consumer.next()
        [stream] = list(await store.do("KEYS", "*:q:inbox:2"))
        await store.do("RENAME", stream, stream + b"x")
        await store.do("SET", stream, "no stream")
        await consumer.settle(1, ack=[delivery.lease_id])
        assert [one.lease_id for one in consumer.failures] == [delivery.lease_id]
