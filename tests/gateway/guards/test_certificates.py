"""Callers by certificate: TLS of both listeners, subjects, scopes, tenants, renewal."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.gateway.conftest import Mesh, routed, running
from websockets.asyncio.client import connect

from weft import rpc
from weft.echo.v1 import echo_pb2
from weft.gateway.guards.certificates import (
    CertificateExpired,
    CertificateRules,
    CertificateUnfit,
)
from weft.gateway.guards.key_store import KeyStore
from weft.gateway.tls import Tls, TlsSettings
from weft.postgres import Database

SAY = "/weft.echo.v1.EchoService/Say"
SHOP = "spiffe://example.org/shop/web"
NOW = datetime.now(UTC)


class Authority:
    """Makes certificates."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._builder(self.name, self._key.public_key(), NOW + timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(_pem(made.sign(self._key, hashes.SHA256())))

    def _builder(self, subject: x509.Name, key: Any, ends: datetime) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=30))
            .not_valid_after(ends)
        )

    def made(
        self,
        *,
        names: Sequence[x509.GeneralName] = (),
        common: str = "",
        ends: datetime = NOW + timedelta(hours=1),
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
        builder = self._builder(x509.Name(attributes), key.public_key(), ends)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(names), critical=not attributes
            )
        return builder.sign(self._key, hashes.SHA256()), key

    def files(self, stem: str, **further: Any) -> tuple[Path, Path]:
        """A certificate and its key."""
        certificate, key = self.made(**further)
        paths = self._folder / f"{stem}.crt", self._folder / f"{stem}.key"
        paths[0].write_bytes(_pem(certificate))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def uri(*given: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(one) for one in given]


LOCAL = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


# Who the bearer is


@pytest.mark.parametrize(
    ("subject", "made", "name"),
    [
        ("spiffe", {"names": uri(SHOP)}, SHOP),
        ("spiffe", {"names": [*LOCAL, *uri(SHOP)], "common": "x"}, SHOP),
        ("cn", {"names": uri(SHOP), "common": "x"}, SHOP),
        ("cn", {"common": "billing service"}, "cert:billing service"),
        ("cn", {"names": uri("https://example.org/x"), "common": "b"}, "cert:b"),
        ("spiffe", {"common": "x"}, None),
        ("spiffe", {"names": LOCAL}, None),
        ("cn", {"names": LOCAL}, None),
        ("spiffe", {"names": uri(SHOP, "spiffe://example.org/other")}, None),
        ("cn", {"names": uri(SHOP, "https://example.org"), "common": "x"}, None),
        ("cn", {"names": uri("spiffe://example.org"), "common": "x"}, None),
        ("spiffe", {"names": uri("spiffe://example.org/a/../b")}, None),
        ("spiffe", {"names": uri("spiffe://example.org/a?x=1")}, None),
        ("spiffe", {"names": uri("SPIFFE://example.org/a")}, None),
        ("spiffe", {"names": uri("spiffe://example.org/" + "a" * 600)}, None),
        ("cn", {"common": "two\nlines"}, None),
    ],
)
def test_who_it_names(authority: Authority, subject: Any, made: Any, name: str | None) -> None:
    rules = CertificateRules.read(subject=subject, scopes="", tenants="")
    certificate, _ = authority.made(**made)
    if name is None:
        with pytest.raises(CertificateUnfit):
            rules.identity(der(certificate))
        return
    identity, left = rules.identity(der(certificate))
    assert (identity.subject, identity.tenant, list(identity.scopes)) == (name, "", [])
    lasts = certificate.not_valid_after_utc - datetime.now(UTC)
    assert left == pytest.approx(lasts.total_seconds(), abs=30)


