"""The files a process has its certificate from, read and checked."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from weft.mtls.ids import SpiffeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """PEM files, as cert-manager, SPIFFE helpers, Vault and `weft certificates` write them."""

    certificate: Path
    """The certificate, with those between it and its root."""
    key: Path
    ca: Path
    """The roots to believe."""

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Differs when a file was changed or replaced."""
        found = []
        for path in (self.certificate, self.key, self.ca):
            try:
                of = path.stat()
            except OSError:  # said when it is read
                found.append((0, 0, 0))
            else:
                found.append((of.st_ino, of.st_mtime_ns, of.st_size))
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What the files held when they were read, and belongs together."""

    who: SpiffeId
    certificate: bytes
    key: bytes
    ca: bytes
    begins: datetime
    ends: datetime
    issued_by_own: bool
    """Whether a root of `ca` signed the certificate; those who believe the same roots refuse it if not."""
    context: ssl.SSLContext
    """For connections to servers; whose certificate they show is to be checked by `check_server`."""


def load(files: Files) -> Loaded:
    """Reads the files.

    Raises:
        ValueError: one cannot be read, they do not belong together, or the certificate cannot be used.
    """
    try:
        certificate, key, ca = (
            path.read_bytes() for path in (files.certificate, files.key, files.ca)
        )
    except OSError as failed:
        raise ValueError(f"{failed.filename}: {failed.strerror}") from failed
    chain = _chain(certificate, files.certificate)
    roots = _chain(ca, files.ca)
    leaf = chain[0]
    try:
        private: PrivateKeyTypes = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as failed:
        raise ValueError(f"{files.key}: no private key can be read") from failed
    if _public(private.public_key()) != _public(leaf.public_key()):
        raise ValueError(f"{files.key} is not the key of {files.certificate}")
    who = spiffe_id(leaf, str(files.certificate))
    if leaf.not_valid_after_utc <= datetime.now(UTC):
        raise ValueError(
            f"{files.certificate} has expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; issue it anew"
        )
    return Loaded(
        who=who,
        certificate=certificate,
        key=key,
        ca=ca,
        begins=leaf.not_valid_before_utc,
        ends=leaf.not_valid_after_utc,
        issued_by_own=any(_signed(each, root) for each in chain for root in roots),
        context=_context(files, ca),
    )


def spiffe_id(leaf: x509.Certificate, name: str) -> SpiffeId:
    """The id in a certificate (X.509-SVID, 2 and 5.2).

    Raises:
        ValueError: it has none, several, or may sign others.
    """
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    if len(uris) != 1:
        raise ValueError(
            f"{name} must name one SPIFFE id, such as spiffe://weft.local/agent/greeter; it names {len(uris)}"
        )
    try:
        constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    if constraints.ca:
        raise ValueError(f"{name} is the certificate of an authority, and none of a process")
    return SpiffeId.parse(uris[0])


def _chain(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as failed:
        raise ValueError(f"{path}: no certificate can be read") from failed


def _public(key: object) -> bytes:
    found: bytes = key.public_bytes(  # type: ignore[attr-defined]  # every kind of key has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found


def _signed(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _context(files: Files, ca: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # the SPIFFE id is checked instead
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(cadata=ca.decode())
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ssl.SSLError, UnicodeDecodeError) as failed:
        raise ValueError(f"{files.certificate}: {failed}") from failed
    return context
