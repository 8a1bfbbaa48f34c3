"""The drills: for each alert a fault that makes it fire, and what mends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
from google.protobuf import duration_pb2
from tests.drills.mesh import Mesh
from tests.drills.traffic import begun, message, repeated, say, workflow

from weft import embedded, rpc
from weft.agents import Host
from weft.agents.echo import Echo
from weft.broker import layout
from weft.echo.v1 import echo_pb2
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2, message_pb2, orchestrator_pb2
from weft.xds.v1 import discovery_pb2

INTERNAL, UNAVAILABLE = 13, 14
_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
_QUICK = 0.03  # seconds between requests that shall be many
Fault = Callable[[Mesh], contextlib.AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """How an alert is made to fire.

    Attributes:
        alert: its name.
        fault: in the block the fault is there; behind it it is mended.
        parts: of the mesh that it takes, beside the registry.
        labels: what the alert must say.
        alone: whether other drills would suffer from it.
    """

    alert: str
    fault: Fault
    parts: tuple[str, ...]
    labels: Callable[[Mesh], Mapping[str, str]] = field(default=lambda _: {})
    alone: bool = False


DRILLS: dict[str, Drill] = {}


def drill(
    alert: str, *parts: str, alone: bool = False, at: str = "", **labels: str
) -> Callable[[Callable[[Mesh], AsyncIterator[None]]], Fault]:
    """Registers a drill. `at`: the part whose address the alert must name."""

    def told(mesh: Mesh) -> Mapping[str, str]:
        return {**labels, "instance": mesh.metrics[at]} if at else labels

    def keep(fault: Callable[[Mesh], AsyncIterator[None]]) -> Fault:
        made = contextlib.asynccontextmanager(fault)
        DRILLS[alert] = Drill(alert=alert, fault=made, parts=parts, labels=told, alone=alone)
        return made

    return keep


# The mesh


@drill("WeftPartDown", "broker", at="broker", job="weft-broker", alone=True)
async def part_down(mesh: Mesh) -> AsyncIterator[None]:
    """The broker dies."""
    mesh.parts["broker"].kill()
    yield
    await mesh.start("broker")


@drill("WeftAgentDown", "victim", agent="victim")
async def agent_down(mesh: Mesh) -> AsyncIterator[None]:
    """The only instance of an agent dies."""
    mesh.parts["victim"].kill()
    yield
    await mesh.start("victim")


@drill("WeftInstanceUnreachable", agent="ghost")
async def unreachable(mesh: Mesh) -> AsyncIterator[None]:
    """An instance renews its lease, and serves nothing any more."""
    async with Host(registry=mesh.listen["registry"], drain=timedelta(0)) as host:
        host.add(Echo(), agent="ghost")
        await host.start()
        await host.server.stop()
        yield


@drill("WeftAgentErrors", "wrong", agents="wrong", rpc_method="weft.echo.v1.EchoService/Say")
async def agent_errors(mesh: Mesh) -> AsyncIterator[None]:
    """Two of three calls end with INTERNAL."""
    async with mesh.agent("wrong") as wrong:
        fails = echo_pb2.SayRequest(text="x", fail_with=INTERNAL)
        works = echo_pb2.SayRequest(text="x")
        async with repeated(
            lambda: wrong.Say(fails), lambda: wrong.Say(fails), lambda: wrong.Say(works)
        ):
            yield


@drill("WeftSlowCalls", "slow", agents="slow", rpc_method="weft.echo.v1.EchoService/Say")
async def slow_calls(mesh: Mesh) -> AsyncIterator[None]:
    """Each call takes eleven seconds."""
    async with mesh.agent("slow") as slow:
        request = echo_pb2.SayRequest(text="x", delay=duration_pb2.Duration(seconds=11))
        calls = [lambda: slow.Say(request, timeout=30)] * 20
        async with repeated(*calls, pause=0.5):
            yield


@drill("WeftAgentOverloaded", "narrow", agents="narrow")
async def overloaded(mesh: Mesh) -> AsyncIterator[None]:
    """More calls come at a time than an agent takes."""
    async with mesh.agent("narrow") as narrow:
        request = echo_pb2.SayRequest(text="x", delay=duration_pb2.Duration(nanos=200_000_000))
        async with repeated(*[lambda: narrow.Say(request)] * 4, pause=0.1):
            yield


@drill("WeftXdsRejected")
async def xds_rejected(mesh: Mesh) -> AsyncIterator[None]:
    """A client rejects what it is told."""
    async with rpc.Channel(mesh.listen["registry"]) as channel:
        stream = channel.stream_stream(
            _ADS,
            discovery_pb2.DiscoveryRequest.SerializeToString,
            discovery_pb2.DiscoveryResponse.FromString,
        )()
        kind = "type.googleapis.com/envoy.config.listener.v3.Listener"
        asked = discovery_pb2.DiscoveryRequest(type_url=kind, resource_names=["narrow"])
        await stream.write(asked)
        told = await stream.read()
        asked.response_nonce = told.nonce
        asked.error_detail.message = "a drill"
        await stream.write(asked)
        yield
        stream.cancel()


@drill("WeftPostgresDown", "gateway", job="weft-registry", alone=True)
async def postgres_down(mesh: Mesh) -> AsyncIterator[None]:
    """PostgreSQL hangs."""
    with mesh.stopped("postgres"):
        yield


@drill("WeftRedisDown", "broker", job="weft-broker", alone=True)
async def redis_down(mesh: Mesh) -> AsyncIterator[None]:
    """Redis hangs."""
    with mesh.stopped("redis"):
        yield


@drill("WeftFileDescriptors", "narrow", at="narrow")
async def file_descriptors(mesh: Mesh) -> AsyncIterator[None]:
    """A process may open few more files than it has open."""
    pid = mesh.parts["narrow"].pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    opened = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 the kernel's own folder answers at once
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (int(opened * 1.15) + 1, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@drill("WeftRestarts", "broker", at="broker", alone=True)
async def restarts(mesh: Mesh) -> AsyncIterator[None]:
    """A part dies again and again."""
    for _ in range(3):
        # Prometheus has to see each of them: it looks once a second.
        await asyncio.sleep(1.5)
        mesh.parts["broker"].kill()
        await mesh.start("broker")
    yield


# The gateway


@drill("WeftGatewayErrors", "gateway", "echo", door="rest", alone=True)
async def gateway_errors(mesh: Mesh) -> AsyncIterator[None]:
    """Two of three requests at a door fail."""
    async with mesh.http() as http:
        fails = {"text": "x", "count": 1, "failWith": INTERNAL}
        async with repeated(
            lambda: http.post("/v1/echo:repeat", json=fails),
            lambda: http.post("/v1/echo:repeat", json=fails),
            lambda: http.post("/v1/echo:repeat", json={"text": "x", "count": 1}),
        ):
            yield


@drill("WeftCallsLimited", "gateway", "echo", limit="drill")
async def limited(mesh: Mesh) -> AsyncIterator[None]:
    """Fifty requests a second come where five are let in."""
    async with rpc.Channel(mesh.grpc) as channel:
        gather: Any = channel.stream_unary("/weft.echo.v1.EchoService/Gather")
        async with repeated(lambda: gather(iter([b""])), lambda: gather(iter([b""])), pause=_QUICK):
            yield


@drill("WeftLimitsUnshared", "gateway", "echo", at="gateway", alone=True)
async def unshared(mesh: Mesh) -> AsyncIterator[None]:
    """Redis hangs while limited requests come."""
    async with rpc.Channel(mesh.grpc) as channel:
        gather: Any = channel.stream_unary("/weft.echo.v1.EchoService/Gather")
        async with repeated(lambda: gather(iter([b""]))):
            with mesh.stopped("redis"):
                yield


@drill(
    "WeftBreakerOpen",
    "gateway",
    "echo",
    agent="echo",
    rpc_method="weft.echo.v1.EchoService/SayOnce",
)
async def breaker_open(mesh: Mesh) -> AsyncIterator[None]:
    """All calls of a method fail; afterwards all succeed."""
    url = "/weft.echo.v1.EchoService/SayOnce"
    async with mesh.http() as http:
        fails = {"say": {"text": "x", "failWith": INTERNAL}}
        async with repeated(*[lambda: http.post(url, json=fails)] * 3, pause=_QUICK):
            yield

        async def works() -> bool:
            return (await http.post(url, json={"say": {"text": "x"}})).is_success

        await wait_until(works, timedelta(seconds=20))


@drill("WeftRetriesSpent", "gateway", "echo", agent="echo", alone=True)
async def retries_spent(mesh: Mesh) -> AsyncIterator[None]:
    """All calls of a method that may be tried again fail."""
    async with mesh.http() as http:
        fails = {"text": "x", "failWith": UNAVAILABLE}
        async with repeated(*[lambda: http.post("/v1/echo:say", json=fails)] * 3):
            yield

        async def works() -> bool:
            return (await http.post("/v1/echo:say", json={"text": "x"})).is_success

        await wait_until(works, timedelta(seconds=20))


@drill("WeftJobsWaiting", "gateway", "echo", alone=True)
async def jobs_waiting(mesh: Mesh) -> AsyncIterator[None]:
    """More long jobs are asked for than the gateway runs at a time."""
    async with mesh.http() as http:
        jobs = []
        for _ in range(4):
            answer = await http.post(
                "/v1/echo:say",
                json={"text": "x", "delay": "50s"},
                headers={"prefer": "respond-async", "job-time": "120"},
            )
            jobs.append(answer.json()["id"])
        yield
        for job in jobs:
            await http.post(f"/v1/jobs/{job}:cancel", json={})


@drill("WeftWebhooksDead", "gateway", "echo", job="weft-gateway")
async def webhooks_dead(mesh: Mesh) -> AsyncIterator[None]:
    """A receiver says that it is gone."""

    async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(gone, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, mesh.http() as http:
        headers = {"prefer": "respond-async", "job-webhook": f"http://127.0.0.1:{port}/"}
        answer = await http.post("/v1/echo:say", json={"text": "x"}, headers=headers)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        yield


@drill("WeftCertificateExpires", "edge", at="edge", certificate="gateway")
async def certificate_expires(mesh: Mesh) -> AsyncIterator[None]:
    """A certificate has one day left; then there is another one."""
    yield
    mesh.certificate(timedelta(days=90))


# The broker


async def _declared(broker: Any, queue: str) -> None:
    request = broker_pb2.SetQueueRequest(queue=queue, policy=message_pb2.QueuePolicy())
    await broker.SetQueue(request, wait_for_ready=True)


@drill("WeftQueueStuck", "broker", "narrow", queue="narrow")
async def queue_stuck(mesh: Mesh) -> AsyncIterator[None]:
    """The queue of an agent is paused."""
    async with mesh.broker() as broker:
        await broker.PauseQueue(broker_pb2.PauseQueueRequest(queue="narrow"), wait_for_ready=True)
        request = message("narrow")
        request.message.method = "/weft.echo.v1.EchoService/Say"
        request.message.payload = echo_pb2.SayRequest(text="late").SerializeToString()
        await broker.Publish(request)
        yield
        await broker.ResumeQueue(broker_pb2.ResumeQueueRequest(queue="narrow"))


@drill("WeftQueueGrows", "broker", queue="drill-growing")
async def queue_grows(mesh: Mesh) -> AsyncIterator[None]:
    """Many messages come that nobody handles."""
    queue = "drill-growing"
    async with mesh.broker() as broker:
        await _declared(broker, queue)

        async def many() -> None:
            await asyncio.gather(*(broker.Publish(message(queue)) for _ in range(200)))

        async with repeated(many):
            yield
        await broker.PurgeQueue(broker_pb2.PurgeQueueRequest(queue=queue))
        await broker.DeleteQueue(broker_pb2.DeleteQueueRequest(queue=queue))


@drill("WeftDeadLetters", "broker", "echo", queue="echo")
async def dead_letters(mesh: Mesh) -> AsyncIterator[None]:
    """A message comes that the agent can never handle."""
    async with mesh.broker() as broker:
        await broker.Publish(_spoiled(), wait_for_ready=True)
        yield
        everything = broker_pb2.DeadLetterSelection(filter=broker_pb2.DeadLetterFilter())
        await broker.DiscardDeadLetters(
            broker_pb2.DiscardDeadLettersRequest(queue="echo", selection=everything)
        )


def _spoiled() -> broker_pb2.PublishRequest:
    """No SayRequest, though its skill says so."""
    request = message("echo")
    request.message.method = "/weft.echo.v1.EchoService/Say"
    request.message.payload = b"\xff\xff\xff"
    return request


@drill("WeftDataLoss", "broker", queue="drill-loss")
async def data_loss(mesh: Mesh) -> AsyncIterator[None]:
    """Redis has a lower count of accepted messages than it had."""
    queue = "drill-loss"
    async with mesh.broker() as broker, embedded.redis_client(mesh.redis_url) as redis:
        await _declared(broker, queue)
        for _ in range(10):
            await broker.Publish(message(queue))
        await redis.hincrby(f"{layout.queue_key(queue)}:m", "p", -5)
        await broker.Publish(message(queue))
        yield
        await broker.DeleteQueue(broker_pb2.DeleteQueueRequest(queue=queue))


# The orchestrator


@drill("WeftRunsFail", "orchestrator", "echo", workflow="failing")
async def runs_fail(mesh: Mesh) -> AsyncIterator[None]:
    """A workflow calls what fails."""
    async with mesh.orchestrator() as orchestrator:
        spec = workflow("failing", say(fail_with="3"))
        await orchestrator.SubmitWorkflow(
            orchestrator_pb2.SubmitWorkflowRequest(spec=spec), wait_for_ready=True
        )
        async with repeated(lambda: orchestrator.StartRun(begun("failing"))):
            yield


@drill("WeftRunsOverdue", "orchestrator", "echo", alone=True)
async def runs_overdue(mesh: Mesh) -> AsyncIterator[None]:
    """More long runs are begun than the orchestrator may carry out at a time."""
    async with mesh.orchestrator() as orchestrator:
        spec = workflow("long", say(delay="duration('9s')"))
        runs = []
        for _ in range(8):
            answer = await orchestrator.StartRun(begun(spec), wait_for_ready=True)
            runs.append(answer.run.id)
        yield
        for run in runs:
            await orchestrator.CancelRun(orchestrator_pb2.CancelRunRequest(id=run))


# Models


@drill("WeftModelErrors", "thinker", gen_ai_request_model="overloaded")
async def model_errors(mesh: Mesh) -> AsyncIterator[None]:
    """A model is overloaded."""
    request = echo_pb2.SayRequest(text="busy")
    async with (
        mesh.agent("thinker") as thinker,
        repeated(lambda: thinker.Say(request, timeout=5)),
    ):
        yield


@drill("WeftModelSpend", "thinker")
async def model_spend(mesh: Mesh) -> AsyncIterator[None]:
    """A model costs more with each call than is wanted for a day."""
    request = echo_pb2.SayRequest(text="dear")
    async with mesh.agent("thinker") as thinker, repeated(lambda: thinker.Say(request)):
        yield
