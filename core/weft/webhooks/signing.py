"""Signatures of webhooks (Standard Webhooks 1.0.0, symmetric: HMAC-SHA256 over "ID.TIMESTAMP.BODY")."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time

_PREFIX = "whsec_"
_LEAST, _MOST = 24, 64  # bytes
_OWN = 32  # bytes


class WrongSecret(ValueError):
    """A secret is "whsec_" and base64 of 24 to 64 bytes."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


def new_secret() -> str:
    """A secret of our own making."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_OWN)).decode()


def parse_secret(text: str) -> bytes:
    """The bytes of a secret.

    Raises:
        WrongSecret: see there. The message does not tell the secret.
    """
    try:
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise WrongSecret from None
    if not text.startswith(_PREFIX) or not _LEAST <= len(secret) <= _MOST:
        raise WrongSecret
    return secret


def sign(secret: bytes, message: str, timestamp: int, body: bytes) -> str:
    """The signature of a body, version 1."""
    signed = b"%s.%d.%s" % (message.encode(), timestamp, body)
    return f"v1,{base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()}"


def headers(
    secret: bytes, message: str, body: bytes, *, now: float | None = None
) -> dict[str, str]:
    """The headers a webhook is sent with."""
    timestamp = int(time.time() if now is None else now)
    return {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secret, message, timestamp, body),
    }
