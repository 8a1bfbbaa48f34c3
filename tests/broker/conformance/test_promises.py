"""Each promise of the broker, through its gRPC API, on every store that it supports."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tests.broker.clients import Client, message

from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2 as pb
from weft.v1 import message_pb2


def duration(seconds: float) -> Duration:
    found = Duration()
    found.FromTimedelta(timedelta(seconds=seconds))
    return found


def at(seconds: float) -> Timestamp:
    """So many seconds from now."""
    found = Timestamp()
    found.FromNanoseconds(time.time_ns() + int(seconds * 1e9))
    return found


async def is_empty(client: Client, queue: str = "inbox") -> bool:
    status = await client.status(queue)
    return not (status.depth or status.pending or status.blocked or status.delayed)


async def test_what_is_published_is_delivered_and_gone_once_acknowledged(client: Client) -> None:
    await client.queue()
    await client.publish("a", "b", "c")
    async with client.consume() as consumer:
        got = await consumer.take(3)
        assert [one.message.payload for one in got] == [b"a", b"b", b"c"]
        assert {one.attempt for one in got} == {1}
        assert (await client.status()).pending == 3
        await consumer.ack(*got)
    assert await is_empty(client)
    assert (await client.status()).acked == 3


async def test_queues_of_all_shards(client: Client) -> None:
    names = [f"inbox-{number}" for number in range(40)]
    for name in names:
        await client.queue(name)
        await client.publish(name, recipient=name)
    for name in names:
        async with client.consume(name) as consumer:
            delivery = await consumer.next()
            assert delivery.message.payload.decode() == name
            await consumer.ack(delivery)
        assert await is_empty(client, name)


async def test_a_repeated_publish_is_stored_once(client: Client) -> None:
    await client.queue()
    request = pb.PublishRequest(message=message("once", id="same"))
    assert not (await client.call("Publish", request)).duplicate
    assert (await client.call("Publish", request)).duplicate
    async with client.consume() as consumer:
        await consumer.ack(await consumer.next())
        await consumer.nothing()
    assert (await client.call("Publish", request)).duplicate


async def test_messages_of_a_key_come_one_after_the_other_and_others_go_on(client: Client) -> None:
    await client.queue()
    for number in range(3):
        await client.publish(f"a{number}", key="a")
        await client.publish(f"b{number}", key="b")
    async with client.consume(credit=10) as first, client.consume(credit=10) as second:
        for number in range(3):
            await wait_until(lambda: first.deliveries.qsize() + second.deliveries.qsize() == 2)
            got = []
            for consumer in (first, second):
                while not consumer.deliveries.empty():
                    got.append((consumer, consumer.deliveries.get_nowait()))
            assert {one.message.payload.decode() for _, one in got} == {f"a{number}", f"b{number}"}
            for consumer, one in got:
                await consumer.ack(one)
    assert await is_empty(client)


async def test_the_lowest_priority_has_its_share(client: Client) -> None:
    await client.queue()
    levels = {"high": 1, "normal": 2, "low": 3}
    for text, priority in levels.items():
        await client.publish(*[text] * 24, priority=priority)
    async with client.consume(credit=24) as consumer:
        texts = await consumer.texts(24)
    assert [texts.count(text) for text in levels] == [16, 6, 2]


async def test_a_delayed_message_comes_at_its_time(client: Client) -> None:
    await client.queue()
    async with client.consume() as consumer:
        due = time.time() + 0.3
        await client.publish("later", not_before=at(0.3))
        await client.publish("now")
        assert await consumer.texts(2) == ["now", "later"]
        assert due <= time.time() < due + 0.25


async def test_an_expired_message_is_a_dead_letter(client: Client) -> None:
    await client.queue()
    await client.publish("late", expire_time=at(0.1))
    await asyncio.sleep(0.12)
    async with client.consume() as consumer:
        await consumer.nothing()
        await wait_until(lambda: has_dead(client, "EXPIRED"))
    assert await is_empty(client)


async def has_dead(client: Client, reason: str) -> bool:
    request = pb.ListDeadLettersRequest(queue="inbox")
    letters = (await client.call("ListDeadLetters", request)).dead_letters
    return [letter.reason for letter in letters] == [reason]


async def test_a_message_that_fails_is_tried_again_and_then_kept_with_its_reason(
    client: Client,
) -> None:
    await client.queue(max_attempts=2, backoff=duration(0.01))
    await client.publish("bad")
    async with client.consume() as consumer:
        for attempt in (1, 2):
            delivery = await consumer.next()
            assert delivery.attempt == attempt
            await consumer.settle(1, nack=[pb.Nack(lease_id=delivery.lease_id, error="no use")])
        [letter] = (
            await client.call("ListDeadLetters", pb.ListDeadLettersRequest(queue="inbox"))
        ).dead_letters
        assert (letter.reason, letter.error, letter.attempts) == ("MAX_ATTEMPTS", "no use", 2)
        selection = pb.DeadLetterSelection(dead_letter_ids=[letter.dead_letter_id])
        await client.call(
            "RequeueDeadLetters", pb.RequeueDeadLettersRequest(queue="inbox", selection=selection)
        )
        again = await consumer.next()
        assert (again.message.payload, again.attempt) == (b"bad", 1)
        await consumer.ack(again)
    assert await is_empty(client)


async def test_a_rejected_message_is_dead_at_once(client: Client) -> None:
    await client.queue()
    await client.publish("bad")
    async with client.consume() as consumer:
        lease = (await consumer.next()).lease_id
        await consumer.settle(1, reject=[pb.Reject(lease_id=lease, reason="UNFIT", error="no")])
    assert await has_dead(client, "UNFIT")


async def test_a_lease_that_runs_out_gives_the_message_to_another(client: Client) -> None:
    await client.queue(visibility_timeout=duration(0.3))
    await client.publish("held")
    async with client.consume() as first, client.consume() as second:
        await wait_until(lambda: first.deliveries.qsize() + second.deliveries.qsize() == 1)
        holder, other = (first, second) if first.deliveries.qsize() else (second, first)
        held = await holder.next()
        for _ in range(3):
            await other.nothing(0.15)
            await holder.settle(1, extensions=[held.lease_id])
        await wait_until(lambda: first.deliveries.qsize() + second.deliveries.qsize() == 1)
        heir = first if first.deliveries.qsize() else second
        again = await heir.next()
        assert again.attempt == 2
        await holder.settle(1, ack=[held.lease_id])
        assert [failure.lease_id for failure in holder.failures] == [held.lease_id]
        await heir.ack(again)
    assert await is_empty(client)


async def test_a_request_has_the_reply_of_its_handler_however_often_it_is_made(
    client: Client,
) -> None:
    await client.queue()
    request = pb.RequestRequest(message=message("question", id="asked"))

    async with client.consume() as consumer:

        async def answer() -> None:
            delivery = await consumer.next()
            reply = message_pb2.Reply(payload=delivery.message.payload + b"!")
            completion = pb.Completion(lease_id=delivery.lease_id, reply=reply)
            await consumer.settle(1, complete=[completion])

        asked, _ = await asyncio.gather(client.call("Request", request), answer())
        assert asked.reply.payload == b"question!"
        assert (await client.call("Request", request)).reply.payload == b"question!"
    assert await is_empty(client)


async def test_a_topic_message_reaches_every_subscription_that_matches(client: Client) -> None:
    patterns = {"all": "orders.>", "created": "orders.*.created", "us": "orders.us.*"}
    for queue, pattern in patterns.items():
        subscription = pb.Subscription(name=f"sub-{queue}", pattern=pattern, queue=queue)
        await client.call("Subscribe", pb.SubscribeRequest(subscription=subscription, declare=True))
    await client.publish("one", topic="orders.eu.created")
    await client.publish("two", topic="orders.us.paid")
    for queue, expected in {"all": {"one", "two"}, "created": {"one"}, "us": {"two"}}.items():
        async with client.consume(queue) as consumer:
            got = await consumer.take(len(expected))
            assert {one.message.payload.decode() for one in got} == expected
            await consumer.ack(*got)
            await consumer.nothing(0.05)


async def test_a_broadcast_reaches_every_queue_that_matches(client: Client) -> None:
    for queue in ("support-a", "support-b", "other"):
        await client.queue(queue)
    said = message("all of you")
    said.ClearField("recipient")
    request = pb.BroadcastRequest(message=said, pattern="support-*")
    assert set((await client.call("Broadcast", request)).queues) == {"support-a", "support-b"}
    for queue in ("support-a", "support-b"):
        async with client.consume(queue) as consumer:
            assert await consumer.texts(1) == ["all of you"]
    assert (await client.status("other")).depth == 0


async def test_a_paused_queue_takes_and_does_not_deliver(client: Client) -> None:
    await client.queue()
    async with client.consume() as consumer:
        await client.call("PauseQueue", pb.PauseQueueRequest(queue="inbox"))
        await client.publish("waits")
        await consumer.nothing()
        await client.call("ResumeQueue", pb.ResumeQueueRequest(queue="inbox"))
        assert await consumer.texts(1) == ["waits"]


async def test_a_purge_drops_what_nobody_has_in_hand(client: Client) -> None:
    await client.queue()
    await client.publish("in hand")
    async with client.consume(credit=1) as consumer:
        held = await consumer.next()
        await client.publish("a", "b", key="k")
        await client.publish("c", not_before=at(60))
        purged = (await client.call("PurgeQueue", pb.PurgeQueueRequest(queue="inbox"))).purged
        assert purged == 3
        await consumer.ack(held)
    assert await is_empty(client)


async def test_history_and_replay_tell_what_was_and_move_nothing(archiving: Client) -> None:
    client = archiving
    await client.queue()
    await client.publish("done", id="first")
    await client.publish("live", id="second")
    async with client.consume(credit=1) as consumer:
        await consumer.ack(await consumer.next())
        await wait_until(lambda: outcomes(client, [pb.OUTCOME_LIVE, pb.OUTCOME_ACKED]))
        replayed = [
            record.message.payload
            async for page in client.stub.Replay(pb.ReplayRequest(queue="inbox"), timeout=5)
            for record in page.records
        ]
        assert replayed == [b"done", b"live"]
        await consumer.say(credit=1)
        assert await consumer.texts(1) == ["live"]


async def outcomes(client: Client, expected: list[pb.Outcome]) -> bool:
    records = (await client.call("History", pb.HistoryRequest(queue="inbox"))).records
    return [record.outcome for record in records] == expected


@pytest.mark.parametrize(
    "durability", [message_pb2.DURABILITY_MEMORY, message_pb2.DURABILITY_DURABLE]
)
async def test_every_class_of_durability_is_taken(
    client: Client, durability: message_pb2.Durability
) -> None:
    await client.queue(durability=durability)
    await client.publish("safe")
    async with client.consume() as consumer:
        await consumer.ack(await consumer.next())
    assert await is_empty(client)
