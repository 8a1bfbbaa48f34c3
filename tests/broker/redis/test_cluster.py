"""Redis Cluster: slots move and nodes fail over; callers do not notice."""

from __future__ import annotations

import asyncio

from tests.broker import servers
from weft.broker.redis import Redis
from weft.broker.redis.slots import SLOT_OF_SHARD, tag


async def test_every_shard_is_reached(redis_cluster: servers.Cluster):
    redis = await Redis.connect(redis_cluster.url)
    try:
        shards = [*range(256), -1]
        written = [redis.send(shard, "SET", f"{tag(shard)}:k", shard) for shard in shards]
        assert await asyncio.gather(*written) == [b"OK"] * len(shards)
        assert len(redis.shards_by_node()) == 3
        assert sorted(sum(redis.shards_by_node().values(), [])) == list(range(256))
    finally:
        await redis.close()
