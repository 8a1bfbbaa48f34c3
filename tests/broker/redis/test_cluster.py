"""Redis Cluster: slots move and nodes fail over; callers do not notice."""

from __future__ import annotations

import asyncio
import itertools

import pytest_asyncio
from tests.broker import servers

from weft.broker.redis import Redis
from weft.broker.redis.slots import SLOT_OF_SHARD, bell, tag
from weft.rpc.testing import wait_until
from weft.v1 import message_pb2

REPLICATED = message_pb2.DURABILITY_REPLICATED
LIBRARY = """#!lua name=weft_test
server.register_function('weft_set', function(keys, args) return server.call('SET', keys[1], args[1]) end)
"""
_SHARDS = itertools.count()


class Move:
    """A shard on its way to another node."""

    def __init__(self, cluster: servers.Cluster, shard: int) -> None:
        self.shard = shard
        self.slot = SLOT_OF_SHARD[shard]
        self.key = f"{tag(shard)}:k"
        self._cluster = cluster
        self.source: servers.Server
        self.target: servers.Server

    async def begin(self) -> None:
        self.source = await self._cluster.owner(self.slot)
        self.target = next(node for node in self._cluster.nodes if node is not self.source)
        await self._cluster.begin_move(self.slot, self.source, self.target)

    async def end(self) -> None:
        await self._cluster.end_move(self.slot, self.source, self.target)


@pytest_asyncio.fixture
async def move(redis_cluster: servers.Cluster) -> Move:
    return Move(redis_cluster, next(_SHARDS))


async def test_every_shard_is_reached(redis_cluster, connect):
    redis = await connect(redis_cluster.url, library=LIBRARY)
    shards = [*range(256), -1]
    written = [
        redis.send(shard, "FCALL", "weft_set", 1, f"{tag(shard)}:k", shard) for shard in shards
    ]
    written += [redis.send_durably(shard, "SET", f"{tag(shard)}:l", shard) for shard in shards]
    assert await asyncio.gather(*written) == [b"OK"] * 2 * len(shards)
    by_node = redis.shards_by_node()
    assert len(by_node) == 3
    assert sorted(itertools.chain(*by_node.values())) == list(range(256))


async def test_one_address_is_enough(redis_cluster, connect):
    redis = await connect(f"redis-cluster://{redis_cluster.nodes[1].where}")
    assert len(redis.shards_by_node()) == 3


async def test_a_slot_on_its_way_and_moved(redis_cluster, connect, move):
    redis: Redis = await connect(redis_cluster.url)
    here = f"{tag(move.shard)}:here"
    await redis.send(move.shard, "SET", here, 1)
    await move.begin()
    sent = [redis.send(move.shard, "INCR", move.key) for _ in range(50)]  # each is asked for
    durable = [redis.send_durably(move.shard, "INCR", move.key) for _ in range(50)]
    assert sorted(await asyncio.gather(*sent, *durable)) == list(range(1, 101))
    assert await redis.send(move.shard, "GET", here) == b"1"
    split = redis.send(move.shard, "MGET", here, move.key)  # TRYAGAIN until the move has ended
    await move.end()
    assert await split == [b"1", b"100"]
    sent = [redis.send(move.shard, "INCR", move.key) for _ in range(50)]
    durable = [redis.send_durably(move.shard, "INCR", move.key) for _ in range(50)]
    assert sorted(await asyncio.gather(*sent, *durable)) == list(range(101, 201))
    name = move.target.where
    await wait_until(lambda: move.shard in redis.shards_by_node()[name])
    assert await redis.send(move.shard, "GET", move.key) == b"200"


async def test_commands_keep_their_order_over_a_move(redis_cluster, connect, move):
    redis: Redis = await connect(redis_cluster.url)
    await move.begin()
    await move.end()
    sent = [redis.send(move.shard, "RPUSH", move.key, number) for number in range(200)]
    assert await asyncio.gather(*sent) == list(range(1, 201))
    stored = await redis.send(move.shard, "LRANGE", move.key, 0, -1)
    assert stored == [b"%d" % number for number in range(200)]


async def test_bells_follow_a_slot(redis_cluster, connect, move):
    redis: Redis = await connect(redis_cluster.url)
    heard: list[bytes] = []
    resets: list[None] = []
    redis.listen(lambda _channel, payload: heard.append(payload), lambda: resets.append(None))
    await wait_until(lambda: len(resets) == 3)
    owner = await redis_cluster.owner(move.slot)
    await owner.do("SPUBLISH", bell(move.shard), "before")
    await wait_until(lambda: heard == [b"before"])
    await move.begin()
    await move.end()
    await wait_until(lambda: len(resets) == 4)  # nobody had to send a command
    await move.target.do("SPUBLISH", bell(move.shard), "after")
    await wait_until(lambda: heard == [b"before", b"after"])


async def test_a_replica_takes_the_place_of_a_dead_node(redis_program, server_folder, connect):
    cluster = servers.Cluster(redis_program, server_folder)
    async with servers.running(cluster):
        first = cluster.nodes[0]
        await cluster.add_replica(first)
        redis = await connect(cluster.url, library=LIBRARY)
        shards = redis.shards_by_node()[first.where]
        await asyncio.gather(
            *(
                redis.send_durably(shard, "SET", f"{tag(shard)}:k", shard, durability=REPLICATED)
                for shard in shards[:20]
            )
        )
        first.kill()
        values = await asyncio.gather(
            *(redis.run(shard, "GET", f"{tag(shard)}:k") for shard in shards[:20])
        )
        assert values == [b"%d" % shard for shard in shards[:20]]
        assert await redis.run(shards[0], "FCALL", "weft_set", 1, f"{tag(shards[0])}:k", 1) == b"OK"
