"""A registry that is stopped, or killed, and started again on the same database and address."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta

import grpc
import pytest
from tests.registry.cable import Cable

from weft import rpc
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2, registry_pb2, registry_pb2_grpc

AGENT = registry_pb2.ResolveRequest(agent="support-triage")


async def resolved(stub):
    return [i.instance_id for i in (await stub.Resolve(AGENT)).instances]


async def test_state_is_restored_and_runs_out_unless_its_owner_returns(
    run_registry, join, member, world
):
    back, lost = world.instance("back", capabilities=["x"]), world.instance("lost")
    async with run_registry() as mesh:
        one, two = await join(mesh, back), await join(mesh, lost)
        before = await one.state(agent_pb2.INSTANCE_STATE_DEGRADED, "half a model")
        await one.vanish()
        await two.vanish()
    async with run_registry() as mesh, rpc.Channel(mesh.address) as channel:
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        found = await stub.Resolve(AGENT)
        assert [i.instance_id for i in found.instances] == ["back", "lost"]
        assert found.instances[0].state == agent_pb2.INSTANCE_STATE_DEGRADED
        assert found.instances[0].state_reason == "half a model"
        assert found.revision > before

        # Whoever followed the former run cannot be told what it missed: it gets everything.
        watch = stub.Watch(registry_pb2.WatchRequest(after_revision=before))
        snapshot = await watch.read()
        assert snapshot.snapshot
        assert [i.instance_id for i in snapshot.agents[0].instances] == ["back", "lost"]
        assert snapshot.agents[0].description.startswith("Classifies")
        watch.cancel()

        again = await join(mesh, back)
        assert list(again.granted.wanted_digests) == [], "descriptor sets are stored"

        async def only_the_owner_returned():
            return await resolved(stub) == ["back"]

        await wait_until(only_the_owner_returned, timeout=timedelta(seconds=3))
        renewed = (await stub.Resolve(AGENT)).instances[0]
        assert renewed.register_time == found.instances[0].register_time
        await again.leave()
    async with run_registry() as mesh, rpc.Channel(mesh.address) as channel:
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        assert await resolved(stub) == [], "the agent is known, what left or ran out is not back"
        for known in ({"service": world.service}, {"capability": "x"}):
            assert not (await stub.Resolve(registry_pb2.ResolveRequest(**known))).instances
        assert (await stub.Resolve(AGENT)).revision > found.revision


@pytest.mark.failure
async def test_a_killed_registry_drops_nothing(
    database_url, spawn, join, replica, world, dial, ask
):
    """Calls go on while it is dead; when it is back, endpoints are the same and changes are followed again."""
    dead = await spawn("registry", database_url, "127.0.0.1:0")
    a, b = await replica("a"), await replica("b")
    one = await join(dead.address, a.instance())
    two = await join(dead.address, b.instance())
    outcomes: list[str] = []
    done = asyncio.Event()

    async def caller(channel):
        while not done.is_set():
            outcomes.append(await ask(channel))
            await asyncio.sleep(0.005)

    async with dial(dead.address) as channel, asyncio.TaskGroup() as callers:
        callers.create_task(caller(channel))
        await wait_until(lambda: {"a", "b"} <= set(outcomes))
        await dead.kill()
        for process in (one, two):
            process.freeze()
            assert isinstance(await process.ended(), rpc.Unavailable)
        before = len(outcomes)
        await wait_until(lambda: len(outcomes) > before + 20)
        alive = await spawn("registry", database_url, dead.address)
        async with rpc.Channel(alive.address) as to_registry:
            stub = registry_pb2_grpc.RegistryServiceStub(to_registry)
            assert await resolved(stub) == ["a", "b"]
            again = await join(alive.address, a.instance(), b.instance())
            before = len(outcomes)
            await wait_until(lambda: {"a", "b"} <= set(outcomes[before:]))
            assert await resolved(stub) == ["a", "b"]
        # The client is connected to the new one: a drain reaches it.
        await again.state(agent_pb2.INSTANCE_STATE_DRAINING, ids=["a"])

        async def drained():
            start = len(outcomes)
            await wait_until(lambda: len(outcomes) > start + 6)
            return set(outcomes[start:]) == {"b"}

        await wait_until(drained, timeout=timedelta(seconds=10))
        alive.signal(signal.SIGKILL)
        done.set()


async def test_a_taken_port_or_a_dead_database_is_an_error_at_start(run_registry, mesh):
    with pytest.raises(rpc.AddressInUseError):
        async with run_registry(address=mesh.address):
            pass
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    with pytest.raises(rpc.Unavailable):
        async with run_registry(database_url=nowhere):
            pass


async def test_without_its_database_the_registry_goes_on_in_memory(
    run_registry, database_url, join, member, world
):
    """Registrations are refused for now; drains, leaves and probes take effect all the same."""
    async with (
        Cable(database_url) as cable,
        run_registry(database_url=cable.url) as mesh,
        rpc.Channel(mesh.address) as channel,
    ):
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        one, two = world.instance("one"), world.instance("two")
        stays, drains = await join(mesh, one), await join(mesh, two)
        cable.pull()

        late = member(mesh.address, [world.instance("late")])
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await late.register()
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        await late.vanish()

        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await drains.state(agent_pb2.INSTANCE_STATE_DRAINING)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await resolved(stub) == ["one"], "seen, though not stored and not confirmed"
        await stays.leave()
        assert await resolved(stub) == []

        cable.plug_in()
        await join(mesh, one)
        assert await resolved(stub) == ["one"]
