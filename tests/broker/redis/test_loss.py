"""Servers die, hang and come back."""

from __future__ import annotations

import asyncio
import shutil
import time
from datetime import timedelta

import pytest

from weft import rpc
from weft.broker.errors import StoreUnavailable
from weft.broker.redis import ConnectionLost
from weft.rpc.testing import wait_until

SHORT = timedelta(seconds=0.3)
LIBRARY = """#!lua name=weft_test
server.register_function('weft_echo', function(keys, args) return args[1] end)
"""


async def test_what_is_unanswered_fails_when_the_server_dies(redis_server, connect):
    server = redis_server()
    await server.start()
    redis = await connect(server.url)
    server.pause()
    futures = [redis.send(0, "ECHO", number) for number in range(50)]
    futures += [redis.send_durably(0, "SET", "k", number) for number in range(50)]
    await asyncio.sleep(0)
    server.kill()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(result) for result in results} == {ConnectionLost}
    await wait_until(lambda: not redis._table[0].ready.is_set())
    with pytest.raises(ConnectionLost, match="nothing was sent"):
        await redis.send(0, "ECHO", "a")


async def test_run_repeats_until_the_server_is_back(redis_server, connect):
    server = redis_server()
    await server.start()
    redis = await connect(server.url)
    resets: list[float] = []
    redis.listen(lambda _channel, _payload: None, lambda: resets.append(time.monotonic()))
    await wait_until(lambda: len(resets) == 1)
    await redis.send(0, "SET", "k", 1)
    server.kill()
    running = asyncio.ensure_future(redis.run(0, "INCR", "k"))
    durable = redis.send_durably(0, "SET", "other", 1)
    await server.start()
    assert await running == 2
    with pytest.raises(StoreUnavailable):
        await durable
    await wait_until(lambda: len(resets) == 2)


async def test_run_ends_with_its_deadline(redis_server, connect):
    server = redis_server()
    await server.start()
    redis = await connect(server.url)
    server.kill()
    with rpc.Deadline.after(SHORT).applied(), pytest.raises(ConnectionLost):
        await redis.run(0, "ECHO", "a")
    await server.start()
    assert await redis.run(0, "ECHO", "a") == b"a"
    server.pause()
    with rpc.Deadline.after(SHORT).applied(), pytest.raises(ConnectionLost, match="in time"):
        await redis.run(0, "ECHO", "a")
    server.go_on()
    assert await redis.run(0, "ECHO", "a") == b"a"


async def test_a_hung_server_is_noticed(redis_server, connect):
    server = redis_server()
    await server.start()
    redis = await connect(server.url, silence=SHORT)
    server.pause()
    futures = [redis.send(0, "ECHO", 1), redis.send_durably(0, "SET", "k", 1)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(result) for result in results} == {ConnectionLost}
    server.go_on()
    assert await redis.run(0, "ECHO", "a") == b"a"


async def test_a_hung_server_is_noticed_when_nobody_asks_anything(redis_server, connect):
    server = redis_server()
    await server.start()
    redis = await connect(server.url, silence=SHORT)
    server.pause()
    await wait_until(lambda: not redis._table[0].ready.is_set())
    server.go_on()
    await wait_until(redis._table[0].ready.is_set)


async def test_a_busy_loop_of_ours_is_no_fault_of_the_server(redis_server, connect):
    server = redis_server()
    await server.start()
    redis = await connect(server.url, silence=SHORT)
    reply = redis.send(0, "ECHO", "a")
    await asyncio.sleep(0)
    time.sleep(2 * SHORT.total_seconds())  # noqa: ASYNC251 the loop stands still
    assert await reply == b"a"


async def test_the_library_is_there_again_on_an_empty_server(redis_server, connect):
    server = redis_server()
    await server.start()
    redis = await connect(server.url, library=LIBRARY)
    assert await redis.send(0, "FCALL", "weft_echo", 0, "a") == b"a"
    server.kill()
    shutil.rmtree(server.folder)
    await server.start()
    assert await redis.run(0, "FCALL", "weft_echo", 0, "b") == b"b"


async def test_a_library_that_somebody_removed_is_loaded_again(redis_server, connect):
    server = redis_server()
    await server.start()
    redis = await connect(server.url, library=LIBRARY)
    await server.do("FUNCTION", "FLUSH")
    assert await redis.run(0, "FCALL", "weft_echo", 0, "b") == b"b"


async def test_another_version_of_the_library_replaces_it(redis_server, connect):
    server = redis_server()
    await server.start()
    await connect(server.url, library=LIBRARY)
    newer = await connect(server.url, library=LIBRARY.replace("args[1]", "'newer'"))
    assert await newer.send(0, "FCALL", "weft_echo", 0, "a") == b"newer"


async def test_connecting_waits_for_a_server_that_starts(redis_server, connect):
    server = redis_server()
    server.begin()
    redis = await connect(server.url)
    assert await redis.send(0, "ECHO", "a") == b"a"


async def test_connecting_gives_up_with_the_deadline(redis_server, connect):
    with rpc.Deadline.after(SHORT).applied(), pytest.raises(ConnectionLost, match="reached"):
        await connect(redis_server().url)
