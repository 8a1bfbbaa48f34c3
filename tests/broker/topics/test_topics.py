"""What subscribers are promised, through gRPC."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.broker.clients import Client, message
from tests.broker.topics.conftest import Start

from weft import embedded, rpc
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2 as pb
from weft.v1 import message_pb2


async def subscribe(
    client: Client, name: str, pattern: str, queue: str = "", *, declare: bool = True
) -> None:
    one = pb.Subscription(name=name, pattern=pattern, queue=queue or name)
    await client.call("Subscribe", pb.SubscribeRequest(subscription=one, declare=declare))


async def publish(client: Client, topic: str, text: str = "", **more: Any) -> None:
    await client.call(
        "Publish", pb.PublishRequest(message=message(text or topic, topic=topic, **more))
    )


async def depths(client: Client, *queues: str) -> list[int]:
    return [(await client.status(queue)).depth for queue in queues]


async def topic_queues(client: Client) -> list[pb.QueueStatus]:
    found = await client.call("ListQueues", pb.ListQueuesRequest(pattern="_topics.*"))
    return list(found.queues)


async def routed(client: Client) -> bool:
    """Whether no message waits to be routed."""
    queues = await topic_queues(client)
    return len(queues) == 16 and not any(queue.depth for queue in queues)


async def dead(client: Client) -> list[str]:
    """Topic queues that have a dead letter."""
    return [queue.queue for queue in await topic_queues(client) if queue.dead]


async def test_each_queue_gets_what_its_patterns_match_once(client: Client) -> None:
    await subscribe(client, "all", ">")
    await subscribe(client, "eu", "orders.eu.*")
    await subscribe(client, "created", "orders.*.created")
    await subscribe(client, "created-too", "orders.eu.>", "created")
    for topic in ("orders.eu.created", "orders.us.created", "orders.eu.lines.added", "news"):
        await publish(client, topic)
    async with (
        client.consume("all") as everything,
        client.consume("eu") as eu,
        client.consume("created") as created,
    ):
        assert len(await everything.texts(4)) == 4
        assert await eu.texts(1) == ["orders.eu.created"]
        assert sorted(await created.texts(3)) == [
            "orders.eu.created",
            "orders.eu.lines.added",
            "orders.us.created",
        ]
        await eu.nothing()
        await created.nothing()


async def test_copies_are_made_wherever_their_queues_are(start: Start, any_redis_url: str) -> None:
    client = await start(any_redis_url)
    queues = [f"everywhere-{number}" for number in range(8)]
    for queue in queues:
        await subscribe(client, queue, "a.*")
    await asyncio.gather(*(publish(client, "a.b", key=f"{number}") for number in range(20)))
    await wait_until(lambda: routed(client))
    assert await depths(client, *queues) == [20] * 8


async def test_a_copy_is_the_message_as_it_was_published(client: Client) -> None:
    await subscribe(client, "one", "a.*")
    expiry = datetime.now(UTC) + timedelta(hours=1)
    sent = message(
        "hello",
        topic="a.b",
        key="k",
        priority=message_pb2.PRIORITY_HIGH,
        expire_time=expiry,
        attributes={"color": "red"},
    )
    await client.call("Publish", pb.PublishRequest(message=sent))
    async with client.consume("one") as consumer:
        delivery = await consumer.next()
    assert delivery.message == sent
    assert delivery.attempt == 1


async def test_an_expiry_holds_for_copies(client: Client) -> None:
    await subscribe(client, "one", "a")
    expiry = datetime.now(UTC) + timedelta(milliseconds=300)
    await publish(client, "a", expire_time=expiry)
    await wait_until(lambda: routed(client))
    await wait_until(lambda: datetime.now(UTC) > expiry)
    async with client.consume("one") as consumer:
        await consumer.nothing()
        assert (await client.status("one")).dead == 1


async def test_a_message_accepted_after_the_answer_is_copied_whoever_routes_it(
    start: Start,
) -> None:
    clients = [await start(), await start()]
    for number in range(25):
        one, other = clients[number % 2], clients[(number + 1) % 2]
        await subscribe(one, f"s{number}", f"t{number}.*")
        await asyncio.gather(*(publish(other, f"t{number}.x") for _ in range(4)))
    await wait_until(lambda: routed(clients[0]))
    assert await depths(clients[0], *(f"s{number}" for number in range(25))) == [4] * 25


async def test_subscriptions_outlive_the_brokers(start: Start, redis_url: str) -> None:
    first = await start()
    await subscribe(first, "kept", "a.>")
    await subscribe(first, "ended", "a.>")
    await first.call("Unsubscribe", pb.UnsubscribeRequest(name="ended"))
    second = await start()
    listed = await second.call("ListSubscriptions", pb.ListSubscriptionsRequest())
    assert [one.name for one in listed.subscriptions] == ["kept"]
    await publish(second, "a.b")
    await wait_until(lambda: routed(second))
    assert await depths(second, "kept", "ended") == [1, 0]
    async with embedded.redis_client(redis_url) as redis:
        assert await redis.hkeys("{weft}:subs") == [b"kept"]


async def test_a_subscription_is_replaced_by_one_of_its_name(start: Start) -> None:
    one, other = await start(), await start()
    await subscribe(one, "s", "a")
    await publish(one, "a")
    await wait_until(lambda: routed(one))
    await subscribe(other, "s", "b", "t")
    for topic in ("a", "b"):
        await publish(one, topic)
    await wait_until(lambda: routed(one))
    assert await depths(one, "s", "t") == [1, 1]


async def test_subscriptions_are_listed_by_page_and_queue(client: Client) -> None:
    for number in range(5):
        await subscribe(client, f"s{number}", "a", "even" if number % 2 == 0 else "odd")

    async def names(**fields: Any) -> list[str]:
        found: list[str] = []
        request = pb.ListSubscriptionsRequest(page_size=2, **fields)
        while True:
            page = await client.call("ListSubscriptions", request)
            assert len(page.subscriptions) <= 2
            found += [one.name for one in page.subscriptions]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    assert await names() == ["s0", "s1", "s2", "s3", "s4"]
    assert await names(queue="even") == ["s0", "s2", "s4"]
    assert await names(queue="none") == []


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"name": ""}, "subscription.name"),
        ({"name": "A"}, "subscription.name"),
        ({"name": "a" * 129}, "subscription.name"),
        ({"pattern": ""}, "subscription.pattern"),
        ({"pattern": "a.>.b"}, "subscription.pattern"),
        ({"queue": "_topics.0"}, "subscription.queue"),
        ({"queue": ""}, "subscription.queue"),
    ],
)
async def test_what_is_wrong_with_a_subscription_is_named(
    client: Client, fields: dict[str, str], path: str
) -> None:
    one = pb.Subscription(**{"name": "s", "pattern": "a", "queue": "q", **fields})
    with pytest.raises(rpc.InvalidArgument) as refused:
        await client.call("Subscribe", pb.SubscribeRequest(subscription=one, declare=True))
    assert [found for found, _ in refused.value.violations] == [path]


async def test_what_is_not_there_is_said(client: Client) -> None:
    with pytest.raises(rpc.NotFound) as refused:
        await subscribe(client, "s", "a", "nowhere", declare=False)
    assert refused.value.reason == "QUEUE_UNKNOWN"
    with pytest.raises(rpc.NotFound) as refused:
        await client.call("Unsubscribe", pb.UnsubscribeRequest(name="s"))
    assert refused.value.reason == "SUBSCRIPTION_UNKNOWN"


async def test_keys_keep_their_order_over_two_routers(start: Start) -> None:
    clients = [await start(), await start()]
    await subscribe(clients[0], "one", "t.>")
    await subscribe(clients[0], "two", "*.x")

    async def send(key: str) -> None:
        for number in range(30):
            await publish(clients[number % 2], "t.x", f"{number}", key=key)

    keys = ("a", "b", "c", "d")
    await asyncio.gather(*map(send, keys))
    for queue in ("one", "two"):
        texts: dict[str, list[int]] = {key: [] for key in keys}
        async with clients[0].consume(queue, credit=1000) as consumer:
            for _ in range(30 * len(keys)):
                delivery = await consumer.next()
                texts[delivery.message.key].append(int(delivery.message.payload))
                await consumer.ack(delivery)
        assert texts == {key: list(range(30)) for key in keys}


async def test_a_full_queue_delays_its_own_copies_only(client: Client) -> None:
    await client.queue("full", max_depth=1)
    await subscribe(client, "full", "a", declare=False)
    await subscribe(client, "free", "a")
    # Without a dedupe window only the notes keep what was accepted from being stored again.
    await client.queue("free", dedupe_window=timedelta(0))
    await asyncio.gather(*(publish(client, "a", f"{number}") for number in range(4)))

    async def copied() -> bool:
        return (await client.status("free")).published == 4

    await wait_until(copied)
    taken: Counter[bytes] = Counter()
    async with client.consume("full") as consumer:
        for _ in range(4):
            delivery = await consumer.next(within=10)
            taken[delivery.message.payload] += 1
            await consumer.ack(delivery)
    assert sorted(taken) == [b"0", b"1", b"2", b"3"]
    await wait_until(lambda: routed(client))
    assert (await client.status("free")).published == 4


async def test_a_queue_that_is_gone_gets_nothing(client: Client) -> None:
    await subscribe(client, "gone", "a")
    await subscribe(client, "there", "a")
    await client.call("DeleteQueue", pb.DeleteQueueRequest(queue="gone"))
    await publish(client, "a")
    await wait_until(lambda: routed(client))
    assert await depths(client, "there") == [1]
    listed = await client.call("ListQueues", pb.ListQueuesRequest())
    assert "gone" not in {queue.queue for queue in listed.queues}


async def test_what_no_one_can_copy_ends_in_the_dead_letters(
    client: Client, redis_url: str
) -> None:
    await client.queue("full", max_depth=1)
    await subscribe(client, "full", "a", declare=False)
    await client.publish("x", recipient="full")
    await publish(client, "a", "late")
    # Its attempts go on for minutes: the last one is made the next.
    async with embedded.redis_client(redis_url) as redis:

        async def delayed() -> bool:
            for base in await redis.keys("*:q:_topics.*:h"):
                for number, stored in (await redis.hgetall(base)).items():
                    assert isinstance(stored, bytes)
                    last = stored[:2] + (20).to_bytes(2, "big") + stored[4:]
                    await redis.hset(base, number, last)
                    return True
            return False

        await wait_until(delayed)

    await wait_until(lambda: dead(client))
    (queue,) = await dead(client)
    listed = await client.call("ListDeadLetters", pb.ListDeadLettersRequest(queue=queue))
    (letter,) = listed.dead_letters
    assert letter.reason == "MAX_ATTEMPTS"
    assert "COPIES_REFUSED" in letter.error
    assert "full: QUEUE_FULL" in letter.error
    assert letter.message.payload == b"late"


async def test_large_messages_are_copied(start: Start, database_url: str) -> None:
    client = await start(database_url=database_url)
    await subscribe(client, "one", "a")
    await subscribe(client, "two", "a")
    text = "x" * 1_000_000
    await publish(client, "a", text)
    for queue in ("one", "two"):
        async with client.consume(queue) as consumer:
            delivery = await consumer.next()
            assert delivery.message.payload == text.encode()
            await consumer.ack(delivery)


async def test_messages_without_subscribers_go(client: Client) -> None:
    await publish(client, "nobody.cares")
    await wait_until(lambda: routed(client))
    assert await dead(client) == []
