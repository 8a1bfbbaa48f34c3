"""Real gRPC clients at xds:///agent."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import timedelta

import grpc
import pytest

from weft import rpc
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2


async def fails(call):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return rpc.error_from_call(failed.value)


async def test_an_agent_is_found_by_name_and_balanced(mesh, join, replica, dial, ask):
    a, b = await replica("a"), await replica("b")
    await join(mesh, a.instance())
    await join(mesh, b.instance())
    async with dial(mesh.address) as channel:
        answered: set[str] = set()

        async def both():
            answered.add(await ask(channel))
            return answered == {"a", "b"}

        await wait_until(both)


async def test_a_plain_grpc_client_needs_the_bootstrap_variable_and_no_more(
    mesh, join, replica, spawn
):
    a = await replica("a")
    await join(mesh, a.instance())
    bootstrap = {rpc.BOOTSTRAP_VARIABLE: rpc.xds_bootstrap(mesh.address)}
    caller = await spawn("caller", "support-triage", **bootstrap)
    assert caller.address == "a"


async def test_an_unknown_agent_fails_at_once_with_what_to_do(mesh, join, replica, dial, ask):
    a = await replica("a")
    await join(mesh, a.instance())
    async with dial(mesh.address) as warm:
        await ask(warm)
    spent = []
    for number in range(5):  # the machine may be busy with something else for a moment
        started = time.perf_counter()
        async with dial(mesh.address, f"unknown-{number}") as channel:
            error = await fails(ask(channel))
            spent.append(time.perf_counter() - started)
        assert isinstance(error, rpc.NotFound)
        assert error.reason == "AGENT_UNKNOWN"
        assert "weft agents" in error.message
    assert min(spent) < 0.05

    async with dial(mesh.address, "no-such-agent") as channel:
        assert isinstance(await fails(ask(channel)), rpc.NotFound)
        # The moment it registers it is called.
        await join(mesh, a.instance(agent="no-such-agent", instance_id="late"))

        async def answered():
            try:
                return await ask(channel) == "a"
            except grpc.aio.AioRpcError as failed:
                return failed.code() is not grpc.StatusCode.NOT_FOUND and failed.code()

        await wait_until(answered, timeout=timedelta(seconds=2))
        assert await ask(channel) == "a"


async def test_a_known_agent_with_nobody_in_service_is_unavailable_at_once(
    mesh, join, replica, dial, ask
):
    a = await replica("a")
    process = await join(mesh, a.instance())
    async with dial(mesh.address) as channel:
        assert await ask(channel) == "a"
        await process.leave()

        async def refused():
            started = time.perf_counter()
            try:
                await ask(channel)
            except grpc.aio.AioRpcError as failed:
                at_once = time.perf_counter() - started < 1
                return at_once and failed.code() is grpc.StatusCode.UNAVAILABLE
            return False

        await wait_until(refused)
        back = await join(mesh, a.instance())
        assert back.revision > process.revision

        async def answered():
            return not await refused()

        await wait_until(answered)


async def test_replicas_come_drain_and_go_and_no_call_fails(mesh, join, replica, dial, ask):
    stable = await replica("stable")
    await join(mesh, stable.instance())
    outcomes: list[str] = []
    done = asyncio.Event()

    async def caller(channel):
        while not done.is_set():
            outcomes.append(await ask(channel, "sleep 0.005"))

    async with dial(mesh.address) as channel, asyncio.TaskGroup() as callers:
        for _ in range(4):
            callers.create_task(caller(channel))
        for turn in range(5):
            guest = await replica(f"guest-{turn}")
            process = await join(mesh, guest.instance())
            await wait_until(lambda turn=turn: f"guest-{turn}" in outcomes)
            await process.state(agent_pb2.INSTANCE_STATE_DRAINING)
            drained = len(outcomes)  # a stopping replica waits 100 ms here, some 40 of these calls
            await wait_until(lambda drained=drained: len(outcomes) > drained + 40)
            calls = guest.triage.calls
            await process.leave()
            await guest.server.stop(timedelta(seconds=1))
            assert guest.triage.calls == calls
        done.set()
    assert len(outcomes) > 50
    assert set(outcomes) == {"stable", *(f"guest-{turn}" for turn in range(5))}


async def test_methods_that_may_run_twice_are_retried_and_others_are_not(
    mesh, join, replica, world, dial, ask
):
    a = await replica("a")
    await join(mesh, a.instance())
    async with dial(mesh.address) as channel:
        a.triage.failing = 2
        assert await ask(channel) == "a"
        assert a.triage.calls == 3
        # A path that no contract names has the default route, which has no retries.
        tries = 0

        async def unavailable(_requests, context):
            nonlocal tries
            tries += 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "asked to fail")

        class Fallback(grpc.GenericRpcHandler):
            def service(self, handler_call_details):
                return grpc.stream_stream_rpc_method_handler(unavailable)

        a.server.add_fallback(Fallback())
        plain = channel.unary_unary(f"/{world.service}/Unheard")
        assert isinstance(await fails(plain(b"")), rpc.Unavailable)
        assert tries == 1


async def test_more_than_1024_calls_may_be_open(mesh, join, replica, dial, ask):
    a, b = await replica("a"), await replica("b")
    await join(mesh, a.instance())
    await join(mesh, b.instance())
    async with dial(mesh.address) as channel:
        await ask(channel)
        # 1,024 is what a client allows when no limit is published; each replica here takes 1,000.
        calls = [asyncio.create_task(ask(channel, "sleep 1.5", within=20)) for _ in range(1_100)]
        assert set(await asyncio.gather(*calls)) == {"a", "b"}


@pytest.mark.failure
async def test_a_killed_replica_costs_no_retryable_call(
    mesh, join, replica, spawn, world, dial, ask
):
    stable, victim = await replica("stable"), await spawn("replica", "victim")
    await join(mesh, stable.instance())
    await join(mesh, world.instance("victim", address=victim.address))
    outcomes: list[str] = []
    done = asyncio.Event()

    async def caller(channel):
        while not done.is_set():
            outcomes.append(await ask(channel))
            await asyncio.sleep(0.01)  # 4 callers: some 200 calls a second

    async with dial(mesh.address) as channel, asyncio.TaskGroup() as callers:
        for _ in range(4):
            callers.create_task(caller(channel))
        await wait_until(lambda: "victim" in outcomes)
        victim.signal(signal.SIGKILL)
        killed = len(outcomes)
        await wait_until(lambda: len(outcomes) > killed + 100)
        done.set()
    assert set(outcomes[killed + 10 :]) == {"stable"}


async def test_two_replicas_at_one_address_are_one_endpoint(mesh, join, replica, dial, ask):
    a = await replica("a")
    await join(mesh, a.instance())
    await join(mesh, a.instance(instance_id="the-same-restarted"))
    async with dial(mesh.address) as channel:
        assert await ask(channel) == "a"


async def test_registry_methods_still_answer_for_themselves(mesh):
    async with rpc.Channel(mesh.address) as channel:
        nothing = channel.unary_unary("/weft.v1.RegistryService/Nothing")
        assert isinstance(await fails(nothing(b"")), rpc.Unimplemented)
        health = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await health(b"") == b"\x08\x01"
