"""What a consumer is promised, through gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from tests.broker.clients import Client, Consumer, message

from weft import rpc
from weft.broker import Broker
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2 as pb
from weft.v1 import message_pb2

BEAT = timedelta(milliseconds=200)
Connect = Callable[[Broker], Any]


def seconds(value: float) -> Duration:
    found = Duration()
    found.FromTimedelta(timedelta(seconds=value))
    return found


def soon(value: float) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(datetime.now(UTC) + timedelta(seconds=value))
    return found


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Connect]:
    """connect(broker) is a client of a broker."""
    async with contextlib.AsyncExitStack() as stack:

        async def connected(broker: Broker) -> Client:
            return Client(await stack.enter_async_context(rpc.Channel(broker.address)))

        yield connected


@pytest_asyncio.fixture
async def broker(redis_url: str) -> AsyncIterator[Broker]:
    async with Broker(
        redis_url=redis_url, address="127.0.0.1:0", beat=BEAT, grace=timedelta(seconds=1)
    ) as found:
        yield found


@pytest_asyncio.fixture
async def client(broker: Broker, connect: Connect) -> Client:
    found: Client = await connect(broker)
    await found.queue()
    return found


async def dead(client: Client, redis_url: str) -> int:
    return int((await client.status()).dead)


async def test_a_message_comes_as_it_was_published_and_goes_when_it_is_acknowledged(
    client: Client,
) -> None:
    sent = message("hello", method="/a.B/C", attributes={"x": "1"}, traceparent="00-a-b-01")
    await client.call("Publish", pb.PublishRequest(message=sent))
    async with client.consume() as consumer:
        delivery = await consumer.next()
        assert delivery.message == sent
        assert delivery.attempt == 1
        assert abs(delivery.publish_time_ms / 1000 - datetime.now(UTC).timestamp()) < 5
        status = await client.status()
        assert (status.depth, status.pending) == (1, 1)
        await consumer.ack(delivery)
    status = await client.status()
    assert (status.depth, status.pending, status.published, status.acked) == (0, 0, 1, 1)


async def test_credit_is_all_that_is_given(client: Client) -> None:
    await client.publish(*map(str, range(5)))
    async with client.consume(credit=2) as consumer:
        first = await consumer.take(2)
        await consumer.nothing()
        await consumer.ack(*first)
        await consumer.nothing()
        await consumer.say(credit=1)
        assert await consumer.texts(1) == ["2"]
        await consumer.nothing()


async def test_a_message_is_delivered_again_after_the_visibility_timeout(client: Client) -> None:
    await client.queue(visibility_timeout=seconds(0.2))
    await client.publish("once more")
    async with client.consume(credit=1) as hung, client.consume(credit=0) as other:
        first = await hung.next()
        await other.say(credit=1)
        again = await other.next()
        assert (again.message, again.attempt) == (first.message, 2)
        await hung.settle(1, ack=[first.lease_id])
        [failure] = hung.failures
        assert failure.status.code == 9
        info = error_details_pb2.ErrorInfo()
        failure.status.details[0].Unpack(info)
        assert info.reason == "LEASE_EXPIRED"
        await other.ack(again)
    assert (await client.status()).depth == 0


async def test_never_two_have_it_while_the_lease_is_extended(client: Client) -> None:
    await client.queue(visibility_timeout=seconds(0.2))
    await client.publish("mine")
    async with client.consume(credit=1) as slow, client.consume(credit=1) as other:
        for consumer in (slow, other):
            with contextlib.suppress(TimeoutError):
                delivery = await consumer.next(0.1)
                owner, idle = (slow, other) if consumer is slow else (other, slow)
        for _ in range(6):
            await owner.settle(1, extensions=[delivery.lease_id])
            await idle.nothing(0.1)
        await owner.ack(delivery)
    assert (await client.status()).acked == 1


async def test_a_second_acknowledgement_is_told_that_there_is_no_such_lease(
    client: Client,
) -> None:
    await client.publish("one")
    async with client.consume() as consumer:
        delivery = await consumer.next()
        await consumer.ack(delivery)
        await consumer.ack(delivery)
        await consumer.settle(2, nack=[pb.Nack(lease_id="2:9-9"), pb.Nack(lease_id="nonsense")])
    reasons = []
    for failure in consumer.failures:
        info = error_details_pb2.ErrorInfo()
        failure.status.details[0].Unpack(info)
        reasons.append(info.reason)
    assert reasons == ["LEASE_UNKNOWN"] * 3


async def test_a_nack_with_a_delay_brings_it_back_then(client: Client) -> None:
    await client.publish("later")
    async with client.consume() as consumer:
        delivery = await consumer.next()
        nack = pb.Nack(lease_id=delivery.lease_id, delay=seconds(0.3), error="not yet")
        began = asyncio.get_running_loop().time()
        await consumer.settle(1, nack=[nack])
        again = await consumer.next()
        assert 0.28 < asyncio.get_running_loop().time() - began < 0.6
        assert again.attempt == 2


async def test_a_message_that_always_fails_becomes_a_dead_letter(client: Client) -> None:
    await client.queue(max_attempts=3, backoff=seconds(0.01))
    await client.publish("bad")
    async with client.consume() as consumer:
        for attempt in (1, 2, 3):
            delivery = await consumer.next()
            assert delivery.attempt == attempt
            await consumer.settle(1, nack=[pb.Nack(lease_id=delivery.lease_id, error="no")])
        await consumer.nothing()
    status = await client.status()
    assert (status.depth, status.dead) == (0, 1)


async def test_an_unused_message_goes_back_with_the_same_attempt(client: Client) -> None:
    await client.publish("unused")
    async with client.consume(credit=1) as consumer:
        delivery = await consumer.next()
        await consumer.settle(1, nack=[pb.Nack(lease_id=delivery.lease_id, unused=True)])
        await consumer.say(credit=1)
        assert (await consumer.next()).attempt == 1


async def test_an_expired_message_is_not_delivered(client: Client) -> None:
    async with client.consume(credit=0) as consumer:
        await client.publish("gone", expire_time=soon(0.15))
        await client.publish("here")
        await asyncio.sleep(0.2)  # it is time that is tested
        await consumer.say(credit=10)
        assert await consumer.texts(1) == ["here"]
        await consumer.nothing()
    assert (await client.status()).dead == 1


async def test_a_delayed_message_waits_and_does_not_hold_up_others(client: Client) -> None:
    async with client.consume() as consumer:
        began = asyncio.get_running_loop().time()
        await client.publish("later", not_before=soon(0.3))
        await client.publish("now")
        assert await consumer.texts(2) == ["now", "later"]
        assert asyncio.get_running_loop().time() - began < 0.5
    assert (await client.status()).delayed == 0


async def test_priorities_have_their_shares_and_the_lowest_never_starves(client: Client) -> None:
    for priority in ("HIGH", "NORMAL", "LOW"):
        value = message_pb2.Priority.Value(f"PRIORITY_{priority}")
        await client.publish(*[priority] * 40, priority=value)
    async with client.consume(credit=12) as consumer:
        seen: list[str] = []
        while len(seen) < 60:
            delivery = await consumer.next()
            seen.append(delivery.message.payload.decode())
            await consumer.ack(delivery)
            await consumer.say(credit=1)
    counts = Counter(seen[:48])
    assert counts["HIGH"] >= 30
    assert counts["NORMAL"] >= 10
    assert counts["LOW"] >= 3


async def test_messages_of_a_key_come_in_order_one_at_a_time_whoever_consumes(
    client: Client,
) -> None:
    for number in range(5):
        await client.publish(f"a{number}", key="a")
        await client.publish(f"b{number}", key="b")
    in_hand: Counter[str] = Counter()
    order: list[str] = []

    async def work(consumer: Consumer) -> None:
        while len(order) < 10:
            try:
                delivery = await consumer.next(0.5)
            except TimeoutError:
                continue
            key = delivery.message.key
            in_hand[key] += 1
            assert in_hand[key] == 1
            await asyncio.sleep(0.005)  # work
            order.append(delivery.message.payload.decode())
            in_hand[key] -= 1
            await consumer.ack(delivery)

    async with (
        client.consume(credit=50) as one,
        client.consume(credit=50) as two,
        asyncio.TaskGroup() as both,
    ):
        both.create_task(work(one))
        both.create_task(work(two))
    for key in "ab":
        assert [text for text in order if text[0] == key] == [f"{key}{n}" for n in range(5)]


async def test_a_key_waits_for_its_retry(client: Client) -> None:
    await client.publish("first", "second", key="k")
    async with client.consume() as consumer:
        delivery = await consumer.next()
        await consumer.settle(
            1, nack=[pb.Nack(lease_id=delivery.lease_id, delay=seconds(0.2), error="no")]
        )
        assert await consumer.texts(1) == ["first"]
        await consumer.nothing(0.05)


async def test_a_slow_consumer_slows_nobody(client: Client) -> None:
    stalled = client.stub.Consume()
    await stalled.write(
        pb.ConsumeRequest(open=pb.ConsumeOpen(queue="inbox", consumer="stalled"), credit=0)
    )
    await stalled.write(pb.ConsumeRequest(credit=100_000))  # and never reads
    big = "x" * 50_000
    async with client.consume(credit=1_000) as quick:
        for _ in range(400):
            await client.publish(big)
        received = 0
        with contextlib.suppress(TimeoutError):
            while True:
                delivery = await quick.next(0.5)
                await quick.ack(delivery)
                received += 1
        # What fits into buffers may be with the stalled one; everything else has gone on.
        assert received > 150
    stalled.cancel()


async def test_a_broken_stream_is_resumed_with_what_was_in_hand(client: Client) -> None:
    await client.queue(visibility_timeout=seconds(0.5))
    await client.publish("one", "two")
    async with client.consume() as consumer:
        held = await consumer.take(2)
    lease_ids = [one.lease_id for one in held]
    async with client.consume(resume=[*lease_ids, "2:1-1", "nonsense"]) as again:
        assert sorted(again.opened.lost) == ["2:1-1", "nonsense"]
        await again.ack(*held)
        await again.nothing(0.7)
    status = await client.status()
    assert (status.depth, status.acked) == (0, 2)


async def test_what_a_former_stream_of_a_session_was_sent_and_nobody_got_comes_again_at_once(
    client: Client,
) -> None:
    await client.publish("one", "two")
    async with client.consume(session="s") as lost:
        kept, _ = await lost.take(2)
    async with client.consume(session="s", resume=[kept.lease_id]) as again:
        [delivery] = await again.take(1)
        assert (delivery.message.payload, delivery.attempt) == (b"two", 1)
        await again.ack(kept, delivery)
    assert (await client.status()).depth == 0


@pytest.mark.parametrize("session", ["", "other"])
async def test_what_another_session_has_is_its_own(client: Client, session: str) -> None:
    await client.publish("one")
    async with client.consume(session="s" if session else "") as consumer:
        delivery = await consumer.next()
        async with client.consume(session=session) as other:
            await other.nothing()
        await consumer.ack(delivery)


async def test_another_broker_resumes_what_was_in_hand(
    client: Client, connect: Connect, redis_url: str
) -> None:
    await client.queue(visibility_timeout=seconds(2))
    await client.publish("one")
    async with client.consume() as consumer:
        [delivery] = await consumer.take(1)
    async with Broker(redis_url=redis_url, address="127.0.0.1:0", beat=BEAT) as second:
        other = await connect(second)
        async with other.consume(resume=[delivery.lease_id]) as again:
            assert not again.opened.lost
            for _ in range(6):
                await again.settle(1, extensions=[delivery.lease_id])
                await again.nothing(0.4)  # the first broker's timeout passes meanwhile
            await again.ack(delivery)
    status = await client.status()
    assert (status.depth, status.acked) == (0, 1)


async def test_a_consumer_that_leaves_in_good_order_gives_its_messages_back_at_once(
    client: Client,
) -> None:
    await client.publish("one", "two")
    async with client.consume() as consumer:
        first, _ = await consumer.take(2)
        await consumer.ack(first)
        await consumer.leave()
    async with client.consume() as other:
        again = await other.next(1)
        assert (again.message.payload, again.attempt) == (b"two", 1)


async def test_brokers_share_a_queue(client: Client, connect: Connect, redis_url: str) -> None:
    async with Broker(redis_url=redis_url, address="127.0.0.1:0", beat=BEAT) as second:
        other = await connect(second)
        async with other.consume() as consumer:
            await client.publish("over there")
            assert await consumer.texts(1) == ["over there"]
            await client.publish("later", not_before=soon(0.1))
            assert await consumer.texts(1) == ["later"]


async def test_what_a_dead_broker_had_in_hand_goes_on(
    client: Client, connect: Connect, redis_url: str
) -> None:
    await client.queue(visibility_timeout=seconds(0.2))
    dying = Broker(redis_url=redis_url, address="127.0.0.1:0", beat=BEAT)
    async with dying:
        other = await connect(dying)
        async with other.consume() as doomed, client.consume(credit=0) as survivor:
            await client.publish("one")
            await doomed.next()
            assert dying._running is not None
            dying._running.cancel()  # as good as dead: it neither beats nor settles
            await survivor.say(credit=1)
            again = await survivor.next()
            assert (again.message.payload, again.attempt) == (b"one", 2)
            await survivor.ack(again)
        with contextlib.suppress(asyncio.CancelledError, rpc.Error):
            await dying.wait()
        dying._running = None


async def test_a_paused_queue_takes_messages_and_gives_none(client: Client) -> None:
    await client.call("PauseQueue", pb.PauseQueueRequest(queue="inbox"))
    async with client.consume() as consumer:
        await client.publish("waits")
        await consumer.nothing()
        assert (await client.status()).paused
        await client.call("ResumeQueue", pb.ResumeQueueRequest(queue="inbox"))
        assert await consumer.texts(1) == ["waits"]


async def test_a_broker_that_stops_tells_its_consumers_and_loses_nothing(
    redis_url: str, connect: Connect, client: Client
) -> None:
    stopping = Broker(
        redis_url=redis_url, address="127.0.0.1:0", beat=BEAT, grace=timedelta(seconds=1)
    )
    await stopping.__aenter__()
    other = await connect(stopping)
    async with other.consume() as consumer:
        await client.publish("one", "two")
        first, _ = await consumer.take(2)
        stopped = asyncio.create_task(stopping.stop())
        async with asyncio.timeout(5):
            await consumer.draining.wait()
        await consumer.ack(first)
        await consumer.leave()
        await stopped
    async with client.consume() as later:
        assert [(one.message.payload, one.attempt) for one in await later.take(1)] == [(b"two", 1)]


@pytest.mark.parametrize(
    ("frames", "field"),
    [
        ([pb.ConsumeRequest(credit=1)], "open"),
        ([pb.ConsumeRequest(open=pb.ConsumeOpen(queue="No Name"))], "open.queue"),
        (
            [pb.ConsumeRequest(open=pb.ConsumeOpen(queue="inbox", session="x" * 101))],
            "open.session",
        ),
        (
            [pb.ConsumeRequest(open=pb.ConsumeOpen(queue="inbox", consumer="x" * 201))],
            "open.consumer",
        ),
        (
            [pb.ConsumeRequest(open=pb.ConsumeOpen(queue="inbox"), credit=100_001)],
            "credit",
        ),
        (
            [
                pb.ConsumeRequest(open=pb.ConsumeOpen(queue="inbox"), credit=100_000),
                pb.ConsumeRequest(credit=1),
            ],
            "credit",
        ),
        ([pb.ConsumeRequest(open=pb.ConsumeOpen(queue="inbox"))] * 2, "open"),
        (
            [
                pb.ConsumeRequest(
                    open=pb.ConsumeOpen(queue="inbox"), reject=[pb.Reject(lease_id="2:1-1")]
                )
            ],
            "reject.reason",
        ),
        (
            [
                pb.ConsumeRequest(
                    open=pb.ConsumeOpen(queue="inbox"),
                    nack=[pb.Nack(lease_id="2:1-1", delay=Duration(seconds=-1))],
                )
            ],
            "nack.delay",
        ),
    ],
)
async def test_frames_that_may_not_come_are_named(
    client: Client, frames: list[pb.ConsumeRequest], field: str
) -> None:
    stream = client.stub.Consume()
    consumer = Consumer(stream)
    for frame in frames:
        await stream.write(frame)
    with pytest.raises(rpc.InvalidArgument) as caught:
        await consumer.last()
    assert [path for path, _ in caught.value.violations] == [field]


async def test_a_queue_that_nobody_made_cannot_be_consumed(client: Client) -> None:
    stream = client.stub.Consume()
    await stream.write(pb.ConsumeRequest(open=pb.ConsumeOpen(queue="nowhere")))
    with pytest.raises(rpc.NotFound) as caught:
        await Consumer(stream).frame()
    assert caught.value.reason == "QUEUE_UNKNOWN"


async def test_who_consumes_is_shown(client: Client) -> None:
    await client.publish("one")
    async with client.consume(credit=7, consumer="worker 1") as consumer:
        await consumer.next()
        [shown] = (await client.status()).consumers
        assert (shown.consumer, shown.pending, shown.credit) == ("worker 1", 1, 6)
    await wait_until(lambda: nobody(client))


async def nobody(client: Client) -> bool:
    return not (await client.status()).consumers
