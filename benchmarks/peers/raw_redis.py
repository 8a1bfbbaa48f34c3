"""The limit: redis-py alone, pipelines of 32 XADD; XREADGROUP of 32, XACK and XDEL."""

from __future__ import annotations

import redis.asyncio
import uvloop
from load import Phase, arguments, body

BATCH = 32


async def main() -> None:
    role, url, count = arguments()
    client = redis.asyncio.Redis.from_url(url)
    await client.ping()
    phase = Phase(count)
    if role == "publish":
        phase.begin()
        for first in range(0, count, BATCH):
            pipeline = client.pipeline(transaction=False)
            for number in range(first, min(first + BATCH, count)):
                pipeline.xadd("bench", {"e": body(number)})
            await pipeline.execute()
        phase.end()
    await client.xgroup_create("bench", "group", "0")
    while True:
        [(_, entries)] = await client.xreadgroup("group", "one", {"bench": ">"}, count=BATCH)
        last = False
        for _, fields in entries:
            last = phase.saw(fields[b"e"])
        ids = [entry_id for entry_id, _ in entries]
        pipeline = client.pipeline(transaction=False)
        pipeline.xack("bench", "group", *ids)
        pipeline.xdel("bench", *ids)
        await pipeline.execute()
        if last:
            phase.end()


uvloop.run(main())
