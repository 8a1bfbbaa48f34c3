"""An Envoy at the edge of a mesh with mTLS: whom it believes, who believes it, and certificates that change while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography import x509
from tests.certificates import TRUST_DOMAIN, Certificates
from tests.edge.conftest import PATIENCE, Edge, routed, running
from tests.edge.test_changes import weft
from tests.mtls.test_mesh import NEVER, SHOW, Seeing, echo_at, registered, registry_at
from tests.ports import free_port

from weft import mtls, rpc
from weft.agents import Host
from weft.agents.echo import Echo
from weft.broker import Broker
from weft.cli import failures
from weft.cli.edge import bootstrap, envoy
from weft.cli.edge.bootstrap import Door, Member
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway import Gateway
from weft.gateway.guards.certificates import CertificateRules
from weft.gateway.guards.key_store import KeyStore
from weft.gateway.tls import TlsSettings
from weft.postgres import Database
from weft.registry import Registry
from weft.registry.xds import EdgeOptions, resources
from weft.registry.xds.server import SERVICE
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2
from weft.xds.v1 import discovery_pb2

ME = f"spiffe://{TRUST_DOMAIN}/part/edge"


def member(files: mtls.Files) -> Member:
    return Member(
        certificate=files.certificate, key=files.key, ca=files.ca, trust_domain=TRUST_DOMAIN
    )


@pytest.fixture
def own(certificates: Certificates) -> mtls.Files:
    """The edge's certificate."""
    return certificates.files("part/edge", folder=certificates.folder / "edge-member")


@contextlib.asynccontextmanager
async def agent(registry: str, certificates: Certificates) -> AsyncIterator[Seeing]:
    seeing = Seeing("one")
    async with Host(registry=registry, mtls=certificates.agents("echo")) as host:
        host.add(seeing)
        await host.start()
        yield seeing


async def shown(edge: Edge, to: Seeing) -> x509.Certificate:
    """The certificate that the edge shows an agent."""
    found = await edge.http.post("/v1/echo:say", json={"text": SHOW.text})
    assert found.status_code == httpx.codes.OK, found.text
    return x509.load_pem_x509_certificate(to.shown)