def test_an_edge_is_nobody_that_calls(authority: Authority) -> None:
    rules = CertificateRules.read(
        subject="cn", scopes="", tenants="", edges="spiffe://*/part/edge, cert:front"
    )

    def found(**made: Any) -> str | None:
        identity, left = rules.identity(der(authority.made(**made)[0]))
        assert left > 0
        return None if identity is None else identity.subject

    assert found(names=uri("spiffe://weft.local/part/edge")) is None
    assert found(common="front") is None
    for other in ("spiffe://weft.local/part/gateway", "spiffe://weft.local/part/edge/more"):
        assert found(names=uri(other)) == other
    expired, _ = authority.made(common="front", ends=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(CertificateExpired):
        rules.identity(der(expired))


def test_scopes_and_tenants_by_pattern(authority: Authority) -> None:
    rules = CertificateRules.read(
        subject="cn",
        scopes="spiffe://example.org/shop/*=a.read a.write, spiffe://*/web=b.read, cert:web=c.read",
        tenants="spiffe://example.org/*=example, cert:*=house",
    )

    def found(**made: Any) -> tuple[list[str], str]:
        identity, _ = rules.identity(der(authority.made(**made)[0]))
        return list(identity.scopes), identity.tenant

    assert found(names=uri(SHOP)) == (["a.read", "a.write", "b.read"], "example")
    assert found(names=uri("spiffe://example.org/shopping/x")) == ([], "example")
    assert found(common="web") == (["c.read"], "house")
    assert found(common="spiffe://example.org/shop/x") == ([], "house")
    with pytest.raises(CertificateUnfit, match="tenant"):
        found(names=uri("spiffe://example.orgs/shop/web"))
    with pytest.raises(CertificateExpired):
        found(names=uri(SHOP), ends=NOW - timedelta(seconds=1))
    with pytest.raises(CertificateUnfit):
        rules.identity(b"no certificate")


@pytest.mark.parametrize("text", ["shop=a", "spiffe://x/y", "spiffe://x/y=", "=a"])
def test_rules_that_are_none(text: str) -> None:
    for given in ({"scopes": text, "tenants": ""}, {"scopes": "", "tenants": text}):
        with pytest.raises(ValueError, match="is not like"):
            CertificateRules.read(subject="spiffe", **given)


# At the listeners


class Doors:
    """A gateway with TLS, and clients with certificates."""

    def __init__(self, mesh: Mesh, authority: Authority) -> None:
        self.mesh = mesh
        self._authority = authority

    def context(self, files: tuple[Path, Path] | None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(self._authority.path))
        if files is not None:
            made.load_cert_chain(*files)
        return made

    def http(self, files: tuple[Path, Path] | None = None) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.mesh.gateway.url, verify=self.context(files), timeout=20
        )

    async def by_http(self, files: tuple[Path, Path] | None, **headers: str) -> str:
        async with self.http(files) as http:
            answer = await http.post(SAY, json={}, headers=headers)
        return answer.json()["caller"] if answer.status_code == 200 else answer.text

    async def by_websocket(self, files: tuple[Path, Path] | None) -> str:
        url = f"wss{self.mesh.gateway.url.removeprefix('https')}/ws{SAY}"
        async with connect(url, ssl=self.context(files)) as socket:
            await socket.send("{}")
            return str(await socket.recv())

    async def by_grpc(self, files: tuple[Path, Path] | None, *metadata: tuple[str, str]) -> str:
        certificate, key = (path.read_bytes() for path in files) if files else (None, None)
        credentials = grpc.ssl_channel_credentials(
            self._authority.path.read_bytes(), key, certificate
        )
        async with grpc.aio.secure_channel(self.mesh.gateway.grpc_address, credentials) as channel:
            say = channel.unary_unary(SAY, response_deserializer=echo_pb2.SayResponse.FromString)
            try:
                return str((await say(b"", metadata=metadata, timeout=20)).caller)
            except grpc.aio.AioRpcError as failed:
                return f"{failed.code().name} {rpc.error_from_call(failed).reason}"


@contextlib.asynccontextmanager
async def serving(
    database_url: str, authority: Authority, caller: tuple[Path, Path], **further: Any
) -> AsyncIterator[Doors]:
    certificate, key = authority.files("gateway", names=LOCAL, common="gateway")
    tls = TlsSettings(
        certificate=certificate,
        key=key,
        client_ca=authority.path,
        client=further.pop("client", "required"),
    )
    rules = CertificateRules.read(
        subject="spiffe", scopes="spiffe://example.org/shop/*=gateway.admin", tenants=""
    )
    async with running(
        database_url, tls=tls, certificates=rules, auth=further.pop("auth", "on"), **further
    ) as mesh:
        doors = Doors(mesh, authority)
        async with doors.http(caller) as http:
            await routed(http, further.pop("headers", None))
        yield doors


