"""What became of messages: the archive, history, replay, dead letters, and what Redis may lose."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tests.broker import servers
from tests.broker.clients import Client

from weft import embedded, rpc
from weft.broker import Broker, layout
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2 as pb
from weft.v1 import message_pb2

SOON = timedelta(seconds=10)


@pytest_asyncio.fixture
async def client(redis_url: str, database_url: str) -> AsyncIterator[Client]:
    async with (
        Broker(redis_url=redis_url, database_url=database_url, address="127.0.0.1:0") as broker,
        rpc.Channel(broker.address) as channel,
    ):
        found = Client(channel)
        await found.queue()
        yield found


async def history(client: Client, **filters: Any) -> list[pb.Record]:
    request = pb.HistoryRequest(queue="inbox", filter=pb.MessageFilter(**filters))
    return list((await client.call("History", request)).records)


async def replay(client: Client, limit: int = 0, **filters: Any) -> list[str]:
    request = pb.ReplayRequest(queue="inbox", filter=pb.MessageFilter(**filters), limit=limit)
    return [
        record.message.payload.decode()
        async for frame in client.stub.Replay(request)
        for record in frame.records
    ]


async def archived(database_url: str) -> int:
    connection = await asyncpg.connect(database_url)
    found = await connection.fetchval("select count(*) from broker.messages")
    await connection.close()
    return int(found)


async def consume(client: Client, count: int, consumer: str = "worker") -> None:
    async with client.consume(consumer=consumer) as taking:
        for _ in range(count):
            await taking.ack(await taking.next())


def outcomes(records: list[pb.Record]) -> list[tuple[str, str]]:
    return [
        (one.message.payload.decode(), pb.Outcome.Name(one.outcome).removeprefix("OUTCOME_"))
        for one in records
    ]


async def test_what_is_acknowledged_goes_to_the_archive_and_out_of_redis(
    client: Client, database_url: str, redis_url: str
) -> None:
    await client.publish("one", "two", "three", key="k")
    await consume(client, 3)
    await wait_until(lambda: _is(archived(database_url), 3), SOON)
    records = await history(client)
    assert outcomes(records) == [("three", "ACKED"), ("two", "ACKED"), ("one", "ACKED")]
    assert {(one.consumer, one.attempts) for one in records} == {("worker", 1)}
    assert all(one.finish_time.ToDatetime() >= one.publish_time.ToDatetime() for one in records)
    assert await replay(client) == ["one", "two", "three"]


async def _is(found: Any, expected: int) -> bool:
    return bool(await found == expected)


async def test_history_tells_everything_wherever_it_is(client: Client, database_url: str) -> None:
    await client.publish("done")
    await consume(client, 1)
    await wait_until(lambda: _is(archived(database_url), 1), SOON)
    await client.publish("dead")
    async with client.consume() as consumer:
        delivery = await consumer.next()
        await consumer.settle(1, reject=[pb.Reject(lease_id=delivery.lease_id, reason="NO")])
    await client.publish("first", "second", key="k")
    later = Timestamp()
    later.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    await client.publish("later", not_before=later)
    assert outcomes(await history(client)) == [
        ("later", "LIVE"),
        ("second", "LIVE"),
        ("first", "LIVE"),
        ("dead", "DEAD"),
        ("done", "ACKED"),
    ]
    assert outcomes(await history(client, outcome=pb.OUTCOME_DEAD)) == [("dead", "DEAD")]
    assert outcomes(await history(client, key="k")) == [("second", "LIVE"), ("first", "LIVE")]
    assert await replay(client) == ["done", "dead", "first", "second", "later"]
    assert await replay(client, limit=2) == ["done", "dead"]
    status = await client.status()
    assert (status.depth, status.pending, status.dead) == (3, 0, 1)


async def test_history_comes_in_pages(client: Client, database_url: str) -> None:
    texts = [str(number) for number in range(7)]
    await client.publish(*texts)
    await consume(client, 4)
    await wait_until(lambda: _is(archived(database_url), 4), SOON)
    seen: list[str] = []
    token = ""
    while True:
        page = await client.call(
            "History", pb.HistoryRequest(queue="inbox", page_size=2, page_token=token)
        )
        seen += [one.message.payload.decode() for one in page.records]
        token = page.next_page_token
        if not token:
            break
    assert seen == texts[::-1]


async def test_messages_are_found_by_id_sender_time_and_conversation(client: Client) -> None:
    await client.publish("a", id="1", conversation="c")
    await client.publish("b", sender="other")
    assert outcomes(await history(client, id="1")) == [("a", "LIVE")]
    assert outcomes(await history(client, sender="other")) == [("b", "LIVE")]
    assert outcomes(await history(client, conversation="c")) == [("a", "LIVE")]
    future = Timestamp()
    future.FromDatetime(datetime.now(UTC) + timedelta(minutes=1))
    assert await history(client, from_time=future) == []
    assert len(await history(client, to_time=future)) == 2


async def test_text_that_postgresql_does_not_take_is_archived_nevertheless(
    client: Client, database_url: str
) -> None:
    odd = {"method": "/a\0b", "correlation_id": "\0", "conversation": "c\0"}
    await client.publish("odd", **odd)
    await client.publish("plain")
    await consume(client, 2)
    await wait_until(lambda: _is(archived(database_url), 2), SOON)
    [_, record] = await history(client)
    assert {name: getattr(record.message, name) for name in odd} == odd


async def test_what_was_archived_before_a_crash_is_archived_once(
    client: Client, database_url: str, redis_url: str
) -> None:
    await client.publish("one", "two")
    async with client.consume() as taking, embedded.redis_client(redis_url) as redis:
        deliveries = await taking.take(2)
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "insert into broker.messages select $1, $2, 'm', 's', '', '', '', '', '', $3, $3, 2, 1, 'c', ''",
            *("inbox", deliveries[0].lease_id),
            datetime.fromtimestamp(deliveries[0].publish_time_ms / 1000, UTC),
        )
        await connection.close()
        await taking.ack(*deliveries)
        await wait_until(lambda: _is(archived(database_url), 2), SOON)
        await wait_until(
            lambda: _is(redis.xlen(layout.done_key(layout.shard_of("inbox"))), 0), SOON
        )


async def test_a_large_message_is_archived_whole(client: Client, database_url: str) -> None:
    await client.publish("x" * 600_000)
    async with client.consume() as consumer:
        delivery = await consumer.next()
        assert len(delivery.message.payload) == 600_000
        await consumer.ack(delivery)
    await wait_until(lambda: _is(archived(database_url), 1), SOON)
    [record] = await history(client)
    assert len(record.message.payload) == 600_000
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select count(*) from broker.payloads") == 0
    await connection.close()


async def test_what_is_purged_or_given_up_is_told(client: Client, database_url: str) -> None:
    await client.publish("bad")
    async with client.consume() as consumer:
        delivery = await consumer.next()
        await consumer.settle(1, reject=[pb.Reject(lease_id=delivery.lease_id, reason="NO")])
    await client.call(
        "DiscardDeadLetters",
        pb.DiscardDeadLettersRequest(
            queue="inbox", selection=pb.DeadLetterSelection(filter=pb.DeadLetterFilter())
        ),
    )
    await client.publish("unwanted")
    purged = await client.call("PurgeQueue", pb.PurgeQueueRequest(queue="inbox"))
    assert purged.purged == 1
    await wait_until(lambda: _is(archived(database_url), 2), SOON)
    assert outcomes(await history(client)) == [("unwanted", "PURGED"), ("bad", "DISCARDED")]


async def test_without_retention_nothing_is_kept(client: Client) -> None:
    await client.queue(retention=Duration())
    await client.publish("gone")
    await consume(client, 1)
    assert await history(client) == []


async def test_a_queue_that_never_was_has_no_history(client: Client) -> None:
    with pytest.raises(rpc.NotFound) as caught:
        await client.call("History", pb.HistoryRequest(queue="never"))
    assert caught.value.reason == "QUEUE_UNKNOWN"


async def dead(client: Client, *texts: str, reason: str = "NO", **more: Any) -> None:
    await client.publish(*texts, **more)
    async with client.consume() as consumer:
        for _ in texts:
            delivery = await consumer.next()
            rejected = pb.Reject(lease_id=delivery.lease_id, reason=reason, error="why")
            await consumer.settle(1, reject=[rejected])


async def letters(client: Client, **filters: Any) -> list[pb.DeadLetter]:
    request = pb.ListDeadLettersRequest(queue="inbox", filter=pb.DeadLetterFilter(**filters))
    return list((await client.call("ListDeadLetters", request)).dead_letters)


async def test_dead_letters_are_listed_shown_edited_and_requeued(client: Client) -> None:
    await dead(client, "one", "two", reason="UNKNOWN_CUSTOMER", method="/a.B/C")
    await dead(client, "three")
    assert [one.message.payload for one in await letters(client)] == [b"one", b"two", b"three"]
    [first, _] = await letters(client, reason="UNKNOWN_CUSTOMER")
    assert (first.reason, first.error, first.attempts) == ("UNKNOWN_CUSTOMER", "why", 1)
    named = {"queue": "inbox", "dead_letter_id": first.dead_letter_id}
    shown = (await client.call("GetDeadLetter", pb.GetDeadLetterRequest(**named))).dead_letter
    assert shown == first
    changed = message_pb2.Message()
    changed.CopyFrom(first.message)
    changed.payload = b"mended"
    edited = await client.call("EditDeadLetter", pb.EditDeadLetterRequest(**named, message=changed))
    with pytest.raises(rpc.NotFound) as caught:
        await client.call("GetDeadLetter", pb.GetDeadLetterRequest(**named))
    assert caught.value.reason == "DEAD_LETTER_UNKNOWN"
    chosen = pb.DeadLetterSelection(dead_letter_ids=[edited.dead_letter.dead_letter_id])
    done = await client.call(
        "RequeueDeadLetters", pb.RequeueDeadLettersRequest(queue="inbox", selection=chosen)
    )
    assert done.requeued == 1
    async with client.consume() as consumer:
        delivery = await consumer.next()
        assert (delivery.message.payload, delivery.attempt) == (b"mended", 1)
        await consumer.ack(delivery)


async def test_dead_letters_are_moved_by_filter(client: Client) -> None:
    await dead(client, "a", "b", reason="X")
    await dead(client, "c", reason="Y")
    selection = pb.DeadLetterSelection(filter=pb.DeadLetterFilter(reason="X"))
    done = await client.call(
        "RequeueDeadLetters", pb.RequeueDeadLettersRequest(queue="inbox", selection=selection)
    )
    assert done.requeued == 2
    given_up = await client.call(
        "DiscardDeadLetters",
        pb.DiscardDeadLettersRequest(
            queue="inbox", selection=pb.DeadLetterSelection(filter=pb.DeadLetterFilter())
        ),
    )
    assert given_up.discarded == 1
    assert await letters(client) == []


async def test_dead_letters_come_in_pages(client: Client) -> None:
    await dead(client, *"abcde")
    seen, token = [], ""
    while True:
        page = await client.call(
            "ListDeadLetters",
            pb.ListDeadLettersRequest(queue="inbox", page_size=2, page_token=token),
        )
        seen += [one.message.payload.decode() for one in page.dead_letters]
        token = page.next_page_token
        if not token:
            break
    assert seen == list("abcde")


async def test_an_edit_may_not_make_it_another_message(client: Client) -> None:
    await dead(client, "one", key="k")
    [letter] = await letters(client)
    changed = message_pb2.Message()
    changed.CopyFrom(letter.message)
    changed.key, changed.sender = "other", "somebody"
    with pytest.raises(rpc.InvalidArgument) as caught:
        await client.call(
            "EditDeadLetter",
            pb.EditDeadLetterRequest(
                queue="inbox", dead_letter_id=letter.dead_letter_id, message=changed
            ),
        )
    assert {path for path, _ in caught.value.violations} == {"message.key", "message.sender"}


@pytest.mark.parametrize(
    ("selection", "error"),
    [
        (pb.DeadLetterSelection(), rpc.InvalidArgument),
        (pb.DeadLetterSelection(dead_letter_ids=["1-1"] * 1_001), rpc.InvalidArgument),
        (pb.DeadLetterSelection(dead_letter_ids=["1-1"]), rpc.NotFound),
        (pb.DeadLetterSelection(dead_letter_ids=["nonsense"]), rpc.NotFound),
    ],
)
async def test_a_selection_that_means_nothing_is_refused(
    client: Client, selection: pb.DeadLetterSelection, error: type[rpc.Error]
) -> None:
    with pytest.raises(error):
        await client.call(
            "RequeueDeadLetters", pb.RequeueDeadLettersRequest(queue="inbox", selection=selection)
        )


async def test_another_broker_archives_when_the_first_one_stops(
    redis_url: str, database_url: str
) -> None:
    settings = {"redis_url": redis_url, "database_url": database_url, "address": "127.0.0.1:0"}
    first = Broker(**settings)
    await first.__aenter__()
    async with Broker(**settings) as second, rpc.Channel(second.address) as channel:
        client = Client(channel)
        await client.queue()
        await first.stop()
        await client.publish("one")
        await consume(client, 1)
        await wait_until(lambda: _is(archived(database_url), 1), SOON)


async def test_a_redis_that_comes_back_older_is_told(
    redis_server: Callable[..., servers.Server], database_url: str
) -> None:
    redis = redis_server(appendfsync="always")
    await redis.start()
    async with (
        Broker(redis_url=redis.url, database_url=database_url, address="127.0.0.1:0") as broker,
        rpc.Channel(broker.address) as channel,
    ):
        client = Client(channel)
        await client.queue()
        await client.publish("before")
        await client.publish(*map(str, range(5)))
        [key] = list(await redis.do("KEYS", "*:q:inbox:m"))
        await redis.do("HSET", key, "p", 1, "n", 1)  # as a snapshot of an earlier moment has it
        redis.kill()
        await redis.start()

        async def told() -> bool:
            try:
                return "lost at least 5" in (await client.status()).data_loss
            except rpc.Unavailable:
                return False

        await wait_until(told, SOON)
