"""A replica takes the primary's place; whoever knows both, or a sentinel, finds it."""

from __future__ import annotations

from tests.broker import servers
from tests.ports import free_port

from weft.broker.redis import Redis
from weft.rpc.testing import wait_until
from weft.v1 import message_pb2

LIBRARY = """#!lua name=weft_test
server.register_function('weft_echo', function(keys, args) return args[1] end)
"""


async def test_the_promoted_replica_is_found_and_has_what_was_replicated(redis_pair, connect):
    redis = await connect(redis_pair.url, library=LIBRARY)
    resets: list[None] = []
    redis.listen(lambda _channel, _payload: None, lambda: resets.append(None))
    for number in range(20):
        await redis.send_durably(
            0, "RPUSH", "list", number, durability=message_pb2.DURABILITY_REPLICATED
        )
    before = len(resets)
    await redis_pair.fail_over()
    assert await redis.run(0, "LLEN", "list") == 20
    assert await redis.run(0, "FCALL", "weft_echo", 0, "a") == b"a"
    await wait_until(lambda: len(resets) > before)
    await redis_pair.replica.start()
    await wait_until(redis_pair.primary.in_step)
    assert redis._table[0].session.commands.address.port == redis_pair.primary.port


async def test_a_primary_that_lives_on_as_replica_is_left(redis_server, connect):
    old, new = redis_server(port=free_port()), redis_server(port=free_port())
    await old.start()
    await new.start()
    await new.do("REPLICAOF", "127.0.0.1", old.port)
    redis = await connect(f"redis://{old.where},{new.where}")
    await new.do("REPLICAOF", "NO", "ONE")
    await old.do("REPLICAOF", "127.0.0.1", new.port)
    assert await redis.run(0, "SET", "k", 1) == b"OK"
    assert await new.do("GET", "k") == b"1"


async def test_two_that_say_they_are_primary_are_told_of(redis_server, connect, caplog):
    one, other = redis_server(port=free_port()), redis_server(port=free_port())
    await one.start()
    await other.start()
    await connect(f"redis://{one.where},{other.where}")
    assert "all say that they are the primary" in caplog.text


async def test_sentinels_say_who_is_primary(redis_pair, redis_program, server_folder, connect):
    sentinel = servers.Sentinel(
        redis_program, server_folder / "sentinel", "main", redis_pair.primary
    )
    async with servers.running(sentinel):
        redis: Redis = await connect(f"sentinel://127.0.0.1:1,{sentinel.where}/main")
        await redis.send_durably(0, "SET", "k", 1)

        async def knows_the_replica() -> bool:
            return bool(await sentinel.do("SENTINEL", "REPLICAS", "main"))

        await wait_until(knows_the_replica, servers.PATIENCE)
        redis_pair.primary.kill()
        assert await redis.run(0, "GET", "k") == b"1"
        assert redis._table[0].session.commands.address.port == redis_pair.replica.port
