"""Bells ring at everybody who listens; a reset tells that some may not have been heard."""

from __future__ import annotations

from weft.broker.redis import Redis
from weft.broker.redis.slots import bell
from weft.rpc.testing import wait_until


class Listener:
    def __init__(self, redis: Redis) -> None:
        self.heard: list[tuple[bytes, bytes]] = []
        self.resets = 0
        redis.listen(lambda channel, payload: self.heard.append((channel, payload)), self._reset)

    def _reset(self) -> None:
        self.resets += 1


async def test_bells_of_every_shard(redis_url: str, connect):
    redis, other = await connect(redis_url), await connect(redis_url)
    listener = Listener(redis)
    await wait_until(lambda: listener.resets == 1)
    shards = [*range(256), -1]
    for shard in shards:
        other.send(shard, "SPUBLISH", bell(shard), f"me|{shard}")
    expected = [(bell(shard).encode(), b"me|%d" % shard) for shard in shards]
    await wait_until(lambda: [rung for rung in listener.heard if rung in expected] == expected)


async def test_a_reset_after_the_server_was_away_and_bells_again(redis_server, connect):
    server = redis_server()
    await server.start()
    redis = await connect(server.url)
    listener = Listener(redis)
    await wait_until(lambda: listener.resets == 1)
    server.kill()
    await server.start()
    await wait_until(lambda: listener.resets == 2)
    await server.do("SPUBLISH", bell(7), "x")
    await wait_until(lambda: listener.heard == [(bell(7).encode(), b"x")])


async def test_a_reset_when_only_the_bells_were_cut(redis_server, connect):
    server = redis_server()
    await server.start()
    redis = await connect(server.url)
    listener = Listener(redis)
    await wait_until(lambda: listener.resets == 1)
    await server.do("CLIENT", "KILL", "TYPE", "PUBSUB")
    await wait_until(lambda: listener.resets == 2)
    await server.do("SPUBLISH", bell(7), "x")
    await wait_until(lambda: listener.heard == [(bell(7).encode(), b"x")])


async def test_a_listener_that_fails_hears_the_next(redis_server, connect, caplog):
    server = redis_server()
    await server.start()
    redis = await connect(server.url)
    heard: list[bytes] = []
    resets: list[None] = []

    def listen(_channel: bytes, payload: bytes) -> None:
        heard.append(payload)
        raise RuntimeError(payload)

    redis.listen(listen, lambda: resets.append(None))
    await wait_until(lambda: resets)
    await server.do("SPUBLISH", bell(1), "a")
    await server.do("SPUBLISH", bell(1), "b")
    await wait_until(lambda: heard == [b"a", b"b"])
    assert "A listener to bells failed" in caplog.text