def spiffe_id(certificate: x509.Certificate) -> str:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (found,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return found


async def test_calls_go_by_the_edge_s_own_certificate(
    fresh_xds: None, certificates: Certificates, own: mtls.Files, database_url: str, tmp_path: Path
) -> None:
    async with (
        registry_at(certificates, database_url) as registry,
        agent(registry.address, certificates) as seeing,
        running(tmp_path, registry.address, member=member(own)) as edge,
    ):
        await routed(edge.http)
        assert spiffe_id(await shown(edge, seeing)) == ME
        async with rpc.Channel(edge.address) as channel:
            stub = echo_pb2_grpc.EchoServiceStub(channel)
            assert (await stub.Say(echo_pb2.SayRequest(text="a"), timeout=5)).text == "a"
        assert await edge.stat("cluster.echo.ssl.handshake") > 0
        assert await edge.stat("cluster.registry.ssl.handshake") > 0


async def refused(edge: Edge) -> None:
    """Waits until a call is refused; none may be answered."""

    async def now() -> bool:
        found = await edge.http.get("/v1/echo/a")
        assert found.status_code != httpx.codes.OK
        return found.status_code == httpx.codes.SERVICE_UNAVAILABLE

    await wait_until(now, PATIENCE)


async def test_an_agent_that_is_another_is_refused(
    fresh_xds: None, certificates: Certificates, own: mtls.Files, database_url: str, tmp_path: Path
) -> None:
    async with (
        registry_at(certificates, database_url, NEVER) as registry,
        echo_at(certificates.agents("other")) as impostor,
        registered(registry, certificates.agents("echo"), impostor),
        running(tmp_path, registry.address, member=member(own)) as edge,
    ):
        await refused(edge)
        assert await edge.stat("cluster.echo.ssl.fail_verify_san") > 0


async def test_an_agent_of_another_authority_is_refused(
    fresh_xds: None,
    certificates: Certificates,
    foreign: Certificates,
    own: mtls.Files,
    database_url: str,
    tmp_path: Path,
) -> None:
    async with (
        registry_at(certificates, database_url, NEVER) as registry,
        echo_at(foreign.agents("echo")) as impostor,
        registered(registry, certificates.agents("echo"), impostor),
        running(tmp_path, registry.address, member=member(own)) as edge,
    ):
        await refused(edge)
        assert await edge.stat("cluster.echo.ssl.fail_verify_error") > 0


async def test_certificates_and_roots_that_are_renewed_are_taken_with_no_restart(
    fresh_xds: None, certificates: Certificates, own: mtls.Files, database_url: str, tmp_path: Path
) -> None:
    own_folder = certificates.folder / "edge-member"
    async with (
        mtls.issued(
            certificates.folder / "authority",
            lambda trust_domain: mtls.part_id(trust_domain, "registry"),
            names=lambda trust_domain: [mtls.part_name(trust_domain, "registry"), "127.0.0.1"],
        ) as of_registry,
        Registry(
            database_url=database_url,
            address="127.0.0.1:0",
            cold_start=timedelta(0),
            mtls=of_registry,
        ) as registry,
        running(tmp_path, registry.address, member=member(own)) as edge,
    ):
        async with agent(registry.address, certificates) as seeing:
            await routed(edge.http)
            before = await shown(edge, seeing)
        at_first = await edge.stat(_TAKEN)
        # A root that the edge has never seen, and with it a new certificate.
        certificates.authority = certificates.authority.rotated()
        renewed = certificates.files("part/edge", folder=own_folder)
        assert renewed == own

        async def taken() -> bool:
            return await edge.stat(_TAKEN) >= at_first + 2

        await wait_until(taken, PATIENCE)
        async with agent(registry.address, certificates) as seeing:
            await routed(edge.http)
            after = await shown(edge, seeing)
    assert after.serial_number != before.serial_number
    assert after.issuer != before.issuer
    assert spiffe_id(after) == spiffe_id(before) == ME


_TAKEN = "cluster.registry.client_ssl_socket_factory.ssl_context_update_by_sds"


async def test_a_certificate_at_the_door_that_is_renewed_is_taken_with_no_restart(
    fresh_xds: None, certificates: Certificates, own: mtls.Files, database_url: str, tmp_path: Path
) -> None:
    def issued() -> Door:
        files = certificates.files(
            "client/door", names=["127.0.0.1"], folder=certificates.folder / "door"
        )
        return Door(certificate=files.certificate, key=files.key)

    async with (
        registry_at(certificates, database_url) as registry,
        agent(registry.address, certificates),
        running(tmp_path, registry.address, member=member(own), door=issued()) as edge,
    ):
        host, _, port = edge.address.rpartition(":")
        context = ssl.create_default_context(cadata=certificates.authority.bundle.read_text())

        def door() -> str:
            return ssl.get_server_certificate((host, int(port)))

        before = door()
        async with httpx.AsyncClient(base_url=f"https://{edge.address}", verify=context) as http:
            await routed(http)
        issued()
        await wait_until(lambda: door() != before, PATIENCE)


@contextlib.asynccontextmanager
async def gateway_at(
    registry: str,
    database_url: str,
    certificates: Certificates,
    part: str,
    http: str,
    by_grpc: str,
) -> AsyncIterator[str]:
    """A gateway whose doors are open for members of the mesh alone; yields an API key."""
    files = certificates.files(f"part/{part}", names=[mtls.part_name(TRUST_DOMAIN, part)])
    rules = CertificateRules.read(
        subject="spiffe", scopes="", tenants="", edges="spiffe://*/part/edge"
    )
    async with Gateway(
        registry=registry,
        listen=http,
        grpc_listen=by_grpc,
        database_url=database_url,
        auth="on",
        tls=TlsSettings(certificate=files.certificate, key=files.key, client_ca=files.ca),
        certificates=rules,
        mtls=mtls.Credentials(files),
    ) as gateway:
        await gateway.ready()
        async with await Database.connect(database_url, schema="gateway") as database:
            database.load("weft.gateway.sql")
            made = await KeyStore(database).create("me")
        yield made.text


@pytest.mark.parametrize("part", ["gateway", "broker"])
async def test_what_only_a_gateway_does_goes_there_by_certificates(
    fresh_xds: None,
    certificates: Certificates,
    own: mtls.Files,
    database_url: str,
    tmp_path: Path,
    part: str,
) -> None:
    http, by_grpc = (f"127.0.0.1:{free_port()}" for _ in range(2))
    options = EdgeOptions(
        access="gateway", gateway=f"https://{http}", gateway_grpc=f"https://{by_grpc}"
    )
    async with (
        registry_at(certificates, database_url, edge=options) as registry,
        agent(registry.address, certificates) as seeing,
        gateway_at(registry.address, database_url, certificates, part, http, by_grpc) as key,
        running(tmp_path, registry.address, member=member(own)) as edge,
        rpc.Channel(edge.address) as channel,
    ):
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        say = echo_pb2.SayRequest(text="a")
        headers = {"authorization": f"Bearer {key}"}
        if part != "gateway":  # it is of the mesh, and no gateway
            found = await edge.http.get("/v1/echo/a", headers=headers)
            assert found.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert await edge.stat(r"cluster.@gateway.ssl.fail_verify_san") > 0
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await stub.Say(say, timeout=5, metadata=tuple(headers.items()))
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
            assert await edge.stat(r"cluster.@gateway-grpc.ssl.fail_verify_san") > 0
            return
        await routed(edge.http, headers=headers)
        for cluster in ("@gateway", "@gateway-grpc"):  # by both ways it is asked how it is
            assert await edge.stat(f"cluster.{cluster}.health_check.success") > 0
            assert await edge.stat(f"cluster.{cluster}.health_check.failure") == 0
        # The certificate is the edge's: it says nothing of who calls.
        found = await edge.http.get("/v1/echo/a")
        assert found.status_code == httpx.codes.UNAUTHORIZED
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.Say(say, timeout=5)
        assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED
        answer = await stub.Say(say, timeout=5, metadata=tuple(headers.items()))
        assert answer.text == "a"
        # The gateway speaks for itself with agents.
        found = await edge.http.post("/v1/echo:say", json={"text": "show"}, headers=headers)
        assert found.status_code == httpx.codes.OK
        seen = spiffe_id(x509.load_pem_x509_certificate(seeing.shown))
        assert seen == f"spiffe://{TRUST_DOMAIN}/part/gateway"


async def test_a_registry_that_is_another_part_is_refused(
    fresh_xds: None, certificates: Certificates, own: mtls.Files, database_url: str, tmp_path: Path
) -> None:
    """The edge gets no listener from it, and says so."""
    impostor = certificates.part("broker")
    async with Registry(
        database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0), mtls=impostor
    ) as registry:
        start = bootstrap.start(
            [registry.address],
            listen=f"127.0.0.1:{free_port()}",
            admin="127.0.0.1:0",
            folder=tmp_path,
            member=member(own),
        )
        with pytest.raises(failures.Failure, match="no listener"):
            async with envoy.running(
                start, tmp_path, drain=timedelta(0), patience=timedelta(seconds=2)
            ):
                pass


