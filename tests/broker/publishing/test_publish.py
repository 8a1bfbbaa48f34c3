"""Publish: what is accepted, what is refused, and how it is said."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.broker.clients import Client, message
from tests.broker.publishing.conftest import Direct

from weft import rpc
from weft.v1 import broker_pb2 as pb
from weft.v1 import message_pb2
from weft.wire.v1 import frames_pb2 as wire


def soon(seconds: float) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return found


async def publish(client: Client, **fields: Any) -> pb.PublishResponse:
    found = await client.call("Publish", pb.PublishRequest(message=message(**fields)))
    assert isinstance(found, pb.PublishResponse)
    return found


async def test_a_message_is_accepted_once(client: Client) -> None:
    first = await publish(client, id="a")
    assert (first.id, first.duplicate) == ("a", False)
    assert (await publish(client, id="a")).duplicate
    assert not (await publish(client, id="a", sender="another")).duplicate
    assert (await client.status()).depth == 2


async def test_a_message_without_an_id_gets_one(client: Client) -> None:
    given = [await publish(client, id="", text=str(number)) for number in range(2)]
    async with client.consume() as consumer:
        taken = await consumer.take(2)
    assert [one.message.id for one in taken] == [one.id for one in given]
    assert all(re.fullmatch("[0-9a-f]{32}", one.id) for one in given)
    assert [one.message.payload for one in taken] == [b"0", b"1"]
    assert len({one.id for one in given}) == 2


async def test_what_the_broker_does_not_read_is_kept(client: Client) -> None:
    known = message("x", id="k", key="é" * 256, sender="é" * 200, method="/a.B/C", subject="s")
    unknown = b"\xfa\x3f\x03abc"  # field 1023
    call = client.stub.Publish
    raw = pb.PublishRequest.FromString(
        wire.Publication(message=known.SerializeToString() + unknown).SerializeToString()
    )
    await call(raw, timeout=5)
    async with client.consume() as consumer:
        delivery = await consumer.next()
    assert delivery.message.SerializeToString() == raw.message.SerializeToString()
    assert unknown in delivery.message.SerializeToString()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sender": ""}, "message.sender"),
        ({"sender": "s" * 201}, "message.sender"),
        ({"sender": "a\0b"}, "message.sender"),
        ({"id": "i" * 129}, "message.id"),
        ({"id": "i\0"}, "message.id"),
        ({"key": "k" * 257}, "message.key"),
        ({"key": "\0"}, "message.key"),
        ({"recipient": ""}, "message.recipient"),
        ({"recipient": "inbox", "topic": "a.b"}, "message.recipient"),
        ({"recipient": "_topics.1"}, "message.recipient"),
        ({"recipient": "In Box"}, "message.recipient"),
        ({"recipient": "i" * 129}, "message.recipient"),
        ({"topic": "a..b"}, "message.topic"),
        ({"topic": "a.*"}, "message.topic"),
        ({"topic": "a" * 257}, "message.topic"),
        ({"priority": 4}, "message.priority"),
        ({"priority": -1}, "message.priority"),
        ({"durability": 4}, "message.durability"),
        ({"expire_time": soon(-1)}, "message.expire_time"),
        ({"expire_time": Timestamp()}, "message.expire_time"),
        ({"expire_time": soon(10), "not_before": soon(20)}, "message.expire_time"),
        ({"expire_time": Timestamp(seconds=253_402_300_800)}, "message.expire_time"),
        ({"not_before": Timestamp(seconds=-1)}, "message.not_before"),
        ({"not_before": Timestamp(nanos=1_000_000_000)}, "message.not_before"),
    ],
)
async def test_what_is_wrong_is_named(client: Client, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(rpc.InvalidArgument) as refused:
        await publish(client, **fields)
    assert [path for path, _ in refused.value.violations] == [field]
    assert (await client.status()).depth == 0


async def test_all_that_is_wrong_is_named(client: Client) -> None:
    with pytest.raises(rpc.InvalidArgument) as refused:
        await publish(client, sender="", key="k" * 257, priority=9)
    assert [path for path, _ in refused.value.violations] == [
        "message.sender",
        "message.key",
        "message.priority",
    ]


@pytest.mark.parametrize("raw", [b"\x0a\x05ab", b"\x2a\x02\xff\xfe"], ids=["cut", "no UTF-8"])
@pytest.mark.parametrize("method", ["Publish", "Request"])
async def test_bytes_that_are_no_message_are_refused(
    client: Direct, method: str, raw: bytes
) -> None:
    call = client.channel.unary_unary(f"/weft.v1.BrokerService/{method}")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call(wire.Publication(message=raw).SerializeToString(), timeout=5)
    refused = rpc.error_from_call(failed.value)
    assert isinstance(refused, rpc.InvalidArgument)
    assert refused.violations == (("message", "is not a weft.v1.Message"),)


async def test_an_unknown_recipient_is_refused(client: Client) -> None:
    with pytest.raises(rpc.NotFound) as refused:
        await publish(client, recipient="nobody")
    assert refused.value.reason == "RECIPIENT_UNKNOWN"
    assert refused.value.metadata == {"recipient": "nobody"}


async def test_an_unknown_recipient_is_made_where_that_is_the_policy(start: Any) -> None:
    client = await start(unknown_recipients="create")
    await asyncio.gather(*(publish(client, recipient="new") for _ in range(20)))
    assert (await client.status("new")).depth == 20
    with pytest.raises(rpc.InvalidArgument):
        await publish(client, recipient="No Name")


async def test_a_message_that_is_too_large_is_refused(start: Any) -> None:
    client = await start(max_message=1_000)
    await client.queue()
    with pytest.raises(rpc.InvalidArgument) as refused:
        await publish(client, text="x" * 1_000)
    assert refused.value.reason == "MESSAGE_TOO_LARGE"
    assert refused.value.metadata["limit"] == "1000"
    assert int(refused.value.metadata["size"]) > 1_000


async def test_a_full_queue_refuses_and_says_when_to_try_again(client: Client) -> None:
    await client.queue(max_depth=1)
    await publish(client, id="a")
    with pytest.raises(rpc.ResourceExhausted) as refused:
        await publish(client, id="b")
    assert refused.value.reason == "QUEUE_FULL"
    assert refused.value.retry_after
    assert (await publish(client, id="a")).duplicate


async def test_a_queue_takes_so_many_messages_a_second(client: Client) -> None:
    await client.queue(publish_rate=message_pb2.RateLimit(per_second=0.5, burst=2))
    await publish(client)
    await publish(client)
    with pytest.raises(rpc.ResourceExhausted) as refused:
        await publish(client)
    assert refused.value.reason == "RATE_LIMITED"
    assert refused.value.retry_after
    assert timedelta(0) < refused.value.retry_after <= timedelta(seconds=2)


async def test_a_sender_may_send_so_many_messages_a_second(client: Client) -> None:
    limit = message_pb2.RateLimit(per_second=0.1, burst=1)
    await client.call("SetSenderLimit", pb.SetSenderLimitRequest(sender="busy", limit=limit))
    await publish(client, sender="busy")
    with pytest.raises(rpc.ResourceExhausted) as refused:
        await publish(client, sender="busy")
    assert refused.value.reason == "RATE_LIMITED"
    assert refused.value.retry_after
    await publish(client, sender="other")


async def test_the_queue_gives_a_message_its_time_to_live(client: Client) -> None:
    await client.queue(time_to_live=timedelta(milliseconds=1))
    await publish(client, text="dies")
    await publish(client, text="lives", expire_time=soon(60))
    async with client.consume() as consumer:
        assert await consumer.texts(1) == ["lives"]
    assert (await client.status()).dead == 1


async def topic_counts(client: Client) -> list[int]:
    listed = await client.call("ListQueues", pb.ListQueuesRequest(pattern="_topics.*"))
    return sorted(queue.published for queue in listed.queues if queue.published)


async def test_messages_of_a_topic_wait_by_their_key(client: Client) -> None:
    for number in range(20):
        await publish(client, topic="a.b", key="k", id=f"key-{number}")
    assert await topic_counts(client) == [20]


async def test_messages_of_a_topic_without_a_key_are_spread(client: Client) -> None:
    for _ in range(20):
        await publish(client, topic="a.b", id="")
    counts = await topic_counts(client)
    assert sum(counts) == 20
    assert len(counts) > 1
