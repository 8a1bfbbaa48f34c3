"""Clients that know several replicas go on with the next one when theirs dies."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest

from weft import rpc
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2, registry_pb2, registry_pb2_grpc

pytestmark = [pytest.mark.failure, pytest.mark.timeout(120)]

PATIENCE = timedelta(seconds=20)
AGENT = registry_pb2.ResolveRequest(agent="support-triage")


@pytest.fixture
async def pair(database_url, spawn):
    return [await spawn("registry", database_url, "127.0.0.1:0") for _ in range(2)]


async def test_questions_in_flight_are_asked_of_the_next_replica(pair, join, world):
    await join(pair[0].address, world.instance("one"))
    await join(pair[1].address, world.instance("two"))
    async with rpc.Channel(",".join(child.address for child in pair)) as channel:
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        answers = 0
        done = asyncio.Event()

        async def ask() -> None:
            nonlocal answers
            while not done.is_set():
                assert (await stub.Resolve(AGENT)).instances
                answers += 1

        async with asyncio.TaskGroup() as asking:
            for _ in range(8):
                asking.create_task(ask())
            await wait_until(lambda: answers > 200)
            await pair[0].kill()
            before = answers
            await wait_until(lambda: answers > before + 200)
            done.set()


@pytest.mark.parametrize("dies", [0, 1])
async def test_an_xds_client_goes_on_at_the_next_replica(
    pair, read, join, replica, dial, ask, dies
):
    a, b = await replica("a"), await replica("b")
    other = pair[1 - dies]
    await join(other.address, a.instance())
    late = await join(other.address, b.instance())
    readers = [read(child.address) for child in pair]
    for reader in readers:

        async def both(reader=reader) -> bool:
            return await reader.serving() == ["a", "b"]

        await wait_until(both)
    async with dial(",".join(child.address for child in pair)) as channel:
        outcomes: list[str] = []
        done = asyncio.Event()

        async def call() -> None:
            while not done.is_set():
                outcomes.append(await ask(channel))
                await asyncio.sleep(0.005)

        async with asyncio.TaskGroup() as calls:
            calls.create_task(call())
            await wait_until(lambda: {"a", "b"} <= set(outcomes))
            await pair[dies].kill()
            await late.state(agent_pb2.INSTANCE_STATE_DRAINING)

            async def drained() -> bool:
                start = len(outcomes)
                await wait_until(lambda: len(outcomes) > start + 6)
                return set(outcomes[start:]) == {"a"}

            await wait_until(drained, PATIENCE)
            done.set()


async def test_a_client_of_a_dead_and_a_living_replica_finds_the_living_one(pair, join, world):
    await join(pair[1].address, world.instance("one"))
    await pair[0].kill()
    for _ in range(6):  # whichever it tries first
        async with rpc.Channel(",".join(child.address for child in pair)) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            assert (await stub.Resolve(AGENT, timeout=5)).instances


async def test_nobody_there_is_unavailable(pair):
    for child in pair:
        await child.kill()
    async with rpc.Channel(",".join(child.address for child in pair)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await registry_pb2_grpc.RegistryServiceStub(channel).Resolve(AGENT, timeout=5)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
