"""What a reply promises, by the settings of the server."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.broker import servers

from weft.broker.redis import NotSafe, StoreUnfit
from weft.rpc.testing import wait_until
from weft.v1 import message_pb2

SHORT = timedelta(seconds=0.3)
MEMORY = message_pb2.DURABILITY_MEMORY
DURABLE = message_pb2.DURABILITY_DURABLE
REPLICATED = message_pb2.DURABILITY_REPLICATED


async def calls(server: servers.Server, command: str) -> int:
    """How often a command was called."""
    return int(
        (await server.do("INFO", "commandstats")).get(f"cmdstat_{command}", {}).get("calls", 0)
    )


async def test_with_everysec_a_durable_reply_waits_for_the_disk_once_a_round(redis_server, connect):
    server = redis_server(appendfsync="everysec")
    await server.start()
    redis = await connect(server.url)
    sent = [redis.send_durably(0, "RPUSH", "list", number) for number in range(100)]
    assert await asyncio.gather(*sent) == list(range(1, 101))
    assert await calls(server, "waitaof") == 1


async def test_what_is_durable_with_everysec_survives_a_crash(redis_server, connect):
    server = redis_server(appendfsync="everysec")
    await server.start()
    redis = await connect(server.url)
    for number in range(3):
        await redis.send_durably(0, "RPUSH", "list", number, durability=DURABLE)
        server.kill()
        await server.start()
        assert await redis.run(0, "LLEN", "list") == number + 1


async def test_memory_waits_for_nothing(redis_server, connect):
    server = redis_server(appendonly="no")
    await server.start()
    redis = await connect(server.url)
    assert await redis.send_durably(0, "SET", "k", 1, durability=MEMORY) == b"OK"


async def test_durable_is_refused_by_a_server_without_a_file(redis_server, connect):
    server = redis_server(appendonly="no")
    await server.start()
    redis = await connect(server.url)
    with pytest.raises(StoreUnfit, match="appendonly yes"):
        await redis.send_durably(0, "SET", "k", 1)
    assert await redis.send(0, "EXISTS", "k") == 0


async def test_an_error_needs_no_barrier(redis_server, connect):
    server = redis_server(appendfsync="everysec")
    await server.start()
    redis = await connect(server.url)
    good, bad = redis.send_durably(0, "SET", "k", "text"), redis.send_durably(0, "INCR", "k")
    (error,) = await asyncio.gather(bad, return_exceptions=True)
    assert "not an integer" in str(error)
    assert await good == b"OK"


async def test_without_a_replica_replicated_is_refused_and_not_the_default(redis_server, connect):
    server = redis_server()
    await server.start()
    redis = await connect(server.url)
    assert redis.default_durability == DURABLE
    with pytest.raises(NotSafe, match="No replica"):
        await redis.send_durably(0, "SET", "k", 1, durability=REPLICATED)
    assert await redis.send(0, "EXISTS", "k") == 0


async def test_with_a_replica_replicated_is_the_default(redis_pair, connect):
    redis = await connect(redis_pair.url)
    assert redis.default_durability == REPLICATED
    before = await calls(redis_pair.primary, "wait")
    await asyncio.gather(*(redis.send_durably(0, "RPUSH", "list", n) for n in range(100)))
    assert await redis_pair.replica.do("LLEN", "list") == 100
    assert await calls(redis_pair.primary, "wait") == before + 1


async def test_what_comes_while_a_round_is_under_way_gathers_for_the_next(redis_pair, connect):
    redis = await connect(redis_pair.url)
    before = await calls(redis_pair.primary, "wait")
    redis_pair.replica.pause()
    first = redis.send_durably(0, "RPUSH", "list", "a")
    while not await redis.send(0, "LLEN", "list"):
        assert not first.done()
    others = []
    for number in range(100):
        others.append(redis.send_durably(0, "RPUSH", "list", number))
        if number % 10 == 0:
            assert await redis.send(0, "ECHO", "not behind a barrier")
    redis_pair.replica.go_on()
    assert await asyncio.gather(first, *others) == list(range(1, 102))
    assert await calls(redis_pair.primary, "wait") == before + 2


async def test_a_replica_that_hangs_makes_nothing_safe_and_others_wait_for_nothing(
    redis_pair, connect
):
    redis = await connect(redis_pair.url, replica_limit=SHORT)
    await redis.send_durably(0, "SET", "k", 0)
    redis_pair.replica.pause()
    unsafe = redis.send_durably(0, "SET", "k", 1)
    while await redis.send(0, "GET", "k") != b"1":
        assert not unsafe.done()
    # A duplicate writes nothing. That it was found is not safe either: the first is on no replica.
    duplicate = redis.send_durably(0, "SETNX", "k", 1)
    results = await asyncio.gather(unsafe, duplicate, return_exceptions=True)
    assert [type(result) for result in results] == [NotSafe, NotSafe]
    redis_pair.replica.go_on()
    assert await redis.send_durably(0, "SETNX", "k", 1) == 0


async def test_a_replica_that_leaves_and_comes_back_is_noticed(redis_pair, connect):
    redis = await connect(redis_pair.url, replica_limit=SHORT)
    redis_pair.replica.kill()
    with pytest.raises(NotSafe):
        await redis.send_durably(0, "SET", "k", 1, durability=REPLICATED)
    await redis_pair.replica.start()

    async def replicated() -> bool:
        results = await asyncio.gather(
            redis.send_durably(0, "SET", "k", 1, durability=REPLICATED), return_exceptions=True
        )
        return results == [b"OK"]

    await wait_until(replicated)
    assert redis.default_durability == REPLICATED
