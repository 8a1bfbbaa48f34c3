"""The ADS service as a client sees it on the wire: rejections, cold start, many streams."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest
from google.protobuf import any_pb2

from weft import rpc
from weft.registry.xds import resources
from weft.rpc.testing import wait_until
from weft.telemetry import Instruments, Telemetry
from weft.xds.v1 import discovery_pb2, resources_pb2

PATH = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"


class Ads:
    """A hand-driven client."""

    def __init__(self, channel: rpc.Channel) -> None:
        self.stream = channel.stream_stream(
            PATH,
            discovery_pb2.DiscoveryRequest.SerializeToString,
            discovery_pb2.DiscoveryResponse.FromString,
        )()

    async def ask(self, type_url: str, *names: str, nonce: str = "", reject: str = "") -> None:
        request = discovery_pb2.DiscoveryRequest(
            type_url=type_url,
            resource_names=names,
            response_nonce=nonce,
            node=discovery_pb2.Node(id="tester", user_agent_name="a test"),
        )
        if reject:
            request.error_detail.message = reject
        await self.stream.write(request)

    async def endpoints(self, within: float = 2) -> dict[str, list[int]]:
        """Ports by agent of the next response, which must be of endpoints."""
        async with asyncio.timeout(within):
            response = await self.stream.read()
        assert response.type_url == resources.ENDPOINTS
        self.nonce = response.nonce
        found = {}
        for packed in response.resources:
            value = any_pb2.Any.FromString(packed).value
            assignment = resources_pb2.ClusterLoadAssignment.FromString(value)
            found[assignment.cluster_name] = [
                endpoint.endpoint.address.socket_address.port_value
                for place in assignment.endpoints
                for endpoint in place.lb_endpoints
            ]
        return found


async def test_a_rejection_is_logged_counted_and_isolated(run_registry, join, world, caplog):
    telemetry = Telemetry(metrics=Instruments("registry"))
    async with run_registry(telemetry=telemetry) as mesh, rpc.Channel(mesh.address) as channel:
        process = await join(mesh, world.instance("one"))
        await join(mesh, world.instance("two", agent="other"))
        ads = Ads(channel)
        await ads.ask(resources.ENDPOINTS, "support-triage", "other")
        assert await ads.endpoints() == {"support-triage": [world.port], "other": [world.port]}
        with caplog.at_level(logging.ERROR, "weft.registry"):
            await ads.ask(
                resources.ENDPOINTS, "support-triage", "other", nonce=ads.nonce, reject="not today"
            )
            await wait_until(lambda: any("why" in vars(record) for record in caplog.records))
            told = [vars(record) for record in caplog.records]
        record = next(each for each in told if "why" in each)
        assert record["why"] == "not today"
        assert record["node"] == "tester (a test)"
        assert record["names"] == ["other", "support-triage"]
        # Nothing is repeated, and a later change is pushed as ever.
        await process.leave()
        assert await ads.endpoints() == {"support-triage": []}
        page = telemetry.metrics.registry
        count = page.get_sample_value(
            "weft_registry_xds_nacks_total", {"type_url": resources.ENDPOINTS}
        )
        assert count == 1
        assert page.get_sample_value("weft_registry_xds_streams") == 1
        labels = {"agent": "other", "state": "SERVING"}
        assert page.get_sample_value("weft_registry_instances", labels) == 1
        ads.stream.cancel()
        await wait_until(lambda: page.get_sample_value("weft_registry_xds_streams") == 0)


async def test_a_cold_registry_is_silent_about_names_it_does_not_know_yet(
    run_registry, join, world
):
    async with (
        run_registry(cold_start=timedelta(seconds=0.6)) as mesh,
        rpc.Channel(mesh.address) as channel,
    ):
        ads = Ads(channel)
        await ads.ask(resources.CLUSTER, "support-triage")
        assert (await ads.stream.read()).type_url == resources.CLUSTER
        await ads.ask(resources.ENDPOINTS, "support-triage", "never-there")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                asyncio.shield(reading := asyncio.create_task(ads.endpoints())), 0.2
            )
        await join(mesh, world.instance("one"))
        assert await reading == {"support-triage": [world.port]}
        sink = int(mesh.address.rpartition(":")[2])
        assert await ads.endpoints() == {"never-there": [sink]}
        ads.stream.cancel()


async def test_every_one_of_many_streams_follows(mesh, join, world):
    process = await join(mesh, world.instance("one"))
    async with rpc.Channel(mesh.address) as channel:
        clients = [Ads(channel) for _ in range(100)]
        for ads in clients:
            await ads.ask(resources.ENDPOINTS, "support-triage")
        for ads in clients:
            assert await ads.endpoints() == {"support-triage": [world.port]}
        await process.leave()
        for ads in clients:
            assert await ads.endpoints() == {"support-triage": []}
        for ads in clients:
            ads.stream.cancel()


async def test_types_that_are_not_published_and_clients_that_vanish_do_no_harm(
    mesh, world, join, caplog
):
    await join(mesh, world.instance("one"))
    channel = rpc.Channel(mesh.address)
    ads = Ads(channel)
    await ads.ask("type.googleapis.com/envoy.config.core.v3.Nothing", "x")
    await ads.ask(resources.ENDPOINTS, "support-triage")
    await channel.close()
    async with rpc.Channel(mesh.address) as second:
        ads = Ads(second)
        await ads.ask(resources.ENDPOINTS, "support-triage")
        assert await ads.endpoints() == {"support-triage": [world.port]}
        await ads.stream.done_writing()
        assert await ads.stream.read() is not None
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
