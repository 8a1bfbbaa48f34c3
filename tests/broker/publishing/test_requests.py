"""Request: a publish, and the reply to it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.rpc import status_pb2
from tests.broker.clients import Client, Consumer, message
from tests.broker.publishing.conftest import Start

from weft import embedded, rpc
from weft.broker.layout import Entry, queue_key
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2 as pb
from weft.v1 import message_pb2


async def ask(
    client: Client, text: str = "?", within: float = 5, **fields: Any
) -> pb.RequestResponse:
    request = pb.RequestRequest(message=message(text, **fields))
    found = await client.call("Request", request, within=within)
    assert isinstance(found, pb.RequestResponse)
    return found


async def complete(consumer: Consumer, text: str) -> message_pb2.MessageDelivery:
    """Answers the next message."""
    delivery = await consumer.next()
    reply = message_pb2.Reply(payload=text.encode(), content_type="text/plain")
    await consumer.settle(1, complete=[pb.Completion(lease_id=delivery.lease_id, reply=reply)])
    return delivery


@contextlib.asynccontextmanager
async def handler(client: Client) -> AsyncIterator[list[str]]:
    """Answers every message with its own text; the texts it had."""
    texts: list[str] = []

    async def handle(consumer: Consumer) -> None:
        while True:
            delivery = await consumer.next(60)
            text = delivery.message.payload.decode()
            texts.append(text)
            reply = message_pb2.Reply(payload=f"{text}!".encode())
            await consumer.say(complete=[pb.Completion(lease_id=delivery.lease_id, reply=reply)])

    async with client.consume() as consumer:
        task = asyncio.create_task(handle(consumer))
        yield texts
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_request_gets_its_reply(client: Client) -> None:
    async with client.consume() as consumer:
        asking = asyncio.create_task(ask(client, "how?", id="q"))
        delivery = await complete(consumer, "so")
        answer = await asking
    assert delivery.message.payload == b"how?"
    assert answer.id == "q"
    assert answer.reply == message_pb2.Reply(payload=b"so", content_type="text/plain")
    assert (await client.status()).depth == 0


async def test_many_requests_get_each_their_own_reply(client: Client) -> None:
    async with handler(client):
        answers = await asyncio.gather(
            *(
                ask(client, str(number), id=f"q{number}" if number % 2 else "")
                for number in range(100)
            )
        )
    assert [answer.reply.payload for answer in answers] == [
        f"{number}!".encode() for number in range(100)
    ]
    assert len({answer.id for answer in answers}) == 100


async def test_an_error_is_a_reply(client: Client) -> None:
    error = status_pb2.Status(code=5, message="no such thing")
    async with client.consume() as consumer:
        asking = asyncio.create_task(ask(client))
        delivery = await consumer.next()
        await consumer.settle(
            1,
            reject=[
                pb.Reject(
                    lease_id=delivery.lease_id,
                    reason="NOT_FOUND",
                    reply=message_pb2.Reply(error=error),
                )
            ],
        )
        assert (await asking).reply.error == error


async def test_a_request_without_a_reply_ends_with_its_deadline(
    client: Client, redis_url: str
) -> None:
    began = time.time()
    with pytest.raises(rpc.DeadlineExceeded):
        await ask(client, "late", within=0.2)
    async with embedded.redis_client(redis_url) as redis:
        [(_, fields)] = await redis.xrange(f"{queue_key('inbox')}:2")  # type: ignore[union-attr]
    expires = Entry.unpack(fields[b"e"]).expires / 1000  # type: ignore[index,arg-type]
    # A call tells what time is left: to the broker its deadline is later by the length of the way.
    assert began < expires < time.time() + 0.2
    await wait_until(lambda: time.time() > expires)
    async with client.consume() as consumer:
        await client.publish("next")
        assert await consumer.texts(1) == ["next"]
    assert (await client.status()).dead == 1


async def test_an_expiry_that_is_given_stays(client: Client) -> None:
    sent = message("late", expire_time=datetime.now(UTC) + timedelta(seconds=60))
    with pytest.raises(rpc.DeadlineExceeded):
        await client.call("Request", pb.RequestRequest(message=sent), within=0.2)
    async with client.consume() as consumer:
        assert (await consumer.next()).message == sent


async def test_a_repeated_request_gets_the_same_reply(client: Client) -> None:
    async with client.consume() as consumer:
        asking = [asyncio.create_task(ask(client, id="q")) for _ in range(3)]
        await complete(consumer, "first")
        answers = [await one for one in asking]
        answers.append(await ask(client, id="q"))
        await consumer.nothing()
    assert [answer.reply.payload for answer in answers] == [b"first"] * 4


async def test_a_reply_outlasts_the_memory_of_publishes(client: Client) -> None:
    await client.queue(dedupe_window=timedelta(0))
    async with handler(client) as texts:
        for _ in range(2):
            assert (await ask(client, "once", id="q")).reply.payload == b"once!"
        assert texts == ["once"]
    assert (await client.status()).published == 1


async def test_the_reply_may_come_through_another_broker(start: Start) -> None:
    here, there = await start(), await start()
    await here.queue()
    async with there.consume() as consumer:
        asking = asyncio.create_task(ask(here, id="q"))
        await complete(consumer, "from there")
        assert (await asking).reply.payload == b"from there"
    assert (await ask(there, id="q")).reply.payload == b"from there"


async def test_a_ring_that_was_missed_is_made_up_for(redis_server: Any, start: Start) -> None:
    server = redis_server()
    await server.start()
    here, there = await start(server.url), await start(server.url)
    await here.queue()
    async with there.consume() as consumer:
        asking = asyncio.create_task(ask(here, id="q", within=10))
        delivery = await consumer.next()
        # Nobody hears the ring: all connections for bells are gone at that moment.
        await server.do("CLIENT", "KILL", "TYPE", "PUBSUB")
        reply = message_pb2.Reply(payload=b"so")
        await consumer.settle(1, complete=[pb.Completion(lease_id=delivery.lease_id, reply=reply)])
        assert (await asking).reply.payload == b"so"


async def test_requests_that_end_leave_nothing(client: Client, alone: Any) -> None:
    parts, other = await alone()
    for fields in ({}, {"id": ""}):
        with pytest.raises(rpc.DeadlineExceeded):
            await ask(other, within=0.1, **fields)
    with pytest.raises(rpc.NotFound):
        await ask(other, recipient="nobody")
    with pytest.raises(rpc.InvalidArgument) as refused:
        await ask(other, topic="a.b")
    assert refused.value.violations[0][0] == "message.topic"
    assert not parts.requests._waiting
