"""An own certificate authority, small enough for one machine: a root that signs certificates of a day.

Its folder holds `authority.pem`, the root and its key, for its owner's eyes alone, and `bundle.pem`, the roots that the
mesh believes: this one, and those it followed as long as certificates of theirs may be about.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from weft.mtls.ids import SpiffeId, check_trust_domain

LIFE = timedelta(hours=24)
_ROOT_LIFE = timedelta(days=3_650)
_EARLIER = timedelta(minutes=5)  # by which clocks may differ
_AUTHORITY, _BUNDLE = "authority.pem", "bundle.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs certificates for one trust domain.

    Attributes:
        trust_domain: which.
        bundle: file with the roots to believe.
    """

    def __init__(
        self, folder: Path, root: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self.trust_domain = _trust_domain(root)
        self.bundle = folder / _BUNDLE
        self.root = root
        self._key = key

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The authority of a folder.

        Raises:
            ValueError: there is none, or it cannot be read.
        """
        path = folder / _AUTHORITY
        try:
            pem = path.read_bytes()
            key = serialization.load_pem_private_key(pem, password=None)
            root = x509.load_pem_x509_certificate(pem)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError("not an elliptic curve key")  # noqa: TRY004, TRY301 the value is wrong
            return cls(folder, root, key)
        except FileNotFoundError:
            raise ValueError(
                f"there is no certificate authority in {folder}; make one: weft certificates init"
            ) from None
        except (OSError, ValueError, TypeError) as failed:
            raise ValueError(f"{path}: {failed}") from failed

    @classmethod
    def made(cls, folder: Path, trust_domain: str) -> Self:
        """The same; where there is none it is made. Several processes may do so at once.

        Raises:
            ValueError: it cannot be made, or there is one of another trust domain.
        """
        check_trust_domain(trust_domain)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (folder / _AUTHORITY).exists():
                new = folder / f".{_AUTHORITY}.{secrets.token_hex(8)}"
                _write(new, _new_root(trust_domain), 0o600)
                with contextlib.suppress(FileExistsError):  # another process was quicker
                    os.link(new, folder / _AUTHORITY)
                new.unlink()
            found = cls.load(folder)
            if not found.bundle.exists():
                found.publish([found.root])
        except OSError as failed:
            raise ValueError(f"{folder}: {failed.strerror or failed}") from failed
        if found.trust_domain != trust_domain:
            raise ValueError(
                f"the authority in {folder} is of the trust domain {found.trust_domain}, not {trust_domain}"
            )
        return found

    def rotated(self) -> Authority:
        """An authority with a new root, that signs from now on. The old root is believed until it expires."""
        folder = self.bundle.parent
        pem = _new_root(self.trust_domain)
        root = x509.load_pem_x509_certificate(pem)
        # Believed before it signs.
        self.publish([root, *self.believed()])
        _write(folder / _AUTHORITY, pem, 0o600)
        return Authority.load(folder)

    def forget(self) -> int:
        """Believes no root but the present one; how many were forgotten."""
        before = len(self.believed())
        self.publish([self.root])
        return before - 1

    def believed(self) -> list[x509.Certificate]:
        """The roots of the bundle, the newest first."""
        now = datetime.now(UTC)
        found = x509.load_pem_x509_certificates(self.bundle.read_bytes())
        return [root for root in found if root.not_valid_after_utc > now]

    def publish(self, roots: Iterable[x509.Certificate]) -> None:
        """Writes the bundle."""
        _write(self.bundle, b"".join(_pem(root) for root in roots), 0o644)

    def issue(self, who: SpiffeId, *, names: Iterable[str] = (), life: timedelta = LIFE) -> Leaf:
        """A certificate, for servers and clients.

        Args:
            who: its SPIFFE id.
            names: DNS names and IP addresses by which ordinary TLS clients reach it.
            life: how long it lives.

        Raises:
            ValueError: the id is of another trust domain, or a name is none.
        """
        if who.trust_domain != self.trust_domain:
            raise ValueError(f"{who} is not of the trust domain {self.trust_domain}")
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        ends = min(now + life, self.root.not_valid_after_utc)
        alternatives = [x509.UniformResourceIdentifier(str(who)), *map(_name, names)]
        signed = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _EARLIER)
            .not_valid_after(ends)
            # Critical where there is no subject (RFC 5280, 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signature=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return Leaf(certificate=_pem(signed), key=_key_pem(key))


def _new_root(trust_domain: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    # The number tells roots apart that follow each other.
    text = f"Weft {trust_domain} {secrets.token_hex(4)}"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[-64:])])
    now = datetime.now(UTC)
    root = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + _ROOT_LIFE)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(root) + _key_pem(key)


def _usage(*, signature: bool = False, signs: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signature,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _trust_domain(root: x509.Certificate) -> str:
    try:
        names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        raise ValueError("its root names no trust domain, such as spiffe://weft.local") from None
    return uri.removeprefix("spiffe://")


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replaces a file, as a whole or not at all."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
