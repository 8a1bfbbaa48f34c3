"""The Register stream from registration to the end of the lease."""

from __future__ import annotations

import time
from datetime import timedelta

import grpc
import pytest

from weft import rpc
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2, registry_pb2


async def resolve(stub, agent="support-triage"):
    answer = await stub.Resolve(registry_pb2.ResolveRequest(agent=agent))
    return [instance.instance_id for instance in answer.instances]


async def gone(stub, agent="support-triage"):
    listed = await stub.ListAgents(registry_pb2.ListAgentsRequest())
    return [i for a in listed.agents if a.name == agent for i in a.instances] == []


async def a_ttl_passes(stub, join, mesh, world):
    """Registers a witness that goes silent, and waits until it is gone."""
    witness = await join(mesh, world.instance(agent="witness"))
    witness.freeze()
    await wait_until(lambda: gone(stub, "witness"), timeout=timedelta(seconds=3))


async def test_a_first_registration_sends_descriptors_and_a_second_need_not(
    mesh, stub, member, world
):
    first = member(mesh.address, [world.instance("first")])
    granted = (
        await first.say(registration=registry_pb2.Registration(instances=first.instances))
    ).granted
    assert list(granted.wanted_digests) == [world.digest]
    assert granted.ttl.ToTimedelta() >= 3 * granted.heartbeat_interval.ToTimedelta()
    assert granted.lease_id
    with pytest.raises(grpc.aio.AioRpcError):
        await resolve(stub)

    sets = registry_pb2.DescriptorSets(sets={world.digest: world.descriptor_set})
    registered = (await first.say(descriptors=sets)).registered
    assert registered.revision > 0
    assert await resolve(stub) == ["first"]

    second = member(mesh.address, [world.instance("second")])
    await second.register()
    assert list(second.granted.wanted_digests) == []
    assert second.revision > registered.revision
    assert await resolve(stub) == ["first", "second"]
    await first.vanish()
    await second.vanish()


async def test_heartbeats_keep_the_lease_and_carry_load(mesh, stub, join, world):
    process = await join(mesh, world.instance("one"))
    load = agent_pb2.Load(in_flight=3, calls=7, failures=1)
    load.latency_ewma.FromTimedelta(timedelta(milliseconds=12))
    answer = await process.say(report=registry_pb2.LoadReport(loads={"one": load}))
    assert answer.renewed.expire_time.seconds > 0
    found = await stub.Resolve(registry_pb2.ResolveRequest(agent="support-triage"))
    assert found.instances[0].load == load
    await a_ttl_passes(stub, join, mesh, world)
    assert await resolve(stub) == ["one"]


async def test_a_broken_stream_runs_out_and_the_agent_stays_known(mesh, stub, join, world):
    process = await join(mesh, world.instance())
    await process.vanish()
    assert not await gone(stub)
    await wait_until(lambda: gone(stub), timeout=timedelta(seconds=3))
    assert await resolve(stub) == []


async def test_a_silent_process_loses_its_lease_and_is_told_to_come_back(mesh, stub, join, world):
    process = await join(mesh, world.instance())
    process.freeze()
    error = await process.ended()
    assert isinstance(error, rpc.Unavailable)
    assert error.reason == "LEASE_EXPIRED"
    assert await gone(stub)


async def test_leaving_ends_the_lease_at_once(mesh, stub, join, world):
    process = await join(mesh, world.instance())
    await process.leave()
    assert await gone(stub)


async def test_a_newer_stream_takes_over_without_a_gap(mesh, stub, join, world):
    first = await join(mesh, world.instance("one", address=f"127.0.0.1:{world.port}"))
    before = (await stub.Resolve(registry_pb2.ResolveRequest(agent="support-triage"))).instances[0]
    first.freeze()
    again = await join(mesh, world.instance("one", address=f"127.0.0.1:{world.port}"))
    error = await first.ended()
    assert isinstance(error, rpc.Aborted)
    assert error.reason == "LEASE_TAKEN"
    assert again.revision == first.revision, "the same instance again is no change"
    after = (await stub.Resolve(registry_pb2.ResolveRequest(agent="support-triage"))).instances[0]
    assert after == before
    await first.vanish()
    await a_ttl_passes(stub, join, mesh, world)
    assert await resolve(stub) == ["one"]


async def test_instances_that_were_not_taken_over_run_out(mesh, stub, join, world):
    first = await join(mesh, world.instance("one"), world.instance("two"))
    first.freeze()
    await join(mesh, world.instance("one"))
    assert (await first.ended()).reason == "LEASE_TAKEN"

    async def only_one():
        return await resolve(stub) == ["one"]

    await wait_until(only_one, timeout=timedelta(seconds=3))


