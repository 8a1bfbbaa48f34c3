"""Probes of real servers: transitions, hangs, deaths, and their way back."""

from __future__ import annotations

import asyncio
import contextlib
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


async def test_servers_that_do_not_speak_grpc_are_out(mesh, stub, join, world):
    held = []

    async def closes(_reader, writer):
        writer.close()

    async def babbles(_reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 10)
        held.append(writer)

    async def is_silent(_reader, writer):
        held.append(writer)

    async with contextlib.AsyncExitStack() as stack:
        for behaviour in (closes, babbles, is_silent):
            server = await asyncio.start_server(behaviour, "127.0.0.1", 0)
            stack.callback(server.close)
            host, port = server.sockets[0].getsockname()
            name = behaviour.__name__.replace("_", "-")
            await join(mesh, world.instance(name, agent=name, address=f"{host}:{port}"))
        for name in ("closes", "babbles", "is-silent"):
            await wait_until(is_in(stub, name, UNREACHABLE))
        for writer in held:
            writer.close()


async def test_answers_may_come_in_pieces(mesh, stub, join, replica, world):
    a = await replica("a")
    host, _, port = a.server.address.rpartition(":")

    async def carry(reader, writer):
        far_reader, far_writer = await asyncio.open_connection(host, int(port))

        async def pump(source, sink):
            with contextlib.suppress(OSError):
                while data := await source.read(1):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    slow = await asyncio.start_server(carry, "127.0.0.1", 0)
    near = slow.sockets[0].getsockname()
    await join(mesh, a.instance(address=f"{near[0]}:{near[1]}"))
    for _ in range(3):
        a.server.set_health(world.service, serving=False)
        await wait_until(is_in(stub, "a", UNREACHABLE))
        assert "NOT_SERVING" in (await states(stub))["a"][1]
        a.server.set_health(world.service, serving=True)
        await wait_until(is_in(stub, "a", SERVING))
    slow.close()


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