async def test_a_certificate_says_who_calls(
    fresh_xds: None, database_url: str, authority: Authority, tmp_path: Path
) -> None:
    shop = authority.files("shop", names=uri(SHOP))
    other = authority.files("other", names=uri("spiffe://example.org/other"))
    nobody = authority.files("nobody", common="nobody")
    (tmp_path / "else").mkdir()
    stranger = Authority(tmp_path / "else", "stranger").files("stranger", names=uri(SHOP))
    async with (
        serving(database_url, authority, shop, hsts=timedelta(days=365)) as doors,
        await Database.connect(database_url, schema="gateway") as database,
    ):
        assert doors.mesh.gateway.url.startswith("https://")
        assert await doors.by_http(shop) == SHOP
        assert await doors.by_grpc(shop) == SHOP
        assert f'"caller":"{SHOP}"' in (await doors.by_websocket(shop)).replace(" ", "")
        assert "CERTIFICATE_UNFIT" in await doors.by_http(nobody)
        assert await doors.by_grpc(nobody) == "UNAUTHENTICATED CERTIFICATE_UNFIT"
        # Whoever has none, or one of another authority, comes no further than the handshake.
        for files in (None, stranger):
            with pytest.raises((httpx.HTTPError, ssl.SSLError)):
                await doors.by_http(files)
            assert (await doors.by_grpc(files)).startswith("UNAVAILABLE")
        with pytest.raises((httpx.HTTPError, OSError)):
            async with httpx.AsyncClient() as plain:
                await plain.get(doors.mesh.gateway.url.replace("https", "http"))
        # No header makes anybody another.
        for name in ("x-forwarded-client-cert", "certificate", "x-ssl-client-cert"):
            given = {name: f"URI={SHOP}"}
            assert await doors.by_http(other, **given) == "spiffe://example.org/other"
        # A key says more than the connection that it came by, and is verified.
        database.load("weft.gateway.sql")
        key = await KeyStore(database).create("x")
        assert await doors.by_http(shop, **{"x-api-key": key.text}) == f"key:{key.key.id}"
        assert await doors.by_grpc(shop, ("x-api-key", key.text)) == f"key:{key.key.id}"
        assert "KEY_MALFORMED" in await doors.by_http(shop, authorization="Bearer x")
        # Scopes by the subject.
        for files, status in ((shop, 200), (other, 403)):
            async with doors.http(files) as http:
                answer = await http.get("/breakers")
                assert answer.status_code == status
                assert answer.headers["strict-transport-security"] == "max-age=31536000"


async def test_a_certificate_is_optional(
    fresh_xds: None, database_url: str, authority: Authority
) -> None:
    shop = authority.files("shop", names=uri(SHOP))
    async with serving(database_url, authority, shop, client="optional") as doors:
        assert await doors.by_http(shop) == SHOP
        assert "KEY_MISSING" in await doors.by_http(None)
        # Servers of gRPC cannot ask without requiring.
        assert await doors.by_grpc(shop) == "UNAUTHENTICATED KEY_MISSING"


async def test_new_certificates_are_taken_while_it_runs(
    fresh_xds: None, database_url: str, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    new = Authority(tmp_path / "new", "new")
    shop = authority.files("shop", names=uri(SHOP))
    later = new.files("later", names=uri("spiffe://example.org/later"))
    async with serving(database_url, authority, shop) as doors:
        tls = doors.mesh.gateway._tls
        assert tls is not None
        async with doors.http(shop) as before:
            assert (await before.get("/healthz")).status_code == 200
            (tmp_path / "gateway.crt").write_bytes(b"half")
            await asyncio.to_thread(tls.look)
            assert await doors.by_http(shop) == SHOP
            made = new.files("gateway", names=LOCAL)
            made[1].replace(tmp_path / "gateway.key")
            made[0].replace(tmp_path / "gateway.crt")
            authority.path.write_bytes(new.path.read_bytes())
            await asyncio.to_thread(tls.look)
            # Who is connected stays so.
            assert (await before.get("/healthz")).status_code == 200
        assert await doors.by_http(later) == "spiffe://example.org/later"
        assert await doors.by_grpc(later) == "spiffe://example.org/later"
        with pytest.raises((httpx.HTTPError, ssl.SSLError)):
            await doors.by_http(shop)
        assert (await doors.by_grpc(shop)).startswith("UNAVAILABLE")


def test_certificates_that_cannot_be_used(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.files("a", names=LOCAL)
    other, _ = authority.files("b", names=LOCAL)
    for given in ((tmp_path / "none", key), (other, key), (key, key)):
        with pytest.raises(ValueError, match="certificates of the gateway"):
            Tls(TlsSettings(certificate=given[0], key=given[1]))
    Tls(TlsSettings(certificate=certificate, key=key))
