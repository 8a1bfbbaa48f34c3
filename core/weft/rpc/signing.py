"""Signed identities: who signs them, who believes them, and in what form.

The door that authenticated a caller signs its Identity with an Ed25519 key of its own; agents have the public half.
A secret that all share (an HMAC) would be fewer lines, but whoever can check it can make it: every agent could speak in
anybody's name. The price of the asymmetric signature, some 50 us to make and 130 us to check, is paid once per
caller and minute, for both sides remember.

What is signed is not the serialized message, of which there are many, but

    "weft identity 1" NUL, then subject, display_name, tenant, issuer: each its length in bytes (4 bytes, big-endian)
    and its UTF-8; the number of scopes (4 bytes) and the scopes likewise; expire_time as seconds (8 bytes) and
    nanoseconds (4 bytes) since 1970; all_scopes as one byte

so a signature survives any re-encoding on the way, such as in a durable message.

A signed identity is a bearer token: an agent that was called with one can show it again, unchanged, until it
expires. It cannot make one, nor add to one.
"""

from __future__ import annotations

import base64
import binascii
import functools
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf.message import DecodeError

from weft.rpc.call import IDENTITY_KEY, Call
from weft.rpc.errors import Unauthenticated
from weft.v1.identity_pb2 import Identity

# Says, from a process to itself, when the broker accepted the message that a call is.
ACCEPTED_KEY = "weft-accepted-bin"

LIFETIME = timedelta(hours=1)
_STEP = 60  # seconds: identities signed within one are equal byte for byte, and remembered as one
_LEEWAY = 30.0  # seconds by which the clocks of door and agent may differ
_CONTEXT = b"weft identity 1\0"
_REMEMBERED = 4096
_VOUCHER_BYTES = 32


class IdentityNotTrusted(Unauthenticated):
    """The identity of this call is signed by nobody whom this agent trusts."""

    reason = "IDENTITY_NOT_TRUSTED"


class IdentityExpired(Unauthenticated):
    """The identity of this call has expired."""

    reason = "IDENTITY_EXPIRED"


