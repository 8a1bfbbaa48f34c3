"""NATS JetStream with file storage: 100 publishes awaiting their PubAck, pulls of 100, each acknowledged."""

from __future__ import annotations

import nats
import uvloop
from load import IN_FLIGHT, Phase, arguments, body, publish_all
from nats.js.api import StorageType


async def main() -> None:
    role, url, count = arguments()
    client = await nats.connect(url)
    stream = client.jetstream()
    phase = Phase(count)
    if role == "publish":
        await stream.add_stream(name="bench", subjects=["bench"], storage=StorageType.FILE)
        phase.begin()
        await publish_all(lambda number: stream.publish("bench", body(number)), count)
        phase.end()
    pull = await stream.pull_subscribe("bench", durable="one")
    while True:
        last = False
        for message in await pull.fetch(IN_FLIGHT):
            last = phase.saw(message.data)
            await message.ack()
        if last:
            await client.flush()
            phase.end()


uvloop.run(main())
