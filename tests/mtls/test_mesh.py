"""A whole mesh with mTLS: who is let in where, who may say that it is whom, and whom callers believe."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2_grpc
from tests.certificates import TRUST_DOMAIN, Certificates
from tests.mtls.callers import Caller, refused

from weft import mtls, rpc
from weft.agents import Contract, Host, contract_of
from weft.agents.echo import Echo
from weft.agents.messaging import Consumer, Publisher
from weft.agents.registration import Registration
from weft.broker import Broker
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway import Gateway
from weft.registry import Pace, Registry
from weft.registry.follower import Follower
from weft.registry.xds import EdgeOptions
from weft.rpc.health import Health
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2, broker_pb2, broker_pb2_grpc, message_pb2
from weft.v1 import registry_pb2 as pb
from weft.v1.registry_pb2_grpc import RegistryServiceStub

SAY = echo_pb2.SayRequest(text="hello")
SHOW = echo_pb2.SayRequest(text="show")
QUICK = Pace(interval=timedelta(seconds=0.2))
NEVER = Pace(interval=timedelta(hours=1))


class Seeing(Echo):
    """Sees the certificate by which it is told "show"."""

    shown = b""

    async def Say(self, request: echo_pb2.SayRequest, context: object) -> echo_pb2.SayResponse:
        if request.text == SHOW.text:
            (self.shown,) = context.auth_context()["x509_pem_cert"]
        return await super().Say(request, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    certificates: Certificates
    registry: Registry
    host: Host

    async def say(self) -> str:
        stub = self.host.mesh.stub(echo_pb2_grpc.EchoServiceStub)
        return (await stub.Say(SAY, timeout=5)).text

    async def instances(self, agent: str = "echo") -> list[agent_pb2.Instance]:
        client = self.certificates.member("client/ann")
        async with rpc.Channel(self.registry.address, mtls=client) as channel:
            answer = await RegistryServiceStub(channel).ListAgents(
                pb.ListAgentsRequest(), timeout=5
            )
        return [one for each in answer.agents if each.name == agent for one in each.instances]


@contextlib.asynccontextmanager
async def registry_at(
    certificates: Certificates,
    database_url: str,
    pace: Pace = QUICK,
    roles: str = "",
    edge: EdgeOptions | None = None,
) -> AsyncIterator[Registry]:
    async with Registry(
        database_url=database_url,
        address="127.0.0.1:0",
        cold_start=timedelta(0),
        pace=pace,
        mtls=certificates.part("registry"),
        roles=mtls.Roles.read(roles),
        edge=edge,
    ) as registry:
        yield registry


@pytest.fixture
async def mesh(
    fresh_xds: None, certificates: Certificates, database_url: str
) -> AsyncIterator[Mesh]:
    async with (
        registry_at(certificates, database_url) as registry,
        Host(registry=registry.address, mtls=certificates.agents("echo")) as host,
    ):
        host.add(Echo("one"))
        await host.start()
        yield Mesh(certificates=certificates, registry=registry, host=host)


def said_to_be(agent: str, address: str, contract: Contract) -> agent_pb2.Instance:
    """The instance `one`."""
    ref = agent_pb2.ServiceRef(name=contract.service, descriptor_digest=contract.digest)
    return agent_pb2.Instance(
        instance_id="one",
        agent=agent,
        address=address,
        services=[ref],
        version="1.0.0",
        max_concurrency=10,
    )


@contextlib.asynccontextmanager
async def registered(
    registry: Registry, credentials: mtls.Credentials | None, address: str, agent: str = "echo"
) -> AsyncIterator[asyncio.Task[None]]:
    """A process that says that `agent` is at an address, whoever it is."""
    contract = contract_of(Echo())
    registration = Registration(
        registry.address,
        instances=[said_to_be(agent, address, contract)],
        descriptors={contract.digest: contract.descriptors},
        load=dict,
        mtls=credentials,
    )
    running = asyncio.create_task(registration.run())
    try:
        there = asyncio.create_task(registration.registered.wait())
        await asyncio.wait({there, running}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        there.cancel()
        yield running
    finally:
        registration.leave()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def echo_at(credentials: mtls.Credentials | None) -> AsyncIterator[str]:
    server = rpc.Server(mtls=credentials)
    server.add(echo_pb2_grpc.add_EchoServiceServicer_to_server, Echo("impostor"))
    async with server:
        yield server.address


# Who is let in


async def test_an_agent_is_called_by_name(mesh: Mesh) -> None:
    assert await mesh.say() == "hello"
    (instance,) = await mesh.instances()
    assert instance.spiffe_id == f"spiffe://{TRUST_DOMAIN}/agent/echo"


async def test_an_agent_is_healthy_by_probes_with_certificates(mesh: Mesh) -> None:
    """Probes come by mTLS too: an agent that stops serving is seen, and seen again."""

    async def state() -> int:
        (instance,) = await mesh.instances()
        return instance.state

    assert await state() == agent_pb2.INSTANCE_STATE_SERVING
    mesh.host.server.set_health("weft.echo.v1.EchoService", serving=False)
    await wait_until(lambda: _is(state, agent_pb2.INSTANCE_STATE_UNREACHABLE))
    mesh.host.server.set_health("weft.echo.v1.EchoService", serving=True)
    await wait_until(lambda: _is(state, agent_pb2.INSTANCE_STATE_SERVING))


async def _is(state: Callable[[], object], wanted: int) -> bool:
    return await state() == wanted


@pytest.mark.parametrize("kind", Caller.OUTSIDERS)
async def test_outsiders_are_refused_by_registry_and_agents(
    mesh: Mesh, foreign: Certificates, tmp_path: Path, kind: str
) -> None:
    caller = Caller(mesh.certificates, foreign, kind)
    await refused(caller, mesh.registry.address, "registry", tmp_path)
    await refused(caller, mesh.host.server.address, "echo", tmp_path)
    assert await mesh.say() == "hello"


@pytest.mark.parametrize("kind", Caller.OUTSIDERS)
async def test_outsiders_are_refused_by_brokers(
    certificates: Certificates, foreign: Certificates, redis_url: str, tmp_path: Path, kind: str
) -> None:
    own = certificates.part("broker")
    async with Broker(redis_url=redis_url, address="127.0.0.1:0", mtls=own) as broker:
        caller = Caller(certificates, foreign, kind)
        await refused(caller, broker.address, "broker", tmp_path)


@pytest.mark.parametrize("kind", ["plaintext", "no certificate", "foreign"])
async def test_a_client_of_xds_without_what_it_takes_reaches_nobody(
    mesh: Mesh, foreign: Certificates, kind: str
) -> None:
    """Even one that was told by the registry where agents are."""
    caller = Caller(mesh.certificates, foreign, kind)
    (instance,) = await mesh.instances()
    async with caller.channel(instance.address, "echo") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await echo_pb2_grpc.EchoServiceStub(channel).Say(SAY, timeout=5)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


# Who may say that it is whom


@pytest.mark.parametrize("who", ["agent/other", "client/ann", "part/broker", "ns/shop/sa/echo"])
async def test_nobody_registers_as_another_agent(
    certificates: Certificates, database_url: str, who: str
) -> None:
    own = certificates.member(who)
    async with (
        registry_at(certificates, database_url) as registry,
        registered(registry, own, "127.0.0.1:1") as running,
    ):
        with pytest.raises(rpc.PermissionDenied) as failed:
            await asyncio.wait_for(running, 5)
    assert failed.value.reason == "NOT_THIS_AGENT"
    assert f"spiffe://{TRUST_DOMAIN}/{who} is not echo" in failed.value.message
    assert f"spiffe://{TRUST_DOMAIN}/agent/echo" in failed.value.message
    assert "WEFT_MTLS_AGENTS" in failed.value.message


async def test_nobody_takes_the_place_of_anothers_instance(
    certificates: Certificates, database_url: str
) -> None:
    """An instance that registers under the id of another replaces it: only who may be both does that."""
    async with (
        registry_at(certificates, database_url, NEVER) as registry,
        registered(registry, certificates.agents("echo"), "127.0.0.1:1"),
        registered(registry, certificates.agents("other"), "127.0.0.1:2", "other") as running,
    ):
        with pytest.raises(rpc.PermissionDenied, match="other is not echo"):
            await asyncio.wait_for(running, 5)


class Taker:
    """Registers under the id of an instance of echo, as another agent."""

    def __init__(self, channel: rpc.Channel) -> None:
        self._stream = RegistryServiceStub(channel).Register(timeout=10)
        self._contract = contract_of(Echo())

    async def begin(self) -> list[str]:
        """Says who it is; which descriptor sets it is asked for."""
        instance = said_to_be("other", "127.0.0.1:2", self._contract)
        registration = pb.Registration(instances=[instance])
        await self._stream.write(pb.RegisterRequest(registration=registration))
        answer = await self._stream.read()
        assert isinstance(answer, pb.RegisterResponse)
        return list(answer.granted.wanted_digests)

    async def end(self) -> str:
        """Registers; the reason why it may not."""
        sets = {self._contract.digest: self._contract.descriptors}
        await self._stream.write(pb.RegisterRequest(descriptors=pb.DescriptorSets(sets=sets)))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await self._stream.read()
        return rpc.error_from_call(failed.value).reason


async def test_nor_when_it_asked_before_the_other_came(
    certificates: Certificates, database_url: str
) -> None:
    async with (
        registry_at(certificates, database_url, NEVER) as registry,
        rpc.Channel(registry.address, mtls=certificates.agents("other")) as channel,
    ):
        taker = Taker(channel)
        assert await taker.begin()
        async with registered(registry, certificates.agents("echo"), "127.0.0.1:1") as running:
            assert await taker.end() == "INSTANCE_TAKEN"
            assert await agents_at(registry, certificates) == ["echo"]
            assert not running.done()


async def test_nor_at_a_replica_that_has_not_heard_of_it(
    certificates: Certificates, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database knows who holds an instance, whatever a replica knows that lags behind it."""
    catch_up, stands, goes_on = Follower._catch_up, asyncio.Event(), asyncio.Event()
    async with (
        registry_at(certificates, database_url, NEVER) as near,
        registry_at(certificates, database_url, NEVER) as far,
        rpc.Channel(far.address, mtls=certificates.agents("other")) as channel,
    ):
        stub = RegistryServiceStub(channel)
        lagging = (await stub.ListReplicas(pb.ListReplicasRequest(), timeout=5)).answered_by

        async def held_back(follower: Follower) -> None:
            if follower._store.replica == lagging:
                stands.set()
                await goes_on.wait()
            await catch_up(follower)

        monkeypatch.setattr(Follower, "_catch_up", held_back)
        await asyncio.wait_for(stands.wait(), 5)
        async with registered(near, certificates.agents("echo"), "127.0.0.1:1") as running:
            taker = Taker(channel)
            assert await taker.begin()
            assert await agents_at(far, certificates) == [], "it has not heard of it"
            assert await taker.end() == "INSTANCE_TAKEN"
            goes_on.set()

            async def heard() -> bool:
                return await agents_at(far, certificates) == ["echo"]

            await wait_until(heard)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await Taker(channel).begin()
            assert rpc.error_from_call(failed.value).reason == "NOT_THIS_AGENT"
            assert await agents_at(near, certificates) == ["echo"]
            assert not running.done()


