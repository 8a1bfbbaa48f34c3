"""API keys: their form, what is known of one, and why one is refused.

A key is `weft_<id>_<secret>`: an id of 12 base32 characters that may be shown and logged, and a secret of
256 random bits in URL-safe base64 that is shown once, at creation, and kept nowhere.

Stored is the SHA-256 of the secret. A slow or salted derivation (argon2, bcrypt) makes guessing a secret
that a person chose expensive; a key of 256 random bits cannot be guessed or tabled at any speed, and a slow
one would only give every caller a way to burn the gateway's CPU.

What a refusal tells:
- KEY_MISSING and KEY_MALFORMED say nothing but what the caller sent;
- KEY_UNKNOWN is all that a caller learns who does not hold the secret: an id that does not exist, one that
  does with another secret, and a revoked or expired one with another secret answer alike, in the same time;
- KEY_REVOKED and KEY_EXPIRED are told to whoever holds the right secret, since it tells the owner what to
  do, and nobody else anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from weft import rpc

_FORM = re.compile(r"weft_([a-z2-7]{12})_([A-Za-z0-9_-]{43,128})")
_BEARER = re.compile(rb"(?i:bearer) +([^ ]+)")
_ID_BYTES = 8  # 13 base32 characters, of which 12 are used: 60 bits
_SECRET_BYTES = 32


class KeyMissing(rpc.Unauthenticated):
    """Give an API key: `Authorization: Bearer weft_...` or `x-api-key: weft_...`."""

    reason = "KEY_MISSING"


class KeyMalformed(rpc.Unauthenticated):
    """This is not an API key; one looks like weft_<id>_<secret>."""

    reason = "KEY_MALFORMED"


class KeyUnknown(rpc.Unauthenticated):
    """There is no such API key."""

    reason = "KEY_UNKNOWN"


class KeyRevoked(rpc.Unauthenticated):
    """This API key was revoked."""

    reason = "KEY_REVOKED"


class KeyExpired(rpc.Unauthenticated):
    """This API key has expired."""

    reason = "KEY_EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is known of a key, without its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    """None: never."""
    revoked_at: datetime | None
    """None: it is valid."""
    tenant: str = ""
    """Organisation that it belongs to; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key just created: the only time its text is known."""

    key: ApiKey
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """A key as a caller presented it, well-formed and not yet verified."""

    id: str
    secret_hash: bytes = field(repr=False)


def generate() -> tuple[str, str]:
    """A new key's id and its whole text."""
    key_id = base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode("ascii").lower()[:12]
    return key_id, f"weft_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def parse(text: str) -> Presented:
    """Reads a key.

    Raises:
        KeyMalformed: it does not have the form of one.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise KeyMalformed
    return Presented(id=match[1], secret_hash=hashlib.sha256(match[2].encode("ascii")).digest())


def credential(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The credential in these headers (ASGI: lower-case names): `authorization: Bearer` or `x-api-key`.

    An `authorization` of another scheme is somebody else's (a proxy's) as long as `x-api-key` is there.

    Raises:
        KeyMissing: there is neither.
        KeyMalformed: what is there is of another scheme, or there are two different ones.
    """
    found: bytes | None = None
    foreign = False
    for name, value in headers:
        if name == b"x-api-key":
            given = value.strip()
        elif name == b"authorization":
            match = _BEARER.fullmatch(value.strip())
            if match is None:
                foreign = True
                continue
            given = match[1]
        else:
            continue
        if found is not None and found != given:
            raise KeyMalformed("The request carries two different credentials.")
        found = given
    if found is None:
        raise KeyMalformed if foreign else KeyMissing
    return found.decode("latin-1")


def named_in(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Id of the key in these headers, which may be no good; empty: there is none of the form of a key."""
    try:
        return presented(headers).id
    except rpc.Unauthenticated:
        return ""


def presented(headers: Iterable[tuple[bytes, bytes]]) -> Presented:
    """The key in these headers; see `credential`.

    Raises:
        KeyMissing: there is none.
        KeyMalformed: what is there is not a key, or there are two different ones.
    """
    return parse(credential(headers))
