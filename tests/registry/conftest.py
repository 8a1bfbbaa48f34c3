"""Registries with short times, members that hold leases, and real replicas that serve."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
import pytest_asyncio
from tests import descriptors

from weft import registry, rpc
from weft.registry import catalog
from weft.support.v1 import research_pb2, triage_pb2, triage_pb2_grpc
from weft.v1 import agent_pb2, registry_pb2, registry_pb2_grpc

QUICK = registry.Terms(ttl=timedelta(seconds=1), heartbeat_interval=timedelta(seconds=0.2))
PROBES = registry.Pace(interval=timedelta(seconds=0.2))
SERVICE = "weft.support.v1.TriageService"
_NUMBERS = itertools.count()


class World:
    """The triage contract, and ways to make instances of it that are healthy."""

    service = SERVICE
    port = 0  # of a server that answers on all of 127.0.0.0/8
    descriptor_set = descriptors.descriptor_set(triage_pb2.DESCRIPTOR)
    digest = catalog.digest_of(descriptor_set)
    sets: ClassVar = {
        catalog.digest_of(content): content
        for content in (descriptor_set, descriptors.descriptor_set(research_pb2.DESCRIPTOR))
    }
    digests: ClassVar = {
        service: digest for digest, content in sets.items() for service in catalog.read(content)
    }

    @classmethod
    def ref(cls, service: str) -> agent_pb2.ServiceRef:
        """A reference to a service of any of the contracts."""
        return agent_pb2.ServiceRef(name=service, descriptor_digest=cls.digests[service])

    @classmethod
    def instance(cls, instance_id: str = "", **fields: object) -> agent_pb2.Instance:
        number = next(_NUMBERS)
        return agent_pb2.Instance(
            **{
                "instance_id": instance_id or f"triage-{number}",
                "agent": "support-triage",
                "address": f"127.1.{number // 250}.{number % 250 + 1}:{cls.port}",
                "services": [cls.ref(SERVICE)],
                "version": "1.0.0",
                "max_concurrency": 10,
            }
            | fields
        )


@pytest_asyncio.fixture
async def world() -> AsyncIterator[type[World]]:
    server = rpc.Server("0.0.0.0:0")
    server.add(triage_pb2_grpc.add_TriageServiceServicer_to_server, Triage("everyone"))
    async with server:
        for service in World.digests:  # instances of any contract are healthy there
            server.set_health(service, serving=True)
        World.port = int(server.address.rpartition(":")[2])
        yield World


class Member:
    """A process as the registry sees it: one Register stream and its heartbeats."""

    def __init__(self, address: str, instances: Sequence[agent_pb2.Instance]) -> None:
        self.instances = list(instances)
        self.channel = rpc.Channel(address)
        self.stub = registry_pb2_grpc.RegistryServiceStub(self.channel)
        self.stream = self.stub.Register()
        self.granted = registry_pb2.LeaseGranted()
        self.revision = 0
        self._beating: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def say(self, **message: object) -> registry_pb2.RegisterResponse:
        """Sends a message and returns the answer to it; raises AioRpcError when the stream ends."""
        async with self._turn:
            await self.stream.write(registry_pb2.RegisterRequest(**message))
            answer = await self.stream.read()
            assert answer is not grpc.aio.EOF, await self.stream.code()
            return answer

    async def register(self) -> None:
        answer = await self.say(registration=registry_pb2.Registration(instances=self.instances))
        self.granted = answer.granted
        if answer.granted.wanted_digests:
            sets = {digest: World.sets[digest] for digest in answer.granted.wanted_digests}
            answer = await self.say(descriptors=registry_pb2.DescriptorSets(sets=sets))
        else:
            answer = await self.stream.read()
        self.revision = answer.registered.revision

    async def state(self, state: int, reason: str = "", ids: Sequence[str] = ()) -> int:
        change = registry_pb2.StateChange(instance_ids=ids, state=state, reason=reason)
        return (await self.say(state_change=change)).state_changed.revision

    def beat(self) -> None:
        """Sends heartbeats until the stream ends."""
        self._beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        interval = self.granted.heartbeat_interval.ToTimedelta().total_seconds()
        with contextlib.suppress(grpc.aio.AioRpcError, AssertionError, asyncio.InvalidStateError):
            while True:
                await self.say(report=registry_pb2.LoadReport())
                await asyncio.sleep(interval)

    def freeze(self) -> None:
        """Sends no more heartbeats and leaves the stream open."""
        if self._beating is not None:
            self._beating.cancel()

    async def vanish(self) -> None:
        """Breaks the stream off, as a killed process does."""
        self.freeze()
        self.stream.cancel()
        await self.channel.close()

    async def leave(self) -> None:
        async with self._turn:
            self.freeze()  # not amid a heartbeat: cancelling a read cancels the stream
            goodbye = registry_pb2.RegisterRequest(deregistration=registry_pb2.Deregistration())
            await self.stream.write(goodbye)
            while (answer := await self.stream.read()) is not grpc.aio.EOF:
                # What operators said was read in place of the answer to a heartbeat.
                assert answer.WhichOneof("message") in {"directive", "renewed"}

    async def ended(self) -> rpc.Error:
        """The error the registry ended the stream with."""
        try:
            answer = await self.stream.read()
            assert answer is grpc.aio.EOF, answer
        except grpc.aio.AioRpcError as failed:
            return rpc.error_from_call(failed)
        raise AssertionError(f"ended with {await self.stream.code()}")


Join = Callable[..., contextlib.AbstractAsyncContextManager[Member]]


@pytest_asyncio.fixture
async def join() -> AsyncIterator[Callable[..., object]]:
    """join(registry_or_address, *instances) registers a member that beats; it vanishes after the test."""
    members: list[Member] = []

    async def joined(at: registry.Registry | str, *instances: agent_pb2.Instance) -> Member:
        member = Member(at if isinstance(at, str) else at.address, instances)
        members.append(member)
        await member.register()
        member.beat()
        return member

    yield joined
    for member in members:
        await member.vanish()


@pytest.fixture
def member(world: type[World]) -> Iterator[type[Member]]:
    """The class, for tests that speak the stream themselves."""
    del world
    return Member


@pytest.fixture
def run_registry(database_url: str) -> Callable[..., registry.Registry]:
    """Makes registries with short times on this test's database."""

    def make(**settings: object) -> registry.Registry:
        defaults: dict[str, object] = {
            "database_url": database_url,
            "address": "127.0.0.1:0",
            "terms": QUICK,
            "pace": PROBES,
            "cold_start": timedelta(0),
        }
        return registry.Registry(**(defaults | settings))

    return make


