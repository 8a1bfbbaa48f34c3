"""A real broker, and a queue with a short visibility timeout."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest_asyncio

from weft import rpc
from weft.agents import Host, echo
from weft.broker import Broker
from weft.registry import Registry
from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2

BEAT = timedelta(milliseconds=50)
SHORT = timedelta(seconds=0.5)


@pytest_asyncio.fixture
async def broker(redis_url: str) -> AsyncIterator[Broker]:
    async with Broker(redis_url=redis_url, address="127.0.0.1:0", beat=BEAT, grace=SHORT) as found:
        yield found


@pytest_asyncio.fixture
async def admin(broker: Broker) -> AsyncIterator[broker_pb2_grpc.BrokerServiceAsyncStub]:
    async with rpc.Channel(broker.address) as channel:
        await channel.channel_ready()  # on a busy machine a first try may fail
        stub = broker_pb2_grpc.BrokerServiceStub(channel)
        policy = message_pb2.QueuePolicy(max_attempts=3)
        policy.visibility_timeout.FromTimedelta(SHORT)
        policy.backoff.FromTimedelta(timedelta(milliseconds=10))
        await stub.SetQueue(broker_pb2.SetQueueRequest(queue="inbox", policy=policy))
        yield stub


@pytest_asyncio.fixture
async def host(database_url: str, broker: Broker, fresh_xds: None) -> AsyncIterator[Host]:
    """A host of the agent `echo`, not yet started."""
    async with (
        Registry(
            database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0)
        ) as registry,
        Host(registry=registry.address, brokers=broker.address) as found,
    ):
        found.add(echo.Echo(), max_concurrency=5)
        yield found
