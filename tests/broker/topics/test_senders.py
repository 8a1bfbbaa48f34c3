"""Limits of senders: through gRPC, and how exact they are over several brokers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from time import monotonic, process_time

import pytest
from tests.broker.clients import Client
from tests.broker.topics.conftest import Start

from weft import rpc
from weft.broker.bells import Bells
from weft.broker.clock import Clock
from weft.broker.functions import SOURCE, Functions
from weft.broker.redis import Redis
from weft.broker.senders import Senders
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2 as pb
from weft.v1.message_pb2 import RateLimit


async def limit(client: Client, sender: str, per_second: float = 0, burst: int = 0) -> None:
    wanted = RateLimit(per_second=per_second, burst=burst) if burst else None
    await client.call("SetSenderLimit", pb.SetSenderLimitRequest(sender=sender, limit=wanted))


async def refused(client: Client) -> rpc.ResourceExhausted | None:
    """The error of a publish, if there is one."""
    try:
        await client.publish("more", sender="busy")
    except rpc.ResourceExhausted as error:
        return error
    return None


async def test_a_burst_is_taken_and_no_more_by_any_broker(start: Start) -> None:
    client, other = await start(), await start()
    await client.queue()
    await limit(client, "busy", per_second=0.1, burst=5)
    await client.publish(*"12345", sender="busy")
    for one in (client, other):
        # The other broker hears of the limit, and of what was used, a moment later.
        await wait_until(functools.partial(refused, one))
        error = await refused(one)
        assert error is not None
        assert error.reason == "RATE_LIMITED"
        assert error.retry_after is not None
        assert 1 < error.retry_after.total_seconds() <= 100
    await client.publish("x", sender="another")


async def test_a_limit_ends(start: Start) -> None:
    client = await start()
    await client.queue()
    await limit(client, "busy", per_second=0.1, burst=1)
    await client.publish("1", sender="busy")
    with pytest.raises(rpc.ResourceExhausted):
        await client.publish("2", sender="busy")
    await limit(client, "busy")
    await client.publish(*"345", sender="busy")


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (pb.SetSenderLimitRequest(sender=""), "sender"),
        (pb.SetSenderLimitRequest(sender="s" * 201), "sender"),
        (pb.SetSenderLimitRequest(sender="s", limit=RateLimit(burst=1)), "limit.per_second"),
        (pb.SetSenderLimitRequest(sender="s", limit=RateLimit(per_second=1)), "limit.burst"),
    ],
)
async def test_what_is_wrong_is_named(
    client: Client, request_: pb.SetSenderLimitRequest, path: str
) -> None:
    with pytest.raises(rpc.InvalidArgument) as refused:
        await client.call("SetSenderLimit", request_)
    assert [found for found, _ in refused.value.violations] == [path]


@contextlib.asynccontextmanager
async def senders(url: str, instance: str) -> AsyncIterator[Senders]:
    """Those of a broker."""
    redis = await Redis.connect(url, library=SOURCE)
    bells = Bells(redis, instance)
    found = Senders(redis, Functions(redis, instance, bells, archive=False), bells, Clock())
    redis.listen(bells.heard, bells.reset)
    await found.load()
    running = asyncio.create_task(found.run())
    yield found
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await redis.close()


async def flood(one: Senders, seconds: float) -> int:
    """Sends all it may, a few at a time; how many that were."""
    count, end = 0, monotonic() + seconds
    while monotonic() < end:
        for _ in range(10):
            if not one.check("busy", 1):
                count += 1
        await asyncio.sleep(0.002)
    return count


async def test_brokers_share_a_limit(redis_url: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        all_ = [
            await stack.enter_async_context(senders(redis_url, f"b{number}")) for number in range(3)
        ]
        wanted = RateLimit(per_second=400, burst=80)
        await all_[0].SetSenderLimit(pb.SetSenderLimitRequest(sender="busy", limit=wanted), None)  # type: ignore[arg-type]  # the context is not used
        await wait_until(lambda: all(one.check("busy", 81) for one in all_))
        counts = await asyncio.gather(*(flood(one, 1.0) for one in all_))
        assert 480 * 0.8 < sum(counts) < 480 * 1.2
        assert min(counts) > 20
        # After a burst by one, another one knows that nothing is left.
        assert sum(await asyncio.gather(*(flood(one, 0.25) for one in all_))) < 100 * 1.3


async def test_no_limit_costs_next_to_nothing(redis_url: str) -> None:
    async with senders(redis_url, "one") as one:
        began = process_time()
        for _ in range(100_000):
            one.check("anyone", 1)
        assert (process_time() - began) / 100_000 < 4e-6
