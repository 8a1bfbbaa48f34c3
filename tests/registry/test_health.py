"""Probes of real servers: transitions, hangs, deaths, and their way back."""

from __future__ import annotations

import signal
import time
from datetime import timedelta

import grpc
import pytest

from weft import registry, rpc
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2, registry_pb2, registry_pb2_grpc

UNREACHABLE = agent_pb2.INSTANCE_STATE_UNREACHABLE
SERVING = agent_pb2.INSTANCE_STATE_SERVING
DEGRADED = agent_pb2.INSTANCE_STATE_DEGRADED


async def states(stub):
    listed = await stub.ListAgents(registry_pb2.ListAgentsRequest())
    return {i.instance_id: (i.state, i.state_reason) for a in listed.agents for i in a.instances}


def is_in(stub, instance_id, state):
    async def check():
        return (await states(stub))[instance_id][0] == state

    return check


async def test_a_service_that_stops_serving_is_out_until_it_serves_again(
    mesh, stub, join, replica, world
):
    a = await replica("a")
    process = await join(mesh, a.instance())
    await process.state(DEGRADED, "half a model")
    a.server.set_health(world.service, serving=False)
    await wait_until(is_in(stub, "a", UNREACHABLE))
    assert "NOT_SERVING" in (await states(stub))["a"][1]
    a.server.set_health(world.service, serving=True)
    await wait_until(is_in(stub, "a", DEGRADED))
    assert (await states(stub))["a"][1] == "half a model"


async def test_services_at_one_address_are_judged_apart(mesh, stub, join, replica, world):
    a = await replica("a")
    research = "weft.support.v1.ResearchService"
    a.server.set_health(research, serving=True)
    other = a.instance(instance_id="b", agent="research", services=[world.ref(research)])
    await join(mesh, a.instance(), other)
    a.server.set_health(research, serving=False)
    await wait_until(is_in(stub, "b", UNREACHABLE))
    assert (await states(stub))["a"][0] == SERVING
    a.server.set_health(research, serving=True)
    a.server.set_health(world.service, serving=False)
    await wait_until(is_in(stub, "b", SERVING))
    await wait_until(is_in(stub, "a", UNREACHABLE))


async def test_a_server_that_is_not_there_is_out_at_once_and_back_when_it_comes(
    mesh, stub, join, replica, world
):
    a = await replica("a")
    address = a.server.address
    await join(mesh, a.instance())
    await wait_until(is_in(stub, "a", SERVING))
    await a.server.stop()
    await wait_until(is_in(stub, "a", UNREACHABLE))
    found = await stub.Resolve(registry_pb2.ResolveRequest(agent="support-triage"))
    assert not found.instances
    again = type(a)("a")
    again.server.address = address
    async with again.server:
        await wait_until(is_in(stub, "a", SERVING))


class Bare(grpc.GenericRpcHandler):
    """Has no method at all, and counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def service(self, handler_call_details):
        self.asked.append(handler_call_details.method)


async def test_a_server_without_health_service_counts_as_healthy(mesh, stub, join, world):
    bare, server = Bare(), grpc.aio.server()
    server.add_generic_rpc_handlers((bare,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await join(mesh, world.instance("plain", address=f"127.0.0.1:{port}"))
    await wait_until(lambda: bare.asked.count("/grpc.health.v1.Health/Check") > 2)
    assert (await states(stub))["plain"][0] == SERVING
    await server.stop(None)
    await wait_until(is_in(stub, "plain", UNREACHABLE))


async def test_a_service_the_server_does_not_know_is_out(mesh, stub, join, world):
    async with rpc.Server("127.0.0.1:0") as server:
        await join(mesh, world.instance("stranger", address=server.address))
        await wait_until(is_in(stub, "stranger", UNREACHABLE))
        assert world.service in (await states(stub))["stranger"][1]


@pytest.mark.failure
async def test_a_stopped_process_is_out_within_4_s_and_a_killed_one_at_once(
    run_registry, join, spawn, world
):
    """With the probes' real pace; the lease is held by somebody else, so that only they can tell."""
    async with (
        run_registry(pace=registry.Pace()) as mesh,
        rpc.Channel(mesh.address) as channel,
    ):
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        child = await spawn("replica", "hung")
        await join(mesh, world.instance("hung", address=child.address))
        child.signal(signal.SIGSTOP)
        await wait_until(is_in(stub, "hung", UNREACHABLE), timeout=timedelta(seconds=4))
        child.signal(signal.SIGCONT)
        await wait_until(is_in(stub, "hung", SERVING), timeout=timedelta(seconds=4))
        child.signal(signal.SIGKILL)
        killed = time.monotonic()
        await wait_until(is_in(stub, "hung", UNREACHABLE))
        assert time.monotonic() - killed < 0.5