async def test_an_edge_has_nothing_to_do_with_queues(
    certificates: Certificates, redis_url: str
) -> None:
    own, me = certificates.part("broker"), certificates.member("part/edge")
    async with (
        Broker(redis_url=redis_url, address="127.0.0.1:0", mtls=own) as broker,
        rpc.Channel(broker.address, mtls=me, part="broker") as channel,
    ):
        stub = broker_pb2_grpc.BrokerServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.History(broker_pb2.HistoryRequest(queue="echo"), timeout=5)
        assert rpc.error_from_call(failed.value).reason == "NOT_THIS_AGENT"
        sent = message_pb2.Message(recipient="echo", sender="echo", id="1")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.Publish(broker_pb2.PublishRequest(message=sent), timeout=5)
        assert rpc.error_from_call(failed.value).reason == "NOT_THIS_AGENT"


async def test_a_gateway_by_https_needs_certificates_of_the_mesh(database_url: str) -> None:
    options = EdgeOptions(gateway="https://gateway:7080", gateway_grpc="https://gateway:7081")
    with pytest.raises(ValueError, match="only in a mesh with mTLS"):
        async with Registry(database_url=database_url, address="127.0.0.1:0", edge=options):
            pass


async def test_instances_with_other_ids_come_and_go_and_no_call_fails(
    fresh_xds: None, certificates: Certificates, own: mtls.Files, database_url: str, tmp_path: Path
) -> None:
    """Each time the registry tells the edge anew whom to believe."""
    failed: list[str] = []
    seen: set[str] = set()
    over = asyncio.Event()
    async with (
        registry_at(certificates, database_url) as registry,
        agent(registry.address, certificates),
        running(tmp_path, registry.address, member=member(own)) as edge,
    ):
        await routed(edge.http)

        async def call() -> None:
            while not over.is_set():
                found = await edge.http.get("/v1/echo/a")
                if found.status_code != httpx.codes.OK:
                    failed.append(found.text)
                else:
                    seen.add(found.json()["instance"])

        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(call())
            for other in ("other", "third"):
                who = certificates.agents("echo", other)
                async with Host(registry=registry.address, mtls=who) as host:
                    host.add(Echo(other))
                    await host.start()
                    await wait_until(lambda other=other: other in seen, PATIENCE)
                seen.clear()
                await wait_until(lambda: "one" in seen, PATIENCE)
            over.set()
    assert failed == []