async def agents_at(registry: Registry, certificates: Certificates) -> list[str]:
    """Names of agents that have an instance, as a replica knows them."""
    async with rpc.Channel(registry.address, mtls=certificates.member("client/ann")) as channel:
        stub = RegistryServiceStub(channel)
        answer = await stub.ListAgents(pb.ListAgentsRequest(), timeout=5)
    return [each.name for each in answer.agents if each.instances]


async def test_an_id_that_does_not_name_its_agents_may_be_those_that_rules_say(
    certificates: Certificates, database_url: str
) -> None:
    roles = f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/*=echo"
    own = certificates.member("ns/shop/sa/front")
    async with (
        registry_at(certificates, database_url, NEVER, roles) as registry,
        registered(registry, own, "127.0.0.1:1") as running,
    ):
        assert not running.done()


async def test_a_host_that_is_not_its_agents_says_so_at_its_start(
    fresh_xds: None, certificates: Certificates, database_url: str
) -> None:
    async with (
        registry_at(certificates, database_url) as registry,
        Host(registry=registry.address, mtls=certificates.agents("other")) as host,
    ):
        host.add(Echo())
        with pytest.raises(rpc.PermissionDenied, match="is not echo"):
            await host.start()


async def test_a_process_that_becomes_somebody_else_registers_again(
    fresh_xds: None, certificates: Certificates, database_url: str
) -> None:
    """As when a second host is started by the same process: both show the certificate of all its agents."""
    home = certificates.folder / "authority"
    async with (
        registry_at(certificates, database_url) as registry,
        mtls.issued(home, lambda _: mtls.client_id(TRUST_DOMAIN, "ann")) as own,
        Host(registry=registry.address, mtls=own) as first,
        Host(registry=registry.address, mtls=own) as second,
    ):
        first.add(Echo("one"))
        second.add(Echo("two"), agent="other")
        await first.start()
        await second.start()
        assert own.who.agents == ("echo", "other")
        mesh = Mesh(certificates=certificates, registry=registry, host=first)

        async def told() -> bool:
            (instance,) = await mesh.instances()
            return instance.spiffe_id.endswith("/agent/echo/other") and instance.state == (
                agent_pb2.INSTANCE_STATE_SERVING
            )

        await wait_until(told)
        assert await mesh.say() == "hello"


async def test_a_broker_knows_its_members_apart(certificates: Certificates, redis_url: str) -> None:
    own = certificates.part("broker")
    greeter, ann = certificates.agents("greeter"), certificates.member("client/ann")
    async with Broker(redis_url=redis_url, address="127.0.0.1:0", mtls=own) as broker:
        got: asyncio.Queue[str] = asyncio.Queue()

        async def take(delivery: message_pb2.MessageDelivery) -> None:
            got.put_nowait(delivery.message.sender)

        async with Consumer(broker.address, "greeter", take, mtls=greeter) as consumer:
            await asyncio.wait_for(consumer.connected.wait(), 5)
            for sender, credentials in (("greeter", greeter), ("host:x", greeter), ("bob", ann)):
                async with Publisher(broker.address, sender=sender, mtls=credentials) as publisher:
                    await publisher.publish(message_pb2.Message(recipient="greeter"))
                assert await asyncio.wait_for(got.get(), 5) == sender
            async with Publisher(broker.address, sender="bob", mtls=greeter) as publisher:
                with pytest.raises(rpc.PermissionDenied, match="greeter is not bob"):
                    await publisher.publish(message_pb2.Message(recipient="greeter"))
        async with rpc.Channel(broker.address, mtls=greeter, part="broker") as channel:
            stub = broker_pb2_grpc.BrokerServiceStub(channel)
            other = message_pb2.Message(recipient="greeter", sender="bob", id="1")
            for call in (
                stub.Publish(broker_pb2.PublishRequest(message=other), timeout=5),
                stub.Request(broker_pb2.RequestRequest(message=other), timeout=5),
                stub.Broadcast(
                    broker_pb2.BroadcastRequest(
                        message=message_pb2.Message(sender="bob"), pattern="*"
                    ),
                    timeout=5,
                ),
                stub.SetQueue(broker_pb2.SetQueueRequest(queue="bob"), timeout=5),
                stub.DeleteQueue(broker_pb2.DeleteQueueRequest(queue="bob"), timeout=5),
                stub.History(broker_pb2.HistoryRequest(queue="bob"), timeout=5),
                stub.ListDeadLetters(broker_pb2.ListDeadLettersRequest(queue="bob"), timeout=5),
            ):
                assert await _denied(call) == "NOT_THIS_AGENT"
            replay = stub.Replay(broker_pb2.ReplayRequest(queue="bob"), timeout=5)
            assert await _denied(replay.read()) == "NOT_THIS_AGENT"
            consume = stub.Consume(timeout=5)
            opening = broker_pb2.ConsumeOpen(queue="bob.news", declare=True)
            await consume.write(broker_pb2.ConsumeRequest(open=opening))
            assert await _denied(consume.read()) == "NOT_THIS_AGENT"
            described = await stub.Describe(broker_pb2.DescribeRequest(queue="greeter"), timeout=5)
            assert described.status.queue == "greeter"
            purge = broker_pb2.PurgeQueueRequest(queue="greeter")
            await stub.PurgeQueue(purge, timeout=5)


async def _denied(call: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED, failed.value
    return rpc.error_from_call(failed.value).reason


async def test_skills_are_delivered_by_message(
    fresh_xds: None, certificates: Certificates, database_url: str, redis_url: str
) -> None:
    """Messages reach a skill by a door of the process itself, where nobody else can come in."""
    broker_own = certificates.part("broker")
    async with (
        registry_at(certificates, database_url) as registry,
        Broker(redis_url=redis_url, address="127.0.0.1:0", mtls=broker_own) as broker,
        Host(
            registry=registry.address, brokers=broker.address, mtls=certificates.agents("echo")
        ) as host,
    ):
        host.add(Echo("one"))
        await host.start()
        door = host._door
        assert door.stat().st_mode & 0o777 == 0o700
        answer = await host.mesh.request(echo_pb2_grpc.EchoServiceServicer.Say, SAY)
        assert answer.text == "hello"
    assert not door.exists()


# Whom callers believe


async def test_a_client_of_xds_believes_nobody_but_who_registered(
    fresh_xds: None, certificates: Certificates, database_url: str
) -> None:
    """The SPIFFE id comes with the cluster: whoever else answers at the address is refused by the client."""
    async with (
        registry_at(certificates, database_url, NEVER) as registry,
        echo_at(certificates.agents("other")) as impostor,
        registered(registry, certificates.agents("echo"), impostor),
    ):
        ann = certificates.member("client/ann")
        rpc.use_registry(registry.address, mtls=ann)
        async with rpc.Channel("xds:///echo", mtls=ann) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="SAN") as failed:
                await echo_pb2_grpc.EchoServiceStub(channel).Say(SAY, timeout=5)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_unknown_agents_are_told_of_at_once(mesh: Mesh) -> None:
    stub = mesh.host.mesh.stub(echo_pb2_grpc.EchoServiceStub, "nobody")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stub.Say(SAY, timeout=10)
    assert rpc.error_from_call(failed.value).reason == "AGENT_UNKNOWN"


async def test_probes_believe_nobody_but_who_registered(
    certificates: Certificates, database_url: str
) -> None:
    async with (
        registry_at(certificates, database_url) as registry,
        echo_at(certificates.agents("other")) as impostor,
        echo_at(None) as plain,
    ):
        for address, why in (
            (impostor, f"its certificate is of spiffe://{TRUST_DOMAIN}/agent/other"),
            (plain, ""),
        ):
            async with registered(registry, certificates.agents("echo"), address):
                mesh = Mesh(certificates=certificates, registry=registry, host=None)

                async def unreachable(mesh: Mesh = mesh, why: str = why) -> bool:
                    (instance,) = await mesh.instances()
                    found = instance.state == agent_pb2.INSTANCE_STATE_UNREACHABLE
                    return found and instance.state_reason.startswith(why)

                await wait_until(unreachable)


async def test_a_check_that_ends_with_an_error_is_asked_about(
    certificates: Certificates, database_url: str
) -> None:
    """What a probe cannot read is asked for by grpc.aio, through a relay that has checked the certificate."""
    own = certificates.agents("echo")
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    port = server.add_secure_port("127.0.0.1:0", own.server())
    await server.start()
    try:
        async with (
            registry_at(certificates, database_url) as registry,
            registered(registry, own, f"127.0.0.1:{port}"),
        ):
            mesh = Mesh(certificates=certificates, registry=registry, host=None)

            async def told() -> bool:
                (instance,) = await mesh.instances()
                unknown = "its health service does not know weft.echo.v1.EchoService"
                return instance.state_reason == unknown

            await wait_until(told)
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def gateway_at(
    certificates: Certificates, registry: Registry, database_url: str
) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        Gateway(
            registry=registry.address,
            database_url=database_url,
            listen="127.0.0.1:0",
            grpc_listen="127.0.0.1:0",
            mtls=certificates.part("gateway"),
        ) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
    ):
        await gateway.ready()
        yield http


async def test_a_gateway_calls_agents(mesh: Mesh, database_url: str) -> None:
    async with gateway_at(mesh.certificates, mesh.registry, database_url) as http:
        response = await http.post("/v1/echo:say", json={"text": "hello"})
        assert response.json()["text"] == "hello"
        repeat = {"text": "again", "count": 3}
        response = await http.post("/v1/echo:repeat", json=repeat)
        assert response.text.count("again") == 3


async def test_a_gateway_believes_nobody_but_who_registered(
    certificates: Certificates, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        registry_at(certificates, database_url, NEVER) as registry,
        echo_at(certificates.agents("other")) as impostor,
        registered(registry, certificates.agents("echo"), impostor),
        gateway_at(certificates, registry, database_url) as http,
    ):
        with caplog.at_level(logging.WARNING, "weft.gateway"):
            response = await http.post("/v1/echo:say", json={"text": "hello"})
        assert response.status_code == 503
        assert "impostor" not in response.text
    causes = [getattr(record, "cause", "") for record in caplog.records]
    assert f"its certificate is of spiffe://{TRUST_DOMAIN}/agent/other, and not of " in causes[0]


async def test_certificates_change_under_a_mesh_that_works(
    fresh_xds: None,
    certificates: Certificates,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of an agent and its callers, by xDS and by the gateway: no call fails, and new connections show the new one."""
    monkeypatch.setattr("weft.mtls.credentials.WATCH", timedelta(milliseconds=100))
    folder = tmp_path / "own"
    files = certificates.files("agent/echo", folder=folder, life=timedelta(hours=1))
    async with (
        registry_at(certificates, database_url) as registry,
        mtls.followed(files) as own,
        Host(registry=registry.address, mtls=own) as host,
    ):
        host.add(Echo("one"))
        await host.start()
        mesh = Mesh(certificates=certificates, registry=registry, host=host)
        async with gateway_at(certificates, registry, database_url) as http:
            said, done = 0, asyncio.Event()

            async def calling() -> None:
                nonlocal said
                while not done.is_set():
                    assert await mesh.say() == "hello"
                    response = await http.post("/v1/echo:say", json={"text": "hello"})
                    assert response.status_code == 200, response.text
                    said += 1

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(calling())
                tasks.create_task(calling())
                try:
                    for generation in range(1, 4):
                        certificates.files("agent/echo", folder=folder)
                        await wait_until(lambda g=generation: own.generation == g)
                        before = said
                        await wait_until(lambda before=before: said > before + 20)
                finally:
                    done.set()
    assert own.seconds_left() > 80_000


async def test_a_root_is_replaced_under_a_mesh_that_works(
    fresh_xds: None,
    certificates: Certificates,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing of the former root is left in the end: who comes later is reached by, and reaches, those who were there."""
    monkeypatch.setattr("weft.mtls.credentials.WATCH", timedelta(milliseconds=100))
    members = {
        "part/registry": [mtls.part_name(TRUST_DOMAIN, "registry"), "127.0.0.1"],
        "part/gateway": [],
        "agent/echo": [],
    }

    def issue(who: str) -> mtls.Files:
        names = members[who]
        return certificates.files(who, names=names, folder=tmp_path / who.replace("/", "-"))

    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        held = {who: await enter(mtls.followed(issue(who))) for who in members}
        registry = await enter(
            Registry(
                database_url=database_url,
                address="127.0.0.1:0",
                cold_start=timedelta(0),
                pace=QUICK,
                mtls=held["part/registry"],
            )
        )
        host = await enter(Host(registry=registry.address, mtls=held["agent/echo"]))
        seeing = Seeing("one")
        host.add(seeing)
        await host.start()
        gateway = await enter(
            Gateway(
                registry=registry.address,
                database_url=database_url,
                listen="127.0.0.1:0",
                grpc_listen="127.0.0.1:0",
                mtls=held["part/gateway"],
            )
        )
        http = await enter(httpx.AsyncClient(base_url=gateway.url, timeout=20))
        await gateway.ready()
        say = host.mesh.stub(echo_pb2_grpc.EchoServiceStub).Say
        failed, done = [], asyncio.Event()

        async def calling() -> None:
            while not done.is_set():
                answer = await say(SAY, timeout=5)
                response = await http.post("/v1/echo:say", json={"text": "hello"})
                if answer.text != "hello" or response.status_code != 200:
                    failed.append(response.text)

        async def shown(generation: int) -> None:
            await wait_until(lambda: all(one.generation >= generation for one in held.values()))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(calling())
            try:
                certificates.authority = certificates.authority.rotated()
                _believe(certificates, tmp_path, held)  # both roots, the former certificate
                await shown(1)
                for who in members:
                    issue(who)
                await shown(2)
                new = held["agent/echo"].files.certificate.read_bytes()

                async def shown_by_grpc() -> bool:
                    # gRPC looks at the files by itself, and tells nobody: a new connection shows what it has.
                    own = (("grpc.use_local_subchannel_pool", 1),)
                    mine = rpc.Channel("xds:///echo", mtls=held["agent/echo"], options=own)
                    async with mine as channel:
                        await echo_pb2_grpc.EchoServiceStub(channel).Say(SHOW, timeout=5)
                    return seeing.shown == new

                await wait_until(shown_by_grpc)
                certificates.authority.forget()
                for who in members:
                    issue(who)
                await shown(3)
                later = await enter(
                    Host(registry=registry.address, mtls=certificates.agents("echo"))
                )
                later.add(Echo("two"))
                await later.start()
                answered = set()

                async def by_both() -> bool:
                    answered.add((await say(SAY, timeout=5)).instance)
                    body = (await http.post("/v1/echo:say", json={"text": "hello"})).json()
                    answered.add(f"gateway {body['instance']}")
                    return len(answered) == 4

                await wait_until(by_both)
            finally:
                done.set()
        assert not failed


def _believe(
    certificates: Certificates, folder: Path, held: Mapping[str, mtls.Credentials]
) -> None:
    """Writes the roots that are believed, and the certificates as they are."""
    for who, credentials in held.items():
        leaf = mtls.Leaf(
            certificate=credentials.files.certificate.read_bytes(),
            key=credentials.files.key.read_bytes(),
        )
        bundle = certificates.authority.bundle.read_bytes()
        mtls.replace(folder / who.replace("/", "-"), leaf, bundle)
