"""Commands share a connection: one write a turn, replies in order."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from weft.broker.redis import Redis, ReplyError


class CountedWrites:
    """A transport that counts writes."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.count = 0

    def write(self, data: bytes) -> None:
        self.count += 1
        self._transport.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


def count_writes(redis: Redis) -> CountedWrites:
    connection = redis._table[0].session.commands
    connection._transport = CountedWrites(connection._transport)
    return connection._transport


async def test_what_is_sent_in_one_turn_is_one_write(redis_url: str, connect):
    redis = await connect(redis_url)
    writes = count_writes(redis)
    await asyncio.gather(*(redis.send(0, "SET", f"k{n}", n) for n in range(100)))
    assert writes.count == 1


async def test_durable_commands_share_the_write_as_well(redis_url: str, connect):
    redis = await connect(redis_url)
    writes = count_writes(redis)
    await asyncio.gather(*(redis.send_durably(n, "SET", f"k{n}", n) for n in range(100)))
    assert writes.count == 1  # this server syncs before it answers


async def test_replies_come_in_order(redis_url: str, connect):
    redis = await connect(redis_url)
    done: list[int] = []
    futures = []
    for number in range(500):
        futures.append(redis.send(number % 256, "ECHO", number))
        futures[-1].add_done_callback(lambda reply: done.append(int(reply.result())))
        if number % 7 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*futures)
    assert done == list(range(500))


async def test_an_error_is_that_of_its_command(redis_url: str, connect):
    redis = await connect(redis_url)
    before, wrong, after = (
        redis.send(0, "ECHO", "a"),
        redis.send(0, "XREADGROUP", "GROUP", "g", "c", "STREAMS", "none", ">"),
        redis.send(0, "ECHO", "b"),
    )
    assert await before == b"a"
    with pytest.raises(ReplyError, match="NOGROUP") as caught:
        await wrong
    assert caught.value.code == "NOGROUP"
    assert await after == b"b"


async def test_a_reply_that_nobody_waits_for_disturbs_no_other(redis_url: str, connect):
    redis = await connect(redis_url)
    first, second = redis.send(0, "ECHO", "a"), redis.send(0, "ECHO", "b")
    first.cancel()
    assert await second == b"b"


async def test_huge_commands(redis_url: str, connect):
    redis = await connect(redis_url)
    members = [b"%d" % number for number in range(100_000)]
    body = b"x" * 8_000_000
    added, stored = redis.send(0, "SADD", "many", *members), redis.send(0, "SET", "big", body)
    assert await added == len(members)
    assert await stored == b"OK"
    assert await redis.send(0, "GET", "big") == body
    assert len(await redis.send(0, "SMEMBERS", "many")) == len(members)


async def test_what_cannot_be_sent_disturbs_no_other(any_redis_url: str, connect):
    redis = await connect(any_redis_url)
    right = redis.send_durably(0, "SET", "{w0}:k", b"a")
    for send in (redis.send, redis.send_durably):
        with pytest.raises(TypeError):
            await send(0, "SET", "{w0}:k", object())
    assert await right == b"OK"
    assert await redis.send(0, "GET", "{w0}:k") == b"a"


async def test_close_waits_for_what_is_under_way(redis_url: str):
    redis = await Redis.connect(redis_url)
    tasks = len(asyncio.all_tasks())
    futures = [redis.send(0, "RPUSH", "list", number) for number in range(1000)]
    await redis.close()
    assert [future.result() for future in futures] == list(range(1, 1001))
    assert len(asyncio.all_tasks()) == tasks - 1


async def test_it_runs_on_uvloop(redis_url: str):
    async def use() -> list[bytes]:
        redis = await Redis.connect(redis_url)
        try:
            writes = count_writes(redis)
            replies = await asyncio.gather(*(redis.send(0, "ECHO", n) for n in range(50)))
            assert writes.count == 1
            return replies
        finally:
            await redis.close()

    replies = await asyncio.to_thread(uvloop.run, use())
    assert replies == [b"%d" % number for number in range(50)]
