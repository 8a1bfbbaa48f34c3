"""A producer and a consumer in TypeScript, made from the .proto files alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from tests.polyglot.conftest import CLIENTS

from weft import rpc
from weft.broker import Broker
from weft.v1 import broker_pb2, broker_pb2_grpc

COUNT = 30


@pytest.fixture(scope="module")
def programs(built: Callable[[str], None]) -> Path:
    """The folder of the compiled programs."""
    built("typescript")
    return CLIENTS / "typescript/out"


@pytest_asyncio.fixture
async def broker(redis_url: str, database_url: str) -> AsyncIterator[Broker]:
    async with Broker(
        redis_url=redis_url, database_url=database_url, address="127.0.0.1:0"
    ) as found:
        yield found


async def node(program: Path, *arguments: str) -> object:
    process = await asyncio.create_subprocess_exec(
        "node",
        str(program),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


@pytest.mark.timeout(600)  # the first time, npm fetches what the programs need
async def test_a_producer_and_a_consumer_in_typescript(programs: Path, broker: Broker) -> None:
    async with rpc.Channel(broker.address) as channel:
        await broker_pb2_grpc.BrokerServiceStub(channel).SetQueue(
            broker_pb2.SetQueueRequest(queue="polyglot")
        )
    async with asyncio.TaskGroup() as both:
        consuming = both.create_task(
            node(programs / "consumer.js", broker.address, "polyglot", str(COUNT))
        )
        producing = both.create_task(
            node(programs / "producer.js", broker.address, "polyglot", str(COUNT))
        )
    assert producing.result() == {"accepted": COUNT + 1, "duplicates": 1, "refusals": []}
    assert consuming.result() == {
        f"key-{key}": [f"hello {number}" for number in range(key, COUNT, 3)] for key in range(3)
    }
