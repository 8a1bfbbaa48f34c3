"""PublishStream: many messages a frame, answers in batches, as far ahead as there is room."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any, cast

from tests.broker.clients import Client, message
from tests.broker.publishing.conftest import Start, connected
from tests.broker.publishing.publishers import publishing

from weft import embedded, rpc
from weft.broker import Broker
from weft.broker.errors import StoreUnavailable
from weft.broker.layout import Entry, queue_key
from weft.broker.publishing.answers import Answers
from weft.v1 import broker_pb2 as pb
from weft.v1 import message_pb2


async def test_all_messages_are_answered_in_few_frames(client: Client) -> None:
    async with publishing(client) as publisher:
        for _ in range(4):
            await publisher.send([message() for _ in range(500)])
        await publisher.end()
        assert publisher.error is None
        assert publisher.accepted == Counter(range(2_000))
        assert not publisher.duplicates
        assert publisher.frames <= 12
    assert (await client.status()).depth == 2_000


async def test_a_stream_that_sends_nothing_ends(client: Client) -> None:
    async with publishing(client) as publisher:
        await publisher.send([])
        await publisher.end()
        assert publisher.error is None


async def test_duplicates_are_accepted_and_told(client: Client) -> None:
    same = [message(id=f"m{number % 10}") for number in range(30)]
    async with publishing(client) as publisher:
        await publisher.send(same)
        await publisher.answered()
        assert publisher.accepted == Counter(range(30))
        assert publisher.duplicates == set(range(10, 30))
    assert (await client.status()).depth == 10


async def test_each_refusal_has_its_number_and_its_reason(start: Start) -> None:
    client = await start(max_message=2_000)
    await client.queue()
    await client.queue("small", max_depth=1)
    frame = [
        message(),
        message(key="k" * 257),
        message(recipient="nobody"),
        message(recipient="No Body"),
        message("x" * 2_000),
        message(recipient="small"),
        message(recipient="small"),
        message(topic="a.b"),
        message(),
    ]
    async with publishing(client) as publisher:
        await publisher.send([message()])
        await publisher.send(frame)
        await publisher.answered()
        assert sorted(publisher.accepted) == [0, 1, 6, 8, 9]
        assert {number: error.reason for number, error in publisher.refused.items()} == {
            2: "INVALID_ARGUMENT",
            3: "RECIPIENT_UNKNOWN",
            4: "INVALID_ARGUMENT",
            5: "MESSAGE_TOO_LARGE",
            7: "QUEUE_FULL",
        }
        wrong = publisher.refused[2]
        assert isinstance(wrong, rpc.InvalidArgument)
        assert [field for field, _ in wrong.violations] == ["message.key"]
        full = publisher.refused[7]
        assert isinstance(full, rpc.ResourceExhausted)
        assert full.retry_after
        await publisher.end()
        assert publisher.error is None


class Written:
    """A call's context that shows what is written to it."""

    def __init__(self) -> None:
        self.frames: list[pb.PublishStreamResponse] = []

    async def write(self, frame: pb.PublishStreamResponse) -> None:
        self.frames.append(frame)


async def test_many_refusals_take_several_frames() -> None:
    written = Written()
    answers = Answers(cast("Any", written))
    answers.expect(2_501, 2_501)
    for number in range(2_500):
        answers.refused(number, StoreUnavailable())
    answers.accepted(2_500)
    answers.settled()
    writing = asyncio.create_task(answers.write())
    await answers.all_said()
    writing.cancel()
    assert [len(frame.refusals) for frame in written.frames] == [1_000, 1_000, 500]
    assert [refusal.number for frame in written.frames for refusal in frame.refusals] == list(
        range(2_500)
    )
    assert list(written.frames[0].accepted) == [2_500]


async def test_a_frame_has_at_most_a_thousand_messages(client: Client) -> None:
    async with publishing(client) as publisher:
        await publisher.send([message() for _ in range(1_001)])
        await publisher.answered()
        assert isinstance(publisher.error, rpc.InvalidArgument)
        assert publisher.error.violations[0][0] == "messages"


async def test_a_sender_beyond_its_limit_is_refused(client: Client) -> None:
    limit = message_pb2.RateLimit(per_second=0.1, burst=5)
    await client.call("SetSenderLimit", pb.SetSenderLimitRequest(sender="busy", limit=limit))
    async with publishing(client) as publisher:
        await publisher.send([message(sender="busy") for _ in range(8)])
        await publisher.answered()
        assert len(publisher.accepted) == 5
        assert {error.reason for error in publisher.refused.values()} == {"RATE_LIMITED"}


async def test_a_message_that_must_wait_counts_once_for_its_sender(start: Start) -> None:
    client = await start(unknown_recipients="create")
    limit = message_pb2.RateLimit(per_second=0.1, burst=1)
    await client.call("SetSenderLimit", pb.SetSenderLimitRequest(sender="busy", limit=limit))
    async with publishing(client) as publisher:
        await publisher.send([message(sender="busy", recipient="new")])
        await publisher.answered()
        assert not publisher.refused


