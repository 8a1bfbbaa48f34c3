"""The Register stream from registration to the end of the lease."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest

from weft import registry, rpc
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2, registry_pb2


async def resolve(stub, agent="support-triage"):
    answer = await stub.Resolve(registry_pb2.ResolveRequest(agent=agent))
    return [instance.instance_id for instance in answer.instances]


async def gone(stub, agent="support-triage"):
    listed = await stub.ListAgents(registry_pb2.ListAgentsRequest())
    return [i for a in listed.agents if a.name == agent for i in a.instances] == []


async def test_a_first_registration_sends_descriptors_and_a_second_need_not(mesh, stub, member, world):
    first = member(mesh.address, [world.instance("first")])
    granted = (await first.say(registration=registry_pb2.Registration(instances=first.instances))).granted
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
    await asyncio.sleep(2 * process.granted.ttl.ToTimedelta().total_seconds())  # the ttl must pass twice
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
    await asyncio.sleep(1.2)  # the old lease's ttl must pass
    assert await resolve(stub) == ["one"]


async def test_instances_that_were_not_taken_over_run_out(mesh, stub, join, world):
    first = await join(mesh, world.instance("one"), world.instance("two"))
    first.freeze()
    await join(mesh, world.instance("one"))
    assert (await first.ended()).reason == "LEASE_TAKEN"

    async def only_one():
        return await resolve(stub) == ["one"]

    await wait_until(only_one, timeout=timedelta(seconds=3))


async def test_draining_takes_an_instance_out_of_service_and_cannot_be_undone(mesh, stub, join, world):
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


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"instance_id": "Upper"}, "instance_id"),
        ({"agent": "9lives"}, "agent"),
        ({"address": "localhost:80"}, "address"),
        ({"address": "0.0.0.0:80"}, "address"),
        ({"address": "127.0.0.1:0"}, "address"),
        ({"address": "::1:80"}, "address"),
        ({"services": []}, "services"),
        ({"version": "1.0"}, "version"),
        ({"labels": {"k" * 101: "v"}}, 'labels["' + "k" * 100 + '"]'),
        ({"capabilities": ["x"] * 65}, "capabilities"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"state": agent_pb2.INSTANCE_STATE_DRAINING}, "state"),
        ({"load": agent_pb2.Load()}, "load"),
        ({"services": [agent_pb2.ServiceRef(name="a.B", descriptor_digest="x")]}, "services[0].descriptor_digest"),
    ],
)
async def test_a_bad_field_is_named_by_its_path(mesh, member, world, fields, path):
    process = member(mesh.address, [world.instance(), world.instance(**fields)])
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await process.register()
    error = rpc.error_from_call(failed.value)
    assert isinstance(error, rpc.InvalidArgument)
    assert [where for where, _ in error.violations] == [f"registration.instances[1].{path}"]
    await process.vanish()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:50051", "10.1.2.3:65535"])
async def test_addresses_of_both_families_are_taken(mesh, join, world, address):
    assert (await join(mesh, world.instance(address=address))).revision


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


@pytest.mark.parametrize(
    ("digest", "content", "says"),
    [
        (None, b"damaged", "SHA-256"),
        ("0" * 64, b"", "was not asked for"),
    ],
)
async def test_a_bad_descriptor_set_is_refused(mesh, member, world, digest, content, says):
    process = member(mesh.address, [world.instance()])
    await process.say(registration=registry_pb2.Registration(instances=process.instances))
    sets = registry_pb2.DescriptorSets(sets={digest or world.digest: content})
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await process.say(descriptors=sets)
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
        ({"state_change": registry_pb2.StateChange(instance_ids=["x"], state=2)}, "state_change.instance_ids[0]"),
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


def test_terms_leave_room_for_three_heartbeats():
    with pytest.raises(ValueError, match="third"):
        registry.Terms(ttl=timedelta(seconds=2), heartbeat_interval=timedelta(seconds=1))
