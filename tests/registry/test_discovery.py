"""Resolve, Watch, ListAgents and GetDescriptors."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from weft import rpc
from weft.v1 import agent_pb2, registry_pb2, registry_pb2_grpc


async def fails(call):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return rpc.error_from_call(failed.value)


def ids(agents):
    return {agent.name: [i.instance_id for i in agent.instances] for agent in agents}


async def test_resolve_by_agent_service_and_capability(stub, mesh, join, world):
    await join(
        mesh,
        world.instance("b", capabilities=["lang:de"]),
        world.instance("a", capabilities=["lang:de", "triage"]),
        world.instance("c", agent="other"),
    )
    found = await stub.Resolve(registry_pb2.ResolveRequest(agent="support-triage"))
    assert [i.instance_id for i in found.instances] == ["a", "b"]
    assert found.instances[0].register_time.seconds > 0
    found = await stub.Resolve(registry_pb2.ResolveRequest(service=world.service))
    assert [i.instance_id for i in found.instances] == ["c", "a", "b"]
    found = await stub.Resolve(registry_pb2.ResolveRequest(capability="triage"))
    assert [i.instance_id for i in found.instances] == ["a"]

    for target, name, reason in (
        ("agent", "nobody", "AGENT_UNKNOWN"),
        ("service", "no.Such", "SERVICE_UNKNOWN"),
        ("capability", "flying", "CAPABILITY_UNKNOWN"),
    ):
        error = await fails(stub.Resolve(registry_pb2.ResolveRequest(**{target: name})))
        assert isinstance(error, rpc.NotFound)
        assert (error.reason, error.metadata) == (reason, {target: name})
        assert "weft agents" in error.message
    error = await fails(stub.Resolve(registry_pb2.ResolveRequest()))
    assert isinstance(error, rpc.InvalidArgument)


async def test_watch_sends_a_snapshot_then_changes_and_resumes(stub, mesh, join, world):
    first = await join(mesh, world.instance("one"))
    watch = stub.Watch(registry_pb2.WatchRequest())
    snapshot = await watch.read()
    assert snapshot.snapshot
    assert ids(snapshot.agents) == {"support-triage": ["one"]}
    assert snapshot.agents[0].description.startswith("Classifies")

    await join(mesh, world.instance("two", agent="other"))
    change = await watch.read()
    assert not change.snapshot
    assert ids(change.agents) == {"other": ["two"]}
    assert change.revision > snapshot.revision
    watch.cancel()

    await first.leave()
    resumed = stub.Watch(registry_pb2.WatchRequest(after_revision=snapshot.revision))
    missed = await resumed.read()
    assert not missed.snapshot
    assert ids(missed.agents) == {"other": ["two"], "support-triage": []}
    resumed.cancel()

    unknown = stub.Watch(registry_pb2.WatchRequest(after_revision=7))
    again = await unknown.read()
    assert again.snapshot
    assert ids(again.agents) == {"other": ["two"], "support-triage": []}
    unknown.cancel()


async def test_watch_of_some_agents_hears_of_no_others(stub, mesh, join, world):
    watch = stub.Watch(registry_pb2.WatchRequest(agents=["other", "nobody"]))
    assert not (await watch.read()).agents
    process = await join(mesh, world.instance("one"))
    await process.state(agent_pb2.INSTANCE_STATE_DEGRADED)
    await join(mesh, world.instance("two", agent="other"))
    change = await watch.read()
    assert ids(change.agents) == {"other": ["two"]}
    watch.cancel()


async def test_a_slow_watcher_gets_the_latest_state_and_holds_up_nobody(stub, mesh, join, world):
    instance = world.instance("one", labels={f"label-{n}": "x" * 100 for n in range(32)})
    process = await join(mesh, instance)
    small = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535))
    narrow = rpc.Channel(mesh.address, options=small)
    slow = registry_pb2_grpc.RegistryServiceStub(narrow).Watch(registry_pb2.WatchRequest())
    quick = stub.Watch(registry_pb2.WatchRequest())
    await quick.read()
    for number in range(200):  # the slow one reads nothing meanwhile
        revision = await process.state(
            agent_pb2.INSTANCE_STATE_DEGRADED, f"{number:03d}" + "y" * 497
        )
        change = await quick.read()
        assert change.revision == revision
        assert change.agents[0].instances[0].state_reason.startswith(f"{number:03d}")
    seen = 0
    async for response in slow:
        seen += 1
        if response.agents[0].instances[0].state_reason.startswith("199"):
            break
    assert seen < 200, "states in between are skipped once the connection's buffers are full"
    slow.cancel()
    quick.cancel()
    await narrow.close()


async def test_every_one_of_many_watchers_sees_a_change(stub, mesh, join, world):
    process = await join(mesh, world.instance("one"))
    watches = [stub.Watch(registry_pb2.WatchRequest()) for _ in range(50)]
    for watch in watches:
        await watch.read()
    revision = await process.state(agent_pb2.INSTANCE_STATE_DRAINING)
    async with asyncio.timeout(5):
        for change in await asyncio.gather(*(watch.read() for watch in watches)):
            assert change.revision == revision
    for watch in watches:
        watch.cancel()


async def test_lists_are_paged_and_filtered(stub, mesh, join, world):
    names = [f"agent-{n:02d}" for n in range(7)]
    process = await join(mesh, *(world.instance(name, agent=name) for name in reversed(names)))
    await process.state(agent_pb2.INSTANCE_STATE_DEGRADED, ids=names[3:5])

    async def pages(**request):
        found, token = [], ""
        while True:
            page = await stub.ListAgents(
                registry_pb2.ListAgentsRequest(page_token=token, **request)
            )
            found.append([agent.name for agent in page.agents])
            token = page.next_page_token
            if not token:
                return found

    assert await pages(page_size=3) == [names[:3], names[3:6], names[6:]]
    assert await pages() == [names]
    degraded = agent_pb2.INSTANCE_STATE_DEGRADED
    assert await pages(page_size=1, state=degraded) == [[names[3]], [names[4]]]

    token = (await stub.ListAgents(registry_pb2.ListAgentsRequest(page_size=3))).next_page_token
    for request in (
        {"page_size": -1},
        {"page_token": "junk"},
        {"page_token": token, "state": degraded},
    ):
        error = await fails(stub.ListAgents(registry_pb2.ListAgentsRequest(**request)))
        assert isinstance(error, rpc.InvalidArgument)


async def test_descriptors_are_had_by_digest(stub, mesh, join, world):
    await join(mesh, world.instance())
    found = await stub.GetDescriptors(registry_pb2.GetDescriptorsRequest(digests=[world.digest]))
    assert dict(found.descriptors.sets) == {world.digest: world.descriptor_set}
    error = await fails(
        stub.GetDescriptors(registry_pb2.GetDescriptorsRequest(digests=[world.digest, "0" * 64]))
    )
    assert isinstance(error, rpc.NotFound)
    assert error.metadata == {"digest": "0" * 64}
    for digests in ([], ["x"], ["0" * 64] * 101):
        request = registry_pb2.GetDescriptorsRequest(digests=digests)
        assert isinstance(await fails(stub.GetDescriptors(request)), rpc.InvalidArgument)


async def test_stopping_ends_open_streams_at_once(run_registry, join, world):
    async with asyncio.timeout(5):
        async with run_registry() as mesh, rpc.Channel(mesh.address) as channel:
            process = await join(mesh, world.instance())
            watch = registry_pb2_grpc.RegistryServiceStub(channel).Watch(
                registry_pb2.WatchRequest()
            )
            await watch.read()
            process.freeze()
            ends = asyncio.create_task(process.ended())
            await mesh.stop()
            assert (await ends).reason == "REGISTRY_STOPPING"
            error = await fails(watch.read())
            assert error.reason == "REGISTRY_STOPPING"
