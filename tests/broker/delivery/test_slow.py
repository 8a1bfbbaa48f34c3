"""A consumer that does not take what it has credit for."""

from __future__ import annotations

import asyncio

from google.protobuf.duration_pb2 import Duration
from tests.broker.clients import Client
from tests.broker.delivery.conftest import Start

from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2 as pb

BIG = "x" * 100_000
MANY = 80  # some 45 of them fit into the buffers of the transport, and may have been seen


async def test_what_a_stalled_consumer_was_never_sent_is_no_attempt(start: Start) -> None:
    _, client = await start(visibility_timeout=Duration(nanos=500_000_000))
    stalled = client.stub.Consume()
    await stalled.write(
        pb.ConsumeRequest(open=pb.ConsumeOpen(queue="inbox", consumer="stalled"), credit=1_000)
    )  # and never reads
    for number in range(MANY):
        await client.publish(f"{number:02}{BIG}")
    await asyncio.sleep(
        0.6
    )  # every lease of the stalled one has run out: it is time that is tested
    async with client.consume(credit=1_000) as quick:
        attempts: dict[str, int] = {}
        while len(attempts) < MANY:
            delivery = await quick.next()
            attempts.setdefault(delivery.message.payload[:2].decode(), delivery.attempt)
            await quick.ack(delivery)
    stalled.cancel()
    assert (await client.status()).dead == 0
    assert sum(attempt == 1 for attempt in attempts.values()) > 20, attempts


async def test_what_was_never_sent_goes_on_at_once_when_the_stream_breaks(start: Start) -> None:
    _, client = await start(visibility_timeout=Duration(seconds=30))
    stalled = client.stub.Consume()
    await stalled.write(
        pb.ConsumeRequest(open=pb.ConsumeOpen(queue="inbox", consumer="stalled"), credit=1_000)
    )
    for number in range(MANY):
        await client.publish(f"{number:02}{BIG}")
    async with client.consume(credit=0) as other:
        stalled.cancel()
        await wait_until(lambda: alone(client))
        await other.say(credit=MANY)
        assert {one.attempt for one in await other.take(20)} == {1}


async def alone(client: Client) -> bool:
    return len((await client.status()).consumers) == 1
