"""One message to many queues, through gRPC."""

from __future__ import annotations

from typing import Any

import pytest
from tests.broker.clients import Client, message
from tests.broker.topics.conftest import Start

from weft import rpc
from weft.v1 import broker_pb2 as pb


async def broadcast(client: Client, pattern: str, **fields: Any) -> pb.BroadcastResponse:
    fields = {"recipient": "", **fields}
    request = pb.BroadcastRequest(message=message("news", **fields), pattern=pattern)
    answer = await client.call("Broadcast", request)
    assert isinstance(answer, pb.BroadcastResponse)
    return answer


async def test_every_queue_that_matches_gets_it_once(start: Start) -> None:
    client, other = await start(), await start()
    for queue in ("support-a", "support-b", "sales"):
        await client.queue(queue)
    for one in (client, other, client):
        answer = await broadcast(one, "support-*", id="b1")
        assert (answer.id, list(answer.queues)) == ("b1", ["support-a", "support-b"])
    for queue, count in (("support-a", 1), ("support-b", 1), ("sales", 0)):
        assert (await client.status(queue)).published == count
    async with client.consume("support-a") as consumer:
        delivery = await consumer.next()
    assert delivery.message.payload == b"news"
    assert delivery.message.recipient == "support-a"


async def test_all_get_the_id_that_the_broker_gives(client: Client) -> None:
    await client.queue("a")
    await client.queue("b")
    answer = await broadcast(client, "*", id="")
    assert list(answer.queues) == ["a", "b"]
    for queue in answer.queues:
        async with client.consume(queue) as consumer:
            assert (await consumer.next()).message.id == answer.id != ""


async def test_no_match_is_no_error(client: Client) -> None:
    assert list((await broadcast(client, "nobody-*")).queues) == []


async def test_those_that_refuse_are_named_and_may_be_tried_again(client: Client) -> None:
    await client.queue("a-free")
    await client.queue("a-full", max_bytes=1)
    with pytest.raises(rpc.ResourceExhausted) as refused:
        await broadcast(client, "a-*", id="b1")
    assert refused.value.reason == "QUEUE_FULL"
    assert refused.value.retry_after is not None
    assert refused.value.metadata["failed"] == "a-full"
    assert "1 of 2 queues" in refused.value.message
    await client.queue("a-full", max_bytes=1_000_000)
    await broadcast(client, "a-*", id="b1")
    for queue in ("a-free", "a-full"):
        assert (await client.status(queue)).published == 1


@pytest.mark.parametrize(
    ("pattern", "fields", "path"),
    [
        ("", {}, "pattern"),
        ("a?", {}, "pattern"),
        ("[a]", {}, "pattern"),
        ("*", {"recipient": "a"}, "message.recipient"),
        ("*", {"topic": "a"}, "message.topic"),
        ("*", {"sender": ""}, "message.sender"),
        ("*", {"key": "k" * 257}, "message.key"),
    ],
)
async def test_what_is_wrong_is_named(
    client: Client, pattern: str, fields: dict[str, str], path: str
) -> None:
    with pytest.raises(rpc.InvalidArgument) as refused:
        await broadcast(client, pattern, **fields)
    assert [found for found, _ in refused.value.violations] == [path]
