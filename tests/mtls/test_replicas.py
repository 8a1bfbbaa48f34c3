"""Several replicas of the registry, operators and discovery in a mesh with mTLS."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
from tests.certificates import Certificates
from tests.mtls.test_mesh import SAY, registry_at

from weft import rpc
from weft.agents import Host, Mesh
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2_grpc
from weft.registry import Registry
from weft.rpc.testing import wait_until
from weft.v1 import discovery_pb2, discovery_pb2_grpc, lifecycle_pb2, lifecycle_pb2_grpc
from weft.v1 import registry_pb2 as pb
from weft.v1.registry_pb2_grpc import RegistryServiceStub

PATIENCE = timedelta(seconds=15)


@contextlib.asynccontextmanager
async def echo_host(registry: str, certificates: Certificates, name: str) -> AsyncIterator[Host]:
    async with Host(registry=registry, mtls=certificates.agents(name)) as host:
        host.add(Echo("one"), agent=name)
        await host.start()
        yield host


async def said(mesh: Mesh, agent: str) -> str:
    stub = mesh.stub(echo_pb2_grpc.EchoServiceStub, agent)
    return (await stub.Say(SAY, timeout=5)).text


async def answers(mesh: Mesh, agent: str) -> bool:
    with contextlib.suppress(grpc.aio.AioRpcError):
        return bool(await said(mesh, agent))
    return False


async def test_one_of_several_registries_goes_and_nobody_notices(
    fresh_xds: None, certificates: Certificates, database_url: str
) -> None:
    client = certificates.member("client/ann")
    async with contextlib.AsyncExitStack() as stack:
        replicas: dict[str, tuple[Registry, contextlib.AsyncExitStack]] = {}
        for _ in range(2):
            own = await stack.enter_async_context(contextlib.AsyncExitStack())
            registry = await own.enter_async_context(registry_at(certificates, database_url))
            replicas[registry.address] = (registry, own)
        both = ",".join(replicas)
        mesh = await stack.enter_async_context(Mesh(both, mtls=client))
        servers = json.loads(rpc.xds_bootstrap(both, mtls=client))["xds_servers"]
        assert {server["server_uri"] for server in servers} == set(replicas)
        early = await stack.enter_async_context(echo_host(both, certificates, "early"))
        stub = RegistryServiceStub(await stack.enter_async_context(rpc.Channel(both, mtls=client)))
        # The replica that is asked hears of it in a moment.
        await wait_until(lambda: answers(mesh, "early"), timeout=PATIENCE)

        async def all_living() -> bool:
            answer = await stub.ListReplicas(pb.ListReplicasRequest(), timeout=5)
            return {replica.address for replica in answer.replicas} == set(replicas)

        await wait_until(all_living, timeout=PATIENCE)
        assert early._registration is not None
        holder = early._registration._registry.current
        await replicas.pop(holder)[1].aclose()
        assert await said(mesh, "early")
        await wait_until(early._registration.registered.is_set, timeout=PATIENCE)
        await wait_until(all_living, timeout=PATIENCE)
        await stack.enter_async_context(echo_host(both, certificates, "late"))
        await wait_until(lambda: answers(mesh, "late"), timeout=PATIENCE)


async def test_operators_are_clients_and_whoever_is_of_the_mesh_finds_agents(
    fresh_xds: None, certificates: Certificates, database_url: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        registry = await stack.enter_async_context(registry_at(certificates, database_url))
        await stack.enter_async_context(echo_host(registry.address, certificates, "echo"))

        async def channel(who: str) -> rpc.Channel:
            own = certificates.member(who)
            return await stack.enter_async_context(rpc.Channel(registry.address, mtls=own))

        asked = lifecycle_pb2.PauseAgentRequest(agent="echo", reason="a look at it")
        for who in ("agent/echo", "agent/other", "part/gateway"):
            lifecycle = lifecycle_pb2_grpc.LifecycleServiceStub(await channel(who))
            for call in (
                lifecycle.PauseAgent(asked),
                lifecycle.DrainAgent(lifecycle_pb2.DrainAgentRequest(agent="echo")),
                lifecycle.ResumeAgent(lifecycle_pb2.ResumeAgentRequest(agent="echo")),
                lifecycle.SetAgent(lifecycle_pb2.SetAgentRequest(agent="echo")),
                lifecycle.SetTraffic(lifecycle_pb2.SetTrafficRequest(agent="echo")),
                lifecycle.GetControl(lifecycle_pb2.GetControlRequest(agent="echo")),
                lifecycle.ListControlEvents(lifecycle_pb2.ListControlEventsRequest()),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await call
                assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED
                assert rpc.error_from_call(failed.value).reason == "NOT_AN_OPERATOR"
        for who in ("agent/other", "client/ann"):
            found = discovery_pb2_grpc.DiscoveryServiceStub(await channel(who))
            answer = await found.Find(discovery_pb2.FindRequest(query={"agent": "echo"}))
            assert [match.agent for match in answer.matches] == ["echo"]

        by_ann = lifecycle_pb2_grpc.LifecycleServiceStub(await channel("client/ann"))
        assert (await by_ann.PauseAgent(asked)).control.hold.reason == "a look at it"
        mesh = Mesh(registry.address, mtls=certificates.member("agent/other"))
        async with mesh:

            async def paused() -> bool:
                try:
                    await said(mesh, "echo")
                except grpc.aio.AioRpcError as failed:
                    return rpc.error_from_call(failed).reason == "AGENT_PAUSED"
                return False

            # The agent itself says so: those who call it get through to it, and it is who it should be.
            await wait_until(paused, timeout=PATIENCE)
            await by_ann.ResumeAgent(lifecycle_pb2.ResumeAgentRequest(agent="echo"))
            await wait_until(lambda: answers(mesh, "echo"), timeout=PATIENCE)
