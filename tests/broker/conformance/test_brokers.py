"""Several brokers on each store share the work, and any of them may die; so may the primary of a store."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest_asyncio
from tests.broker import servers
from tests.broker.clients import Client, message
from tests.faults.processes import Child, python
from tests.ports import free_port

from weft import rpc
from weft.broker import Broker
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2 as pb
from weft.v1 import message_pb2

_BEAT = 0.1


@pytest_asyncio.fixture
async def mortal(any_redis_url: str, server_folder: Path) -> AsyncIterator[tuple[Child, Client]]:
    """Another broker on the same store, in a process that may be killed, and a client of it."""
    address = f"127.0.0.1:{free_port()}"
    settings = {"redis_url": any_redis_url, "address": address, "beat": _BEAT}
    command = python("tests.faults.roles", "broker", json.dumps(settings))
    child = Child(command, server_folder / "broker.log")
    child.start()
    try:
        async with rpc.Channel(address) as channel:
            client = Client(channel)
            await client.stub.ListQueues(pb.ListQueuesRequest(), timeout=15, wait_for_ready=True)
            yield child, client
    finally:
        child.kill()


async def test_two_brokers_share_a_queue(client: Client, mortal: tuple[Child, Client]) -> None:
    _, other = mortal
    await client.queue()
    async with client.consume(credit=5) as first, other.consume(credit=5) as second:
        for number in range(10):
            await (client, other)[number % 2].publish(f"m{number}")
        texts = await first.texts(5) + await second.texts(5)
        assert sorted(texts) == sorted(f"m{number}" for number in range(10))


async def test_a_message_of_one_broker_wakes_a_consumer_of_the_other(
    client: Client, mortal: tuple[Child, Client]
) -> None:
    _, other = mortal
    async with other.consume("inbox") as consumer:
        await wait_until(lambda: is_known(client, "inbox"))
        await client.publish("hello")
        assert await consumer.texts(1) == ["hello"]


async def is_known(client: Client, queue: str) -> bool:
    with contextlib.suppress(rpc.NotFound):
        return bool(await client.status(queue))
    return False


async def test_what_a_dead_broker_had_in_hand_goes_to_another(
    client: Client, mortal: tuple[Child, Client]
) -> None:
    child, other = mortal
    visibility = timedelta(milliseconds=300)
    policy = message_pb2.QueuePolicy()
    policy.visibility_timeout.FromTimedelta(visibility)
    await client.call("SetQueue", pb.SetQueueRequest(queue="inbox", policy=policy))
    async with other.consume("inbox") as lost:
        await client.publish("in hand", key="k")
        await client.publish("behind", key="k")
        assert await lost.texts(1) == ["in hand"]
        child.kill()
    async with client.consume() as consumer:
        again = await consumer.next(10)
        assert (again.message.payload, again.attempt) == (b"in hand", 2)
        await consumer.ack(again)
        assert await consumer.texts(1) == ["behind"]


async def test_work_of_a_dead_broker_is_resumed_at_another(
    client: Client, mortal: tuple[Child, Client]
) -> None:
    child, other = mortal
    await client.queue()
    async with other.consume("inbox") as lost:
        await client.publish("in hand")
        held = await lost.next()
        child.kill()
    async with client.consume(resume=[held.lease_id]) as consumer:
        assert not consumer.opened.lost
        await consumer.ack(held)
    assert (await client.status()).depth == 0


async def test_work_that_goes_to_and_fro_stays_in_one_hand(
    client: Client, mortal: tuple[Child, Client]
) -> None:
    _, other = mortal
    policy = message_pb2.QueuePolicy()
    policy.visibility_timeout.FromMilliseconds(600)
    await client.call("SetQueue", pb.SetQueueRequest(queue="inbox", policy=policy))
    await client.publish("in hand")
    async with client.consume() as first:
        held = await first.next()
    async with other.consume("inbox", resume=[held.lease_id], credit=0) as second:
        assert not second.opened.lost
    async with client.consume(resume=[held.lease_id], credit=0) as third:
        assert not third.opened.lost
        async with other.consume("inbox") as rival:
            for _ in range(4):
                await rival.nothing(0.25)
                await third.settle(1, extensions=[held.lease_id])
        await third.ack(held)
        assert not third.failures
    assert (await client.status()).depth == 0


async def test_what_a_broker_that_ends_had_in_hand_stays_with_its_consumer(
    client: Client, mortal: tuple[Child, Client]
) -> None:
    child, other = mortal
    await client.queue()
    async with (
        other.consume("inbox", credit=1) as leaving,
        client.consume(credit=1) as rival,
    ):
        await client.publish("first", "second")
        await wait_until(lambda: leaving.deliveries.qsize() == rival.deliveries.qsize() == 1)
        held = await leaving.next()
        await rival.ack(await rival.next())
        child.ask_to_end()
        async with asyncio.timeout(5):
            await leaving.draining.wait()
        leaving.abandon()
        assert await child.ended(15)
        await rival.say(credit=1)
        await rival.nothing(0.3)
        async with client.consume(resume=[held.lease_id], credit=0) as heir:
            assert not heir.opened.lost
            await heir.ack(held)
    assert (await client.status()).depth == 0


async def test_a_fail_over_loses_nothing_that_was_accepted(redis_pair: servers.Pair) -> None:
    async with (
        Broker(
            redis_url=redis_pair.url, address="127.0.0.1:0", beat=timedelta(seconds=0.2)
        ) as broker,
        rpc.Channel(broker.address) as channel,
    ):
        client = Client(channel)
        await client.queue(durability=message_pb2.DURABILITY_REPLICATED)
        accepted: set[str] = set()
        failed_over = asyncio.Event()

        async def publish(lane: int) -> None:
            number = 0
            while not failed_over.is_set():
                said = message(id=f"{lane}-{number}")
                number += 1
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await client.stub.Publish(pb.PublishRequest(message=said), timeout=15)
                    accepted.add(said.id)

        async with asyncio.TaskGroup() as lanes:
            for lane in range(20):
                lanes.create_task(publish(lane))
            await wait_until(lambda: len(accepted) > 200)
            await redis_pair.fail_over()
            await redis_pair.replica.start()
            known = len(accepted)
            await wait_until(lambda: len(accepted) > known + 200, timedelta(seconds=15))
            failed_over.set()
        got: set[str] = set()
        async with client.consume(credit=100) as consumer:
            while accepted - got:
                delivery = await consumer.next()
                got.add(delivery.message.id)
                await consumer.ack(delivery)
                await consumer.say(credit=1)
