"""FastStream on Redis Streams; FASTSTREAM_BATCH=100 has its handler take batches (its documentation: "Redis Stream Batching")."""

from __future__ import annotations

import asyncio
import os

import redis.asyncio
import uvloop
from faststream import AckPolicy
from faststream.redis import RedisBroker, StreamSub
from load import Phase, arguments, body, publish_all

BATCH = int(os.environ.get("FASTSTREAM_BATCH", "0"))


async def main() -> None:
    role, url, count = arguments()
    phase = Phase(count)
    broker = RedisBroker(url, logger=None)
    if role == "publish":
        await broker.connect()
        phase.begin()
        await publish_all(lambda number: broker.publish(body(number), stream="bench"), count)
        phase.end()
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.xgroup_create("bench", "group", "0", mkstream=True)
    if BATCH:
        stream = StreamSub("bench", group="group", consumer="one", batch=True, max_records=BATCH)

        @broker.subscriber(stream=stream, ack_policy=AckPolicy.ACK)
        async def handle_batch(messages: list[bytes]) -> None:
            last = False
            for message in messages:
                last = phase.saw(message)
            if last:
                asyncio.get_running_loop().call_later(0.01, phase.end)

    else:
        stream = StreamSub("bench", group="group", consumer="one")

        @broker.subscriber(stream=stream, ack_policy=AckPolicy.ACK)
        async def handle(message: bytes) -> None:
            if phase.saw(message):
                asyncio.get_running_loop().call_later(0.01, phase.end)

    await broker.start()
    await asyncio.Event().wait()


uvloop.run(main())