async def test_draining_takes_an_instance_out_of_service_and_cannot_be_undone(
    mesh, stub, join, world
):
    process = await join(mesh, world.instance("one"), world.instance("two"))
    revision = await process.state(agent_pb2.INSTANCE_STATE_DRAINING, "stopping", ids=["one"])
    assert revision > process.revision
    assert await resolve(stub) == ["two"]
    listed = await stub.ListAgents(registry_pb2.ListAgentsRequest())
    one = listed.agents[0].instances[0]
    assert (one.state, one.state_reason) == (agent_pb2.INSTANCE_STATE_DRAINING, "stopping")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await process.state(agent_pb2.INSTANCE_STATE_SERVING)
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_an_instance_may_register_before_it_is_ready(mesh, stub, join, world):
    process = await join(mesh, world.instance("one", state=agent_pb2.INSTANCE_STATE_STARTING))
    assert await resolve(stub) == []
    await process.state(agent_pb2.INSTANCE_STATE_SERVING)
    assert await resolve(stub) == ["one"]
    await process.state(agent_pb2.INSTANCE_STATE_DEGRADED, "model is missing")
    assert await resolve(stub) == ["one"]


async def test_bad_fields_are_named_by_their_paths(mesh, member, world):
    bad = world.instance(instance_id="Upper", address="localhost:80")
    process = member(mesh.address, [world.instance(), bad])
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await process.register()
    error = rpc.error_from_call(failed.value)
    assert isinstance(error, rpc.InvalidArgument)
    assert [where for where, _ in error.violations] == [
        "registration.instances[1].instance_id",
        "registration.instances[1].address",
    ]
    await process.vanish()


async def test_messages_out_of_order_are_refused(mesh, member, world):
    process = member(mesh.address, [world.instance()])
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await process.say(report=registry_pb2.LoadReport())
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    await process.vanish()

    process = member(mesh.address, [world.instance()])
    registration = registry_pb2.Registration(instances=process.instances)
    await process.say(registration=registration)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await process.say(report=registry_pb2.LoadReport())
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    await process.vanish()

    process = member(mesh.address, [world.instance()])
    await process.register()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await process.say(registration=registration)
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    await process.vanish()


async def test_a_bad_descriptor_set_is_refused(mesh, member, world):
    for digest, content, says in (
        (world.digest, b"damaged", "SHA-256"),
        ("0" * 64, b"", "was not asked for"),
    ):
        process = member(mesh.address, [world.instance()])
        await process.say(registration=registry_pb2.Registration(instances=process.instances))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await process.say(descriptors=registry_pb2.DescriptorSets(sets={digest: content}))
        error = rpc.error_from_call(failed.value)
        assert isinstance(error, rpc.InvalidArgument)
        assert error.violations[0][0].startswith("descriptors.sets[")
        assert says in error.violations[0][1]
        await process.vanish()


async def test_a_service_that_its_set_does_not_describe_is_refused(mesh, member, world):
    ref = agent_pb2.ServiceRef(name="weft.support.v1.Nobody", descriptor_digest=world.digest)
    process = member(mesh.address, [world.instance(services=[ref])])
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await process.register()
    error = rpc.error_from_call(failed.value)
    assert isinstance(error, rpc.InvalidArgument)
    assert error.violations[0][0] == "registration.instances[0].services[0].name"
    await process.vanish()


async def test_foreign_instances_can_be_neither_changed_nor_reported(mesh, member, world):
    for message, path in (
        (
            {"state_change": registry_pb2.StateChange(instance_ids=["x"], state=2)},
            "state_change.instance_ids[0]",
        ),
        ({"state_change": registry_pb2.StateChange(state=4)}, "state_change.state"),
        ({"report": registry_pb2.LoadReport(loads={"x": agent_pb2.Load()})}, 'report.loads["x"]'),
    ):
        process = member(mesh.address, [world.instance()])
        await process.register()
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await process.say(**message)
        error = rpc.error_from_call(failed.value)
        assert isinstance(error, rpc.InvalidArgument)
        assert [where for where, _ in error.violations] == [path]
        await process.vanish()


async def test_a_registry_that_stood_still_blames_nobody(mesh, stub, join, world):
    await join(mesh, world.instance("one"))
    time.sleep(1.5)  # noqa: ASYNC251 longer than the ttl: neither side can do anything
    await a_ttl_passes(stub, join, mesh, world)
    assert await resolve(stub) == ["one"]