class Signer:
    """Signs identities.

    Args:
        key: of this door.
        lifetime: how long, at least, agents believe what it signs. It must be longer than any call that is let in.
        now: seconds since 1970.
    """

    def __init__(
        self,
        key: Ed25519PrivateKey,
        *,
        lifetime: timedelta = LIFETIME,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._lifetime = lifetime.total_seconds()
        self._now = now
        self._sign = functools.lru_cache(_REMEMBERED)(key.sign)
        raw = key.public_key().public_bytes_raw()
        self.public = base64.b64encode(raw).decode()
        """The public half, as `Verifier` takes it."""

    @classmethod
    def load(cls, path: Path, *, lifetime: timedelta = LIFETIME) -> Self:
        """The signer whose key is in a PEM file.

        Raises:
            ValueError: there is no such file, or no Ed25519 key in it.
        """
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as failed:
            raise ValueError(f"{path}: no private key can be read: {failed}") from failed
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{path}: not an Ed25519 key")  # noqa: TRY004 the value is wrong
        return cls(key, lifetime=lifetime)

    @classmethod
    def made(cls, path: Path, *, lifetime: timedelta = LIFETIME) -> Self:
        """The same; a new key is written, for its owner's eyes alone, where there is no file yet."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            pem = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
                f.write(pem)
                f.flush()
                os.fsync(f.fileno())
            fresh.rename(path)
        return cls.load(path, lifetime=lifetime)

    def sign(self, identity: Identity) -> Identity:
        """A signed copy of an identity, good for the lifetime and one to two minutes more."""
        signed = Identity()
        signed.CopyFrom(identity)
        # A step more for rounding down, and one for as long as a door remembers what it signed.
        began = self._now() // _STEP * _STEP
        signed.expire_time.FromSeconds(int(began + 2 * _STEP + self._lifetime))
        signed.signature = self._sign(_statement(signed))
        return signed

    def sign_statement(self, statement: bytes) -> bytes:
        """The signature of something else, such as a JWS.

        Raises:
            ValueError: it could be taken for an identity.
        """
        if statement.startswith(_CONTEXT):
            raise ValueError("this is for identities")
        return self._sign(statement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What an identity that was verified may do."""

    scopes: frozenset[str] = frozenset()
    everything: bool = False
    expires: float = 0.0
    """Seconds since 1970."""


NOBODY = Granted()


class Verifier:
    """Believes identities that are signed by a key it trusts.

    Args:
        trusted: public keys, as `Signer.public` or many joined by commas: while a key is replaced there are two.
        now: seconds since 1970.

    Raises:
        ValueError: one is not a public key.
    """

    def __init__(
        self, trusted: str | Iterable[str], *, now: Callable[[], float] = time.time
    ) -> None:
        given = trusted.split(",") if isinstance(trusted, str) else trusted
        self._trusted = [_public(text.strip()) for text in given]
        self._now = now
        self._known: dict[bytes, Granted] = {}
        self._voucher = secrets.token_bytes(_VOUCHER_BYTES)

    def admit(self, call: Call, *, accepted_ms: int | None = None) -> Granted:
        """What the caller may do; nothing that needs a scope where a call names nobody.

        Args:
            call: the call.
            accepted_ms: when the broker accepted the message that it is, in milliseconds since 1970; without it the
                call may bring what `accepted` made of it.

        Raises:
            IdentityNotTrusted: the identity is not signed by a key that is trusted, or was changed.
            IdentityExpired: it has expired.
        """
        raw = call.first(IDENTITY_KEY)
        if raw is None:
            return NOBODY
        granted = self._known.get(raw) if isinstance(raw, bytes) else None
        if granted is None:
            granted = self._verify(raw)
        if granted.expires + _LEEWAY < self._now():
            self._late(call, granted, accepted_ms)
        call.carry_identity_until(granted.expires)
        return granted

    def believes(self, identity: Identity) -> bool:
        """Whether an identity is signed by a key that is trusted, expired or not."""
        statement = _statement(identity)
        return any(_holds(key, identity.signature, statement) for key in self._trusted)

    def accepted(self, publish_time_ms: int) -> tuple[str, bytes]:
        """Metadata by which this process tells itself when a broker accepted the message that a call is.

        A message may wait for days: its identity must have been good when it was sent.
        """
        return ACCEPTED_KEY, self._voucher + struct.pack(">q", publish_time_ms)

    def _late(self, call: Call, granted: Granted, accepted_ms: int | None) -> None:
        """Lets a message pass that was sent in time; raises otherwise."""
        if accepted_ms is None:
            accepted_ms = self._vouched(call.first(ACCEPTED_KEY))
        if accepted_ms is None or granted.expires + _LEEWAY < accepted_ms / 1000:
            raise IdentityExpired

    def _vouched(self, said: str | bytes | None) -> int | None:
        if not isinstance(said, bytes) or len(said) != _VOUCHER_BYTES + 8:
            return None
        if not secrets.compare_digest(said[:_VOUCHER_BYTES], self._voucher):
            return None
        accepted_ms: int = struct.unpack(">q", said[_VOUCHER_BYTES:])[0]
        return accepted_ms

    def _verify(self, raw: str | bytes) -> Granted:
        if not isinstance(raw, bytes):
            raise IdentityNotTrusted
        try:
            identity = Identity.FromString(raw)
        except DecodeError:
            raise IdentityNotTrusted from None
        if not self.believes(identity):
            raise IdentityNotTrusted
        granted = Granted(
            scopes=frozenset(identity.scopes),
            everything=identity.all_scopes,
            expires=identity.expire_time.seconds + identity.expire_time.nanos / 1e9,
        )
        if len(self._known) >= _REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[raw] = granted
        return granted


def _public(text: str) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as failed:
        raise ValueError(f"not a public key in base64: {text!r}: {failed}") from failed


def _holds(key: Ed25519PublicKey, signature: bytes, statement: bytes) -> bool:
    try:
        key.verify(signature, statement)
    except InvalidSignature:
        return False
    return True


def _statement(identity: Identity) -> bytes:
    expiry = identity.expire_time
    parts = [_CONTEXT]
    for text in (identity.subject, identity.display_name, identity.tenant, identity.issuer):
        parts += _sized(text)
    parts.append(struct.pack(">I", len(identity.scopes)))
    for scope in identity.scopes:
        parts += _sized(scope)
    parts.append(struct.pack(">qi?", expiry.seconds, expiry.nanos, identity.all_scopes))
    return b"".join(parts)


def _sized(text: str) -> tuple[bytes, bytes]:
    encoded = text.encode()
    return struct.pack(">I", len(encoded)), encoded