async def test_order_holds_within_a_queue(client: Client, redis_url: str) -> None:
    async with publishing(client) as publisher:
        for begin in range(0, 3_000, 300):
            await publisher.send([message(str(begin + more)) for more in range(300)])
        await publisher.answered()
    async with embedded.redis_client(redis_url) as redis:
        rows: Any = await redis.xrange(f"{queue_key('inbox')}:2")
    stored = [Entry.unpack(fields[b"e"]).message for _, fields in rows]
    assert [message_pb2.Message.FromString(raw).payload for raw in stored] == [
        str(number).encode() for number in range(3_000)
    ]


async def test_order_holds_within_each_key(client: Client) -> None:
    async with publishing(client) as publisher:
        for begin in range(0, 300, 60):
            await publisher.send(
                [message(str(begin + more), key=f"k{more % 3}") for more in range(60)]
            )
        await publisher.answered()
    taken: dict[str, list[int]] = {"k0": [], "k1": [], "k2": []}
    async with client.consume(credit=1_000) as consumer:
        for _ in range(300):
            delivery = await consumer.next()
            taken[delivery.message.key].append(int(delivery.message.payload))
            await consumer.say(ack=[delivery.lease_id])
    assert all(len(numbers) == 100 for numbers in taken.values())
    assert all(numbers == sorted(numbers) for numbers in taken.values())


async def test_a_stream_is_not_read_while_much_is_unanswered(
    redis_server: Any, start: Start
) -> None:
    server = redis_server()
    await server.start()
    client = await start(server.url)
    await client.queue()
    frame = [message("x" * 100_000, id="") for _ in range(10)]
    async with publishing(client) as publisher:
        await publisher.send(frame)
        await publisher.answered()
        server.pause()
        writing = asyncio.create_task(_send(publisher, frame, 60))
        done, _ = await asyncio.wait({writing}, timeout=1)
        assert not done
        assert 320 < publisher.sent < 500  # 32 MiB, and what is in buffers
        server.go_on()
        await writing
        await publisher.answered()
        assert publisher.accepted == Counter(range(610))


async def _send(publisher: Any, frame: list[message_pb2.Message], times: int) -> None:
    for _ in range(times):
        await publisher.send(frame)


async def test_a_client_that_goes_leaves_its_messages(client: Client) -> None:
    async with publishing(client) as publisher:
        await publisher.send([message() for _ in range(1_000)])
        await publisher.answered(1)
    async with publishing(client) as publisher:
        await publisher.send([message() for _ in range(10)])
        await publisher.answered()
    assert (await client.status()).depth == 1_010


async def test_a_full_store_refuses_at_once(redis_server: Any, start: Start) -> None:
    server = redis_server()
    await server.start()
    client = await start(server.url)
    await client.queue()
    async with publishing(client) as publisher:
        await publisher.send([message(id=f"m{number}") for number in range(10)])
        await publisher.answered()
        await server.do("CONFIG", "SET", "maxmemory", 1)
        await publisher.send([message(id=f"n{number}") for number in range(10)])
        await publisher.answered(within=2)
        assert {error.reason for error in publisher.refused.values()} == {StoreUnavailable.reason}
        assert sorted(publisher.refused) == list(range(10, 20))
        await server.do("CONFIG", "SET", "maxmemory", 0)
        await publisher.send([message(id=f"n{number}") for number in range(10)])
        await publisher.answered()
        assert not publisher.duplicates
    assert (await client.status()).depth == 20


async def test_streams_share_batches(client: Client) -> None:
    async def one(name: int) -> None:
        async with publishing(client) as publisher:
            for number in range(20):
                await publisher.send([message(id=f"{name}-{number}")])
            await publisher.answered()
            assert publisher.accepted == Counter(range(20))

    await asyncio.gather(*(one(name) for name in range(20)))
    assert (await client.status()).depth == 400


async def test_a_broker_that_stops_answers_what_came_and_ends_its_streams(redis_url: str) -> None:
    stopping = Broker(redis_url=redis_url, address="127.0.0.1:0")
    await stopping.__aenter__()
    async with contextlib.AsyncExitStack() as stack:
        client = await connected(stack, stopping.address)
        await client.queue()
        publisher = await stack.enter_async_context(publishing(client))
        idle = await stack.enter_async_context(publishing(client))
        await publisher.send([message() for _ in range(200)])
        async with asyncio.timeout(3):  # it grants five seconds, which nobody needs
            await stopping.stop()
            await asyncio.wait([publisher._reading, idle._reading])
        for each in (publisher, idle):
            assert isinstance(each.error, rpc.Unavailable)
            assert each.error.reason == "BROKER_STOPPING"
        # What was read is answered; a frame that was not is published again by its client.
        assert publisher.accepted in (Counter(range(200)), Counter())
