"""What Redis says no to, and what it means to a caller."""

from __future__ import annotations

import asyncio
import logging
import shutil
from datetime import timedelta

import grpc
import pytest
from tests.ports import free_port

from weft import rpc
from weft.broker.errors import StoreUnavailable
from weft.broker.redis import StoreRefuses, StoreUnfit
from weft.broker.redis.errors import of_reply
from weft.broker.redis.inspection import Facts, check
from weft.rpc.testing import wait_until


async def test_full_memory(redis_server, connect):
    server = redis_server(maxmemory="3mb", maxmemory_policy="noeviction")
    await server.start()
    redis = await connect(server.url)
    futures = [redis.send_durably(0, "RPUSH", "list", b"x" * 100_000) for _ in range(60)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    refused = [result for result in results if isinstance(result, StoreRefuses)]
    assert {error.refusal for error in refused} == {"OOM"}
    assert refused[0].code is grpc.StatusCode.UNAVAILABLE
    assert refused[0].reason == "STORE_UNAVAILABLE"
    assert await redis.send(0, "LLEN", "list") == len(results) - len(refused) > 0


async def test_full_memory_inside_a_function(redis_server, connect):
    server = redis_server(maxmemory="3mb")
    await server.start()
    library = """#!lua name=weft_test
server.register_function('push', function(keys, args) return server.call('RPUSH', keys[1], args[1]) end)
"""
    redis = await connect(server.url, library=library)
    pushes = [redis.send(0, "FCALL", "push", 1, "list", b"x" * 100_000) for _ in range(60)]
    last = (await asyncio.gather(*pushes, return_exceptions=True))[-1]
    assert isinstance(last, StoreRefuses)
    assert last.refusal == "OOM"


async def test_a_replica_is_refused(replicated, connect):
    with (
        rpc.Deadline.after(timedelta(seconds=0.3)).applied(),
        pytest.raises(StoreRefuses, match="is a replica"),
    ):
        await connect(replicated.replica.url)


async def test_a_primary_that_becomes_a_replica(redis_server, connect):
    server = redis_server()
    await server.start()
    redis = await connect(server.url)
    await server.do("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(StoreRefuses) as caught:
        await redis.send(0, "SET", "k", 1)
    assert caught.value.refusal == "READONLY"
    await server.do("REPLICAOF", "NO", "ONE")
    assert await redis.run(0, "SET", "k", 1) == b"OK"


async def test_a_disk_that_fails(redis_server, connect):
    server = redis_server(appendonly="no", save="3600 1")
    await server.start()
    redis = await connect(server.url)
    shutil.rmtree(server.folder)
    await redis.send(0, "SET", "k", 1)
    await redis.send(0, "BGSAVE")

    async def refusal() -> str:
        (result,) = await asyncio.gather(redis.send(0, "SET", "k", 1), return_exceptions=True)
        return result.refusal if isinstance(result, StoreRefuses) else ""

    await wait_until(refusal)
    assert await refusal() == "MISCONF"


@pytest.mark.parametrize(
    "reply",
    [
        "LOADING Redis is loading the dataset in memory",
        "NOREPLICAS Not enough good replicas to write.",
        "CLUSTERDOWN The cluster is down",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "BUSY Redis is busy running a script.",
    ],
)
def test_states_of_a_server_are_unavailability(reply):
    error = of_reply(reply)
    assert isinstance(error, StoreUnavailable)
    assert error.retry_after is not None


def facts(**changes) -> Facts:
    usual = {
        "version": "7.2.4",
        "primary": True,
        "replicas": 0,
        "appends": True,
        "build": "Redis 7.2.4",
        "cluster": False,
        "syncs_first": True,
        "waits_for_disk": True,
        "eviction": "noeviction",
    }
    return Facts(**(usual | changes))


def test_an_old_server_is_refused():
    with pytest.raises(StoreUnfit, match="7.0 or newer"):
        check(facts(version="6.2.14"), "Redis", cluster=False)
    check(facts(version="7.0.15"), "Redis", cluster=False)
    check(facts(version="10.1"), "Redis", cluster=False)


async def test_dangerous_settings_are_told_loudly(redis_server, connect, caplog):
    server = redis_server(appendonly="no", maxmemory_policy="allkeys-lru")
    await server.start()
    await connect(server.url)
    levels = {record.levelno for record in caplog.records if record.name == "weft.broker"}
    assert "DELETES MESSAGES" in caplog.text
    assert "appendonly no" in caplog.text
    assert levels >= {logging.ERROR, logging.WARNING}


async def test_a_cluster_is_named_as_one(redis_cluster, redis_server, connect):
    with pytest.raises(StoreUnfit, match="redis-cluster://"):
        await connect(redis_cluster.nodes[0].url)
    server = redis_server(port=free_port())
    await server.start()
    with pytest.raises(StoreUnfit, match="no cluster"):
        await connect(f"redis-cluster://{server.where}")


async def test_full_memory_does_not_make_deletions_unsafe(replicated, connect):
    redis = await connect(replicated.url)
    await redis.send_durably(0, "SET", "k", b"x" * 1000)
    await replicated.primary.do("CONFIG", "SET", "maxmemory", 1)
    try:
        results = await asyncio.gather(
            redis.send_durably(0, "DEL", "k"),
            redis.send_durably(0, "SET", "k", 1),
            return_exceptions=True,
        )
        assert results[0] == 1
        assert isinstance(results[1], StoreRefuses)
    finally:
        await replicated.primary.do("CONFIG", "SET", "maxmemory", 0)
