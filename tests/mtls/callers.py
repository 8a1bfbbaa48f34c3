"""Callers that are no members of a mesh, and how they fare."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.certificates import TRUST_DOMAIN, Certificates

from weft import mtls

_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"


class Caller:
    """Somebody who comes without what it takes.

    Args:
        certificates: of the mesh.
        foreign: of another authority.
        kind: one of OUTSIDERS.
    """

    OUTSIDERS: ClassVar = ("plaintext", "no certificate", "foreign", "expired")

    def __init__(self, certificates: Certificates, foreign: Certificates, kind: str) -> None:
        self.kind = kind
        self.ca = certificates.authority.bundle.read_bytes()
        who = mtls.client_id(TRUST_DOMAIN, "ann")
        authority = foreign.authority if kind == "foreign" else certificates.authority
        life = timedelta(seconds=-1) if kind == "expired" else timedelta(hours=1)
        self.leaf = (
            None if kind in {"plaintext", "no certificate"} else authority.issue(who, life=life)
        )

    def channel(self, address: str, part: str) -> grpc.aio.Channel:
        if self.kind == "plaintext":
            return grpc.aio.insecure_channel(address)
        key, chain = (self.leaf.key, self.leaf.certificate) if self.leaf else (None, None)
        credentials = grpc.ssl_channel_credentials(self.ca, key, chain)
        name = mtls.part_name(TRUST_DOMAIN, part)
        options = (("grpc.ssl_target_name_override", name),)
        return grpc.aio.secure_channel(address, credentials, options=options)

    def context(self, folder: Path) -> ssl.SSLContext | None:
        if self.kind == "plaintext":
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.ca.decode())
        context.set_alpn_protocols(["h2"])
        if self.leaf:
            (folder / "c").write_bytes(self.leaf.certificate)
            (folder / "k").write_bytes(self.leaf.key)
            context.load_cert_chain(folder / "c", folder / "k")
        return context


async def refused(caller: Caller, address: str, part: str, folder: Path) -> None:
    """Sees that a caller gets nothing: neither a real gRPC client, nor whoever speaks TLS and HTTP/2 by hand."""
    async with caller.channel(address, part) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await check(health_pb2.HealthCheckRequest(), timeout=5)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not await answered(caller, address, folder), f"{caller.kind} was let in"


async def answered(caller: Caller, address: str, folder: Path) -> bytes:
    """What a server says in HTTP/2, after the handshake."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(
                host, int(port), ssl=caller.context(folder)
            )
            try:
                writer.write(_HELLO)
                # By TLS 1.3 a client learns of its refusal when it reads.
                return await reader.read(100)
            finally:
                writer.transport.abort()
    except (ConnectionError, ssl.SSLError):
        return b""
