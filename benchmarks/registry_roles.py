"""The processes of the registry's benchmark. Each is told what to do by lines of JSON, and answers each with one."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import grpc
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from weft import rpc
from weft.agents import Mesh
from weft.agents.contract import contract_of
from weft.agents.echo import Echo
from weft.agents.registration import Registration
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.registry import Registry, Terms
from weft.rpc import process
from weft.v1 import agent_pb2, registry_pb2, registry_pb2_grpc
from weft.xds.v1 import discovery_pb2

OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
_AGAIN = 0.2  # seconds


class Replica:
    """A replica of the registry."""

    def __init__(self, database_url: str, ttl: float) -> None:
        process.raise_files()
        terms = Terms(ttl=timedelta(seconds=ttl), heartbeat_interval=timedelta(seconds=ttl / 4))
        self._collecting = process.collecting()
        self._registry = Registry(database_url=database_url, address="127.0.0.1:0", terms=terms)

    async def start(self) -> Mapping[str, Any]:
        """Serves for ever, as `weft registry` does."""
        await self._registry.__aenter__()
        await self._collecting.__aenter__()
        return {"address": self._registry.address}


class Bare:
    """A bare grpc.aio server that gives the same answer to every question: what this machine takes for a call."""

    def __init__(self, answer: str) -> None:
        self._answer = registry_pb2.ResolveResponse.FromString(bytes.fromhex(answer))
        self._server = grpc.aio.server()

    async def start(self) -> Mapping[str, Any]:
        """Serves for ever."""
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(self, self._server)  # type: ignore[arg-type]
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return {"address": f"127.0.0.1:{port}"}

    async def Resolve(self, _request: object, _context: object) -> registry_pb2.ResolveResponse:
        """See registry.proto."""
        return self._answer

    def __getattr__(self, name: str) -> Any:
        # The generated code asks for all methods; none of the others is called.
        if name in registry_pb2.DESCRIPTOR.services_by_name["RegistryService"].methods_by_name:
            return self.Resolve
        raise AttributeError(name)


class Offer:
    """A service, and its files."""

    def __init__(self, service: str, descriptors: bytes) -> None:
        self.service, self.descriptors = service, descriptors
        self.digest = hashlib.sha256(descriptors).hexdigest()

    @classmethod
    @functools.cache
    def of_agent(cls, number: int) -> Offer:
        """The service of one agent alone: what echo offers, under names and paths of its own."""
        package, own = "weft.echo.v1", f"site.agent{number}.v1"
        files = descriptor_pb2.FileDescriptorSet.FromString(contract_of(Echo()).descriptors)
        file = files.file[-1]
        file.name, file.package = f"{own.replace('.', '/')}/agent.proto", own
        for message in file.message_type:
            for each in message.field:
                if each.type_name:
                    each.type_name = each.type_name.replace(package, own)
        for method in file.service[0].method:
            method.input_type = method.input_type.replace(package, own)
            method.output_type = method.output_type.replace(package, own)
            http = method.options.Extensions[annotations_pb2.http]
            for rule in (http, *http.additional_bindings):
                pattern = rule.WhichOneof("pattern")
                if pattern:
                    setattr(rule, pattern, getattr(rule, pattern).replace("echo", f"agent{number}"))
        return cls(f"{own}.EchoService", files.SerializeToString(deterministic=True))


class Hosts:
    """Processes of a mesh, as the registry sees them: each a stream, an address and instances of many agents."""

    def __init__(
        self,
        registries: str,
        prefix: str,
        hosts: int,
        instances: int,
        agents: int,
    ) -> None:
        self._registries, self._prefix = registries, prefix
        self._hosts, self._instances, self._agents = hosts, instances, agents
        self._server = rpc.Server("0.0.0.0:0")
        self._registrations: list[Registration] = []
        self._running: list[asyncio.Task[None]] = []

    async def start(self) -> Mapping[str, Any]:
        """Registers everything; how long that took."""
        contract = contract_of(Echo(self._prefix))
        self._server.add(contract.add_to_server, Echo(self._prefix))
        await self._server.start()
        port = self._server.address.rpartition(":")[2]
        first = int(self._prefix) * self._hosts
        for host in range(first, first + self._hosts):
            made, descriptors = [], {}
            for number in range(self._instances):
                agent = (host * self._instances + number) % self._agents
                offer = Offer.of_agent(agent)
                descriptors[offer.digest] = offer.descriptors
                self._server.set_health(offer.service, serving=True)
                ref = agent_pb2.ServiceRef(name=offer.service, descriptor_digest=offer.digest)
                made.append(
                    agent_pb2.Instance(
                        instance_id=f"i-{host}-{number}",
                        agent=f"agent-{agent}",
                        address=f"127.1.{host // 250}.{host % 250 + 1}:{port}",
                        services=[ref],
                        version="1.0.0",
                        max_concurrency=10,
                    )
                )
            self._registrations.append(
                Registration(
                    self._registries,
                    instances=made,
                    descriptors=descriptors,
                    load=dict,
                )
            )
        began = time.monotonic()
        self._running = [asyncio.create_task(each.run()) for each in self._registrations]
        await asyncio.gather(*(each.registered.wait() for each in self._registrations))
        return {"seconds": time.monotonic() - began}


class Watchers:
    """Clients that follow the whole registry, and note when they heard what."""

    def __init__(self, registries: Sequence[str], count: int, revision: int) -> None:
        self._registries = list(registries)
        self._revisions = [revision] * count
        self._states: list[dict[str, str]] = [{} for _ in range(count)]
        self._times = [0.0] * count
        self._snapshots = self._resumed = self._back = 0
        self._heard = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []

    async def start(self) -> Mapping[str, Any]:
        """Opens all streams. A stream is silent until something changes: what shows that it is there is a first change."""
        self._running = [
            asyncio.create_task(self._watch(number)) for number in range(len(self._revisions))
        ]
        return {}

    async def heard(self, revision: int) -> Mapping[str, Any]:
        """When the last of them had heard of a revision."""
        while min(self._revisions) < revision:
            self._heard.clear()
            await self._heard.wait()
        return {"at": max(self._times)}

    async def found(self) -> Mapping[str, Any]:
        """What they know of agents that changed, each different knowledge once, and how their streams went."""
        different = {json.dumps(state, sort_keys=True) for state in self._states}
        return {
            "states": [json.loads(state) for state in different],
            "snapshots": self._snapshots,
            "resumed": self._resumed,
            "back": self._back,
        }

    async def _watch(self, number: int) -> None:
        places = list(self._registries)
        random.shuffle(places)
        while True:
            async with grpc.aio.insecure_channel(places[0], options=OWN_CONNECTION) as channel:
                stub = registry_pb2_grpc.RegistryServiceStub(channel)
                after = self._revisions[number]
                try:
                    async for change in stub.Watch(registry_pb2.WatchRequest(after_revision=after)):
                        self._take(number, change)
                except grpc.aio.AioRpcError:
                    self._resumed += 1
            places.append(places.pop(0))
            await asyncio.sleep(_AGAIN * random.random())

    def _take(self, number: int, change: registry_pb2.WatchResponse) -> None:
        self._times[number] = time.monotonic()
        self._snapshots += change.snapshot
        self._back += change.revision < self._revisions[number]
        self._revisions[number] = change.revision
        for agent in change.agents:
            self._states[number][agent.name] = picture(agent)
        self._heard.set()


def picture(agent: agent_pb2.Agent) -> str:
    """An agent as watchers see it, without the loads, which have no revision."""
    seen = agent_pb2.Agent()
    seen.CopyFrom(agent)
    for instance in seen.instances:
        instance.ClearField("load")
    return hashlib.sha256(seen.SerializeToString(deterministic=True)).hexdigest()


class Clients:
    """Clients by ADS that follow the endpoints of all agents, as light as can be."""

    def __init__(self, registries: Sequence[str], count: int, agents: int) -> None:
        self._registries, self._count = list(registries), count
        self._names = [f"agent-{number}" for number in range(agents)]
        self._latest: list[tuple[int, float]] = [(0, 0.0)] * count
        self._heard = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []

    async def start(self) -> Mapping[str, Any]:
        """Opens all streams; returns when each has had the endpoints of all agents."""
        self._running = [asyncio.create_task(self._follow(n)) for n in range(self._count)]
        await self._until(lambda: all(got for got, _ in self._latest))
        return {}

    async def count(self) -> Mapping[str, Any]:
        """From here on it is counted what comes."""
        self._latest = [(0, 0.0)] * self._count
        return {}

    async def heard(self) -> Mapping[str, Any]:
        """When the last of them had heard of the change."""
        await self._until(lambda: all(got for got, _ in self._latest))
        return {"at": max(at for _, at in self._latest)}

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._heard.clear()
            await self._heard.wait()

    async def _follow(self, number: int) -> None:
        place = number
        while True:
            address = self._registries[place % len(self._registries)]
            async with grpc.aio.insecure_channel(address, options=OWN_CONNECTION) as channel:
                stream = channel.stream_stream(
                    ADS,
                    discovery_pb2.DiscoveryRequest.SerializeToString,
                    discovery_pb2.DiscoveryResponse.FromString,
                )()
                request = discovery_pb2.DiscoveryRequest(
                    type_url=ENDPOINTS, resource_names=self._names
                )
                try:
                    await stream.write(request)
                    async for response in stream:
                        got, _ = self._latest[number]
                        self._latest[number] = (got + len(response.resources), time.monotonic())
                        self._heard.set()
                        request.response_nonce = response.nonce
                        request.version_info = response.version_info
                        await stream.write(request)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    place += 1
            await asyncio.sleep(_AGAIN * random.random())


class Callers:
    """Calls agents by `xds:///`, and asks the registry where they are, at a steady rate."""

    def __init__(self, registries: str, agents: int, rate: float) -> None:
        self._mesh = Mesh(registries)
        self._registry = rpc.Channel(registries)
        self._agents, self._rate = agents, rate
        self._calls = self._asked = 0
        self._failed: list[str] = []
        self._pacing: asyncio.Task[None] | None = None

    async def start(self) -> Mapping[str, Any]:
        """Begins; returns when every agent has answered once."""
        for number in range(self._agents):
            stub = self._mesh.stub(echo_pb2_grpc.EchoServiceStub, f"agent-{number}")
            await stub.Say(echo_pb2.SayRequest(text="x"), timeout=10)
        self._pacing = asyncio.create_task(self._pace())
        return {}

    async def stop(self) -> Mapping[str, Any]:
        """Ends; what became of the calls."""
        assert self._pacing is not None
        self._pacing.cancel()
        await asyncio.gather(self._pacing, return_exceptions=True)
        return {"calls": self._calls, "asked": self._asked, "failed": self._failed}

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        async with asyncio.TaskGroup() as running:
            while True:
                agent = f"agent-{random.randrange(self._agents)}"
                running.create_task(self._call(agent))
                running.create_task(self._ask(agent))
                due += 1 / self._rate
                await asyncio.sleep(due - loop.time())

    async def _call(self, agent: str) -> None:
        stub = self._mesh.stub(echo_pb2_grpc.EchoServiceStub, agent)
        self._calls += 1
        try:
            await stub.Say(echo_pb2.SayRequest(text="x"), timeout=5)
        except grpc.aio.AioRpcError as failed:
            self._failed.append(f"{agent}: {failed.code().name} {failed.details()}")

    async def _ask(self, agent: str) -> None:
        stub = registry_pb2_grpc.RegistryServiceStub(self._registry)
        self._asked += 1
        try:
            found = await stub.Resolve(registry_pb2.ResolveRequest(agent=agent), timeout=5)
        except grpc.aio.AioRpcError as failed:
            self._failed.append(f"Resolve {agent}: {failed.code().name} {failed.details()}")
        else:
            if not found.instances:
                self._failed.append(f"Resolve {agent}: nobody")


class Member:
    """A process with one instance of agent-0 that comes and goes out of service: the change that is measured."""

    def __init__(self, address: str) -> None:
        self._channel = rpc.Channel(address)
        self._stream: Any = registry_pb2_grpc.RegistryServiceStub(self._channel).Register()
        self._degraded = False
        self._turn = asyncio.Lock()
        self._beating: asyncio.Task[None] | None = None
        self.revision = 0

    async def register(self) -> None:
        """Registers."""
        async with rpc.Channel(self._channel.target) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            found = await stub.Resolve(registry_pb2.ResolveRequest(agent="agent-0"))
        instance = agent_pb2.Instance()
        instance.CopyFrom(found.instances[0])
        instance.instance_id = "turning"
        # The same server by another of its addresses: an endpoint of its own.
        instance.address = f"127.2.0.1:{instance.address.rpartition(':')[2]}"
        for field in ("state", "state_reason", "load", "register_time"):
            instance.ClearField(field)
        registration = registry_pb2.Registration(instances=[instance])
        await self._say(registration=registration)
        self.revision = (await self._stream.read()).registered.revision
        self._beating = asyncio.create_task(self._beat())

    async def turn(self) -> int:
        """Goes into or out of service, which changes endpoints; the revision of it."""
        serving = agent_pb2.INSTANCE_STATE_SERVING
        state = serving if self._degraded else agent_pb2.INSTANCE_STATE_STARTING
        self._degraded = not self._degraded
        answer = await self._say(state_change=registry_pb2.StateChange(state=state))
        return int(answer.state_changed.revision)

    async def leave(self) -> None:
        """Ends its lease."""
        assert self._beating is not None
        async with self._turn:
            self._beating.cancel()
            goodbye = registry_pb2.RegisterRequest(deregistration=registry_pb2.Deregistration())
            await self._stream.write(goodbye)
            await self._stream.read()

    async def _say(self, **message: Any) -> registry_pb2.RegisterResponse:
        async with self._turn:
            await self._stream.write(registry_pb2.RegisterRequest(**message))
            answer = await self._stream.read()
        if answer is grpc.aio.EOF:
            raise AssertionError("the registry ended the stream")
        return answer  # type: ignore[no-any-return]

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(1)
            await self._say(report=registry_pb2.LoadReport())


ROLES: Mapping[str, Callable[..., Any]] = {
    "replica": Replica,
    "bare": Bare,
    "hosts": Hosts,
    "watchers": Watchers,
    "clients": Clients,
    "callers": Callers,
}
