"""TLS of both listeners: one certificate, one list of authorities for callers, both followed as their files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc
from cryptography import x509

log = logging.getLogger("weft.gateway")

_LOOKED = 5.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Certificates, as PEM files.

    Raises:
        ValueError: one of certificate and key is missing.
    """

    certificate: Path
    """The gateway's, with those between it and its authority."""
    key: Path
    client_ca: Path | None = None
    """Authorities whose certificates callers may bring; None: none are asked for."""
    client: Literal["required", "optional"] = "required"
    """Whether a caller must bring one. Where it is optional, gRPC asks for none: its servers can only require them."""


class Tls:
    """What listeners need, kept up to date. New connections get what the files hold then.

    Args:
        settings: where the files are.

    Raises:
        ValueError: they cannot be used.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._seen = self._stamp()
        try:
            self._current = self._context()
            self._pem = self._read()
        except (OSError, ssl.SSLError) as failed:
            raise ValueError(f"certificates of the gateway: {failed}") from failed
        self.context = self._current
        # A new connection is told of the newest context as soon as it says whom it calls, or that it does not say.
        self.context.sni_callback = self._renew

    @property
    def expires(self) -> float:
        """When the certificate ends, in seconds since 1970."""
        _, certificate, _ = self._pem
        return x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp()

    @property
    def asks_by_grpc(self) -> bool:
        """Whether callers of gRPC must bring a certificate."""
        return self._settings.client_ca is not None and self._settings.client == "required"

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For a gRPC server."""
        told = self._pem

        def fetch() -> Any:
            nonlocal told
            if told is self._pem:
                return None  # as before
            told = self._pem
            return self._grpc_configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._grpc_configuration(), fetch, require_client_authentication=self.asks_by_grpc
        )

    async def run(self) -> None:
        """Follows the files, for ever; for a task of its own. What cannot be used leaves things as they were."""
        while True:
            await asyncio.sleep(_LOOKED)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Takes what the files hold now, if they changed."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        try:
            context, pem = self._context(), self._read()
        except (OSError, ssl.SSLError) as failed:
            # Half written perhaps: it is looked at again.
            log.warning("new certificates cannot be used", extra={"cause": str(failed)})
            return
        self._seen, self._current, self._pem = stamp, context, pem
        log.info("certificates renewed")

    def _renew(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        del name
        if context is not self._current:
            connection.context = self._current

    def _context(self) -> ssl.SSLContext:
        settings = self._settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(settings.certificate, settings.key)
        if settings.client_ca is not None:
            context.load_verify_locations(settings.client_ca)
            required = settings.client == "required"
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        return context

    def _read(self) -> tuple[bytes, bytes, bytes | None]:
        settings = self._settings
        ca = settings.client_ca.read_bytes() if settings.client_ca is not None else None
        return settings.key.read_bytes(), settings.certificate.read_bytes(), ca

    def _grpc_configuration(self) -> Any:
        key, certificate, ca = self._pem
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=ca if self.asks_by_grpc else None
        )

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        settings = self._settings
        found = []
        for path in filter(None, (settings.certificate, settings.key, settings.client_ca)):
            try:
                of = path.stat()
            except OSError:  # said when it is read
                found.append((0, 0, 0))
            else:
                found.append((of.st_ino, of.st_mtime_ns, of.st_size))
        return tuple(found)
