"""A registry with an agent that counts, orchestrators on a database, and clients of them."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf import json_format

from weft import rpc
from weft.agents import Host
from weft.agents.orchestrator.engine.calls import KEY
from weft.agents.orchestrator.engine.settings import WorkerSettings
from weft.agents.orchestrator.fleet import OrchestratorSettings, orchestrator
from weft.agents.orchestrator.service import OrchestratorService
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.registry import Registry
from weft.v1 import orchestrator_pb2 as pb
from weft.v1 import orchestrator_pb2_grpc
from weft.v1.identity_pb2 import Identity
from weft.v1.workflow_pb2 import TypedMessage, WorkflowSpec

ANN = Identity(subject="user:ann", tenant="acme", scopes=["refunds"])
BOB = Identity(subject="user:bob", tenant="acme", scopes=["refunds"])
CAT = Identity(subject="user:cat", tenant="acme")
ELSEWHERE = Identity(subject="user:ann", tenant="other", scopes=["refunds"])
QUICK = WorkerSettings(lease=timedelta(seconds=1), stay=timedelta(0), drain=timedelta(seconds=1))


@dataclass
class Counting(echo_pb2_grpc.EchoServiceServicer):
    """Says back what it is told, and counts: calls by their text, effects by idempotency key."""

    calls: collections.Counter[str] = field(default_factory=collections.Counter)
    effects: dict[str, set[str]] = field(default_factory=lambda: collections.defaultdict(set))
    """Idempotency keys by text."""
    seen: list[rpc.Call] = field(default_factory=list)
    failing: collections.Counter[str] = field(default_factory=collections.Counter)
    """How often calls of a text still fail with UNAVAILABLE."""
    retry_after: timedelta | None = None
    """What those that fail ask for."""
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    """What calls of a text wait for."""
    under_way: set[str] = field(default_factory=set)
    dropped: list[str] = field(default_factory=list)

    async def Say(self, request: Any, context: Any) -> Any:
        call = rpc.current_call()
        assert call is not None
        self.seen.append(call)
        self.calls[request.text] += 1
        self.under_way.add(request.text)
        try:
            if (held := self.held.get(request.text)) is not None:
                await held.wait()
            await asyncio.sleep(request.delay.ToTimedelta().total_seconds())
        except asyncio.CancelledError:
            self.dropped.append(request.text)
            raise
        finally:
            self.under_way.discard(request.text)
        if self.failing[request.text]:
            self.failing[request.text] -= 1
            raise rpc.Unavailable("not now", retry_after=self.retry_after)
        if request.fail_with:
            raise rpc.FailedPrecondition("as asked", reason="ASKED")
        self.effects[request.text].add(str(call.first(KEY)))
        return echo_pb2.SayResponse(
            text=request.text, caller=call.identity.subject if call.identity else ""
        )

    async def SayOnce(self, request: Any, context: Any) -> Any:
        return echo_pb2.SayOnceResponse(said=await self.Say(request.say, context))

    async def Repeat(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for number in range(request.count):
            yield echo_pb2.RepeatResponse(text=request.text, number=number)


@dataclass(frozen=True, kw_only=True)
class Mesh:
    registry: str
    address: str
    """Of the agent `echo`."""
    agent: Counting

    def channel(self, name: str) -> rpc.Channel:
        assert name == "echo"
        return rpc.Channel(self.address)


@contextlib.asynccontextmanager
async def running_mesh(database_url: str) -> AsyncIterator[Mesh]:
    async with contextlib.AsyncExitStack() as stack:
        registry = await stack.enter_async_context(
            Registry(database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0))
        )
        host = await stack.enter_async_context(Host(registry=registry.address))
        agent = Counting()
        host.add(agent)
        await host.start()
        yield Mesh(registry=registry.address, address=host.server.address, agent=agent)


@pytest_asyncio.fixture(scope="module")
async def shared_mesh(fresh_xds_of_module: None, database_of_module: str) -> AsyncIterator[Mesh]:
    async with running_mesh(database_of_module) as made:
        yield made


@pytest.fixture
def mesh(shared_mesh: Mesh) -> Mesh:
    """The mesh, with an agent that has counted nothing yet."""
    agent = shared_mesh.agent
    for counted in (agent.calls, agent.effects, agent.seen, agent.failing, agent.held):
        counted.clear()
    agent.dropped.clear()
    agent.retry_after = None
    return shared_mesh


@dataclass(frozen=True, kw_only=True)
class Orchestrator:
    service: OrchestratorService
    address: str
    _stack: contextlib.AsyncExitStack

    async def client(self, identity: Identity | None = ANN) -> Any:
        channel = rpc.Channel(self.address, identity=identity)
        await self._stack.enter_async_context(channel)
        return orchestrator_pb2_grpc.OrchestratorServiceStub(channel)


Opening = Callable[..., contextlib.AbstractAsyncContextManager[Orchestrator]]


@contextlib.asynccontextmanager
async def opened(
    database_url: str, mesh: Mesh, worker: WorkerSettings = QUICK, **further: Any
) -> AsyncIterator[Orchestrator]:
    async with contextlib.AsyncExitStack() as stack:
        registry = await stack.enter_async_context(rpc.Channel(mesh.registry))
        echo = await stack.enter_async_context(mesh.channel("echo"))
        service = await stack.enter_async_context(
            orchestrator(
                database_url=database_url,
                registry=registry,
                channel=lambda _: echo,
                settings=OrchestratorSettings(worker=worker, **further),
            )
        )
        server = rpc.Server()
        server.add(orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server, service)
        await stack.enter_async_context(server)
        yield Orchestrator(service=service, address=server.address, _stack=stack)


@pytest.fixture
def opening(database_url: str, mesh: Mesh) -> Opening:
    """Opens orchestrators of further processes on the same database."""
    return lambda **further: opened(database_url, mesh, **further)


@pytest.fixture
async def orch(opening: Opening) -> AsyncIterator[Orchestrator]:
    async with opening() as made:
        yield made


@pytest.fixture
async def ann(orch: Orchestrator) -> Any:
    return await orch.client(ANN)


def spec(**given: Any) -> WorkflowSpec:
    """A workflow from its ProtoJSON, which begins with a SayRequest."""
    whole = {"name": "tried", "input_type": "weft.echo.v1.SayRequest", **given}
    return json_format.ParseDict(whole, WorkflowSpec())


def say(id_: str, text: str | None = None, **further: Any) -> dict[str, Any]:
    """A node that has a text said."""
    fields = {"text": text if text is not None else f"'{id_}'"} | further.pop("fields", {})
    call = {"agent": "echo", "method": "weft.echo.v1.EchoService/Say"}
    return {"id": id_, "call": {**call, "fields": {"by_path": fields}}, **further}


def once(id_: str) -> dict[str, Any]:
    """A node that has its id said by a skill with side effects. It gives a SayOnceResponse."""
    call = {"agent": "echo", "method": "weft.echo.v1.EchoService/SayOnce"}
    return {"id": id_, "call": {**call, "fields": {"by_path": {"say.text": f"'{id_}'"}}}}


def way(source: str, target: str, **condition: Any) -> dict[str, Any]:
    return {"from": source, "to": target, **condition}


def chain(*ids: str, **first: Any) -> WorkflowSpec:
    """Nodes one after the other."""
    edges = [way(one, other) for one, other in itertools.pairwise(ids)]
    return spec(nodes=[say(each) for each in ids], edges=edges, **first)


def typed(message: Any) -> TypedMessage:
    return TypedMessage(type=message.DESCRIPTOR.full_name, binary=message.SerializeToString())


async def begin(client: Any, workflow: WorkflowSpec | str, **given: Any) -> pb.Run:
    subject: dict[str, Any]
    subject = {"workflow": workflow} if isinstance(workflow, str) else {"spec": workflow}
    message = given.pop("given", echo_pb2.SayRequest(text="begin"))
    request = pb.StartRunRequest(**subject, input=typed(message), **given)
    return (await client.StartRun(request)).run


async def ended(client: Any, id_: str, seconds: float = 20) -> pb.Run:
    """A run that has ended."""
    request = pb.WaitRunRequest(id=id_, binary=True)
    run = (await client.WaitRun(request, timeout=seconds)).run
    assert run.WhichOneof("outcome"), run
    return run


def said(run: pb.Run) -> str:
    """The text of a run's result."""
    assert run.HasField("output"), run
    return echo_pb2.SayResponse.FromString(run.output.binary).text


def states(run: pb.Run) -> dict[str, str]:
    return {s.key: pb.StepState.Name(s.state).removeprefix("STEP_STATE_") for s in run.steps}