async def test_an_edge_that_would_not_encrypt_calls_nobody(
    fresh_xds: None,
    certificates: Certificates,
    own: mtls.Files,
    database_url: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It comes with a certificate and does not say which, so that its calls would go in plain text."""
    start = bootstrap.start(
        ["127.0.0.1:1"],
        listen=f"127.0.0.1:{free_port()}",
        admin="127.0.0.1:0",
        folder=tmp_path,
        member=member(own),
    )
    told = start.bootstrap["node"]["metadata"]
    silent = {name: value for name, value in told.items() if name in {"role", "listen"}}
    node = discovery_pb2.Node(id="edge", user_agent_name="envoy")
    me = certificates.member("part/edge")
    async with contextlib.AsyncExitStack() as stack:
        registry = await stack.enter_async_context(registry_at(certificates, database_url))
        await stack.enter_async_context(agent(registry.address, certificates))
        credentials, options = me.channel(registry.address, "registry")
        channel = await stack.enter_async_context(
            grpc.aio.secure_channel(registry.address, credentials, options=options)
        )
        follow = channel.stream_stream(
            f"/{SERVICE}/DeltaAggregatedResources",
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )
        for metadata, expected in ((told, {"echo"}), (silent, set())):
            node.metadata.update(metadata)
            stream = follow(timeout=10)
            for type_url in (resources.CLUSTER, resources.LISTENER):
                await stream.write(
                    discovery_pb2.DeltaDiscoveryRequest(node=node, type_url=type_url)
                )
            found: dict[str, set[str]] = {}
            while resources.LISTENER not in found:
                response = await stream.read()
                found[response.type_url] = {
                    discovery_pb2.Resource.FromString(each).name for each in response.resources
                }
            assert found.get(resources.CLUSTER, set()) == expected
            stream.cancel()
            node.metadata.Clear()
    assert "an edge has no certificate in the mesh" in caplog.text


async def test_weft_edge_run_takes_files_that_are_written_over_in_place(
    fresh_xds: None, certificates: Certificates, own: mtls.Files, database_url: str, tmp_path: Path
) -> None:
    """As some programs write them, one after the other."""
    files = [tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt")]

    def write() -> bytes:
        made = (own.certificate, own.key, own.ca)
        for file, new in zip(files, made, strict=True):
            file.write_bytes(new.read_bytes())
        return files[0].read_bytes()

    write()
    listen = f"127.0.0.1:{free_port()}"
    async with (
        registry_at(certificates, database_url) as registry,
        agent(registry.address, certificates) as seeing,
        weft(
            *("edge", "run", "--registry", registry.address, "--listen", listen),
            *("--data", str(tmp_path / "data")),
            *("--mtls-certificate", str(files[0]), "--mtls-key", str(files[1])),
            *("--mtls-ca", str(files[2])),
        ),
        httpx.AsyncClient(base_url=f"http://{listen}") as http,
        httpx.AsyncClient(base_url=f"http://{(tmp_path / 'data/edge/admin').read_text()}") as admin,
    ):
        edge = Edge(url=f"http://{listen}", http=http, admin=admin, log=tmp_path)
        await routed(http)
        assert spiffe_id(await shown(edge, seeing)) == ME
        at_first = await edge.stat(_TAKEN)
        certificates.files("part/edge", folder=certificates.folder / "edge-member")
        new = write()
        copy = tmp_path / "data/edge/mesh/current/certificate.pem"
        await wait_until(lambda: copy.read_bytes() == new, PATIENCE)

        async def taken() -> bool:
            return await edge.stat(_TAKEN) > at_first

        await wait_until(taken, PATIENCE)