@pytest_asyncio.fixture
async def mesh(run_registry: Callable[..., registry.Registry]) -> AsyncIterator[registry.Registry]:
    """A running registry."""
    async with run_registry() as running:
        yield running


@pytest_asyncio.fixture
async def stub(mesh: registry.Registry) -> AsyncIterator[registry_pb2_grpc.RegistryServiceStub]:
    async with rpc.Channel(mesh.address) as channel:
        yield registry_pb2_grpc.RegistryServiceStub(channel)


class Triage(triage_pb2_grpc.TriageServiceServicer):
    """A replica that answers with its own name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0
        self.failing = 0
        self.trailing: tuple[tuple[str, bytes], ...] = ()

    async def Classify(
        self, request: triage_pb2.ClassifyRequest, context: Any
    ) -> triage_pb2.ClassifyResponse:
        self.calls += 1
        if self.failing:
            self.failing -= 1
            raise rpc.Unavailable("asked to fail")
        if request.text.startswith("sleep"):
            await asyncio.sleep(float(request.text.split()[1]))
        context.set_trailing_metadata(self.trailing)
        return triage_pb2.ClassifyResponse(model=self.name)

    async def Teach(self, requests: object, context: object) -> triage_pb2.TeachResponse:
        raise NotImplementedError

    async def ListModels(
        self, request: triage_pb2.ListModelsRequest, context: object
    ) -> triage_pb2.ListModelsResponse:
        raise NotImplementedError

    async def DeleteModel(
        self, request: triage_pb2.DeleteModelRequest, context: object
    ) -> triage_pb2.DeleteModelResponse:
        raise NotImplementedError


class Replica:
    """A server with a Triage behind it."""

    def __init__(self, name: str) -> None:
        self.triage = Triage(name)
        self.server = rpc.Server("127.0.0.1:0")
        self.server.add(triage_pb2_grpc.add_TriageServiceServicer_to_server, self.triage)

    def instance(self, **fields: object) -> agent_pb2.Instance:
        return World.instance(
            **{"instance_id": self.triage.name, "address": self.server.address} | fields
        )


@pytest_asyncio.fixture
async def replica() -> AsyncIterator[Callable[..., object]]:
    """replica(name) serves on a free port until the test ends."""
    async with contextlib.AsyncExitStack() as stack:

        async def serve(name: str) -> Replica:
            serving = Replica(name)
            await stack.enter_async_context(serving.server)
            return serving

        yield serve


class Child:
    """A process of its own that prints a line: its address, or what it has to say."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.address = ""

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@pytest_asyncio.fixture
async def spawn() -> AsyncIterator[Callable[..., object]]:
    """spawn("replica", NAME) runs children.py with these arguments; killed after the test."""
    children: list[Child] = []

    async def run(*arguments: str, **environment: str) -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("children.py")),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"GRPC_VERBOSITY": "NONE"} | environment,
        )
        assert process.stdout is not None
        child = Child(process)
        children.append(child)
        async with asyncio.timeout(20):
            child.address = (await process.stdout.readline()).decode().strip()
        assert child.address
        return child

    yield run
    for child in children:
        await child.kill()


@pytest.fixture
def dial() -> Callable[..., rpc.Channel]:
    """dial(registry_address, agent) opens xds:///agent.

    The bootstrap goes by channel argument: by the environment variable, gRPC would share a client of the last
    test, and its registry, as long as that is not quite gone.
    """

    def open_channel(address: str, agent: str = "support-triage") -> rpc.Channel:
        argument = "grpc.TEST_ONLY_DO_NOT_USE_IN_PROD.xds_bootstrap_config"
        options = ((argument, rpc.xds_bootstrap(address)),)
        return rpc.Channel(f"xds:///{agent}", options=options)

    return open_channel


async def classify(channel: grpc.aio.Channel, text: str = "hello", within: float = 5) -> str:
    """The name of the replica that answered."""
    stub = triage_pb2_grpc.TriageServiceStub(channel)
    request = triage_pb2.ClassifyRequest(text=text)
    return (await stub.Classify(request, timeout=within)).model


@pytest.fixture
def ask() -> Callable[..., object]:
    return classify
