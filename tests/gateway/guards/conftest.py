"""A clock to wind, and an identity provider that is real: keys of three kinds, tokens, a JWKS over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from weft.gateway.guards.tokens import TokenSettings

ISSUER = "https://idp.example"
AUDIENCE = "weft"
# Making one takes its time, and nothing hangs on which it is.
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Clock:
    """A clock that a test winds; seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Issuer:
    """An identity provider.

    Attributes:
        keys: private keys by id; each id's algorithm is that of its key.
        document: what is served as the set; None: the public halves of `keys`.
        status: HTTP status of answers.
        fetches: how often the set was asked for.
        gate: answers wait for it.
    """

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {
            "rsa": RSA_KEY,
            "ec": ec.generate_private_key(ec.SECP256R1()),
            "ed": ed25519.Ed25519PrivateKey.generate(),
        }
        self.document: bytes | None = None
        self.status = 200
        self.headers = ""
        self.fetches = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""

    def token(
        self, kid: str = "ed", *, head: Mapping[str, Any] | None = None, **claims: Any
    ) -> str:
        """A token that is good for an hour, of user ann; a claim given as None is left out."""
        now = int(time.time())
        given = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ann",
            "iat": now,
            "exp": now + 3600,
            **claims,
        }
        kept = {name: value for name, value in given.items() if value is not None}
        key = self.keys[kid]
        return jwt.encode(kept, key, algorithm_of(key), headers={"kid": kid, **(head or {})})

    def jwks(self) -> list[dict[str, Any]]:
        return [public_jwk(key, kid=kid) for kid, key in self.keys.items()]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.fetches += 1
                await self.gate.wait()
                body = self.document
                if body is None:
                    body = json.dumps({"keys": self.jwks()}).encode()
                head = f"HTTP/1.1 {self.status} X\r\n{self.headers}content-length: {len(body)}\r\n"
                writer.write(f"{head}\r\n".encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def rules(self, **further: Any) -> TokenSettings:
        return TokenSettings(
            **{"issuer": ISSUER, "audience": (AUDIENCE,), "keys_url": self.url, **further}
        )


def algorithm_of(key: Any) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256"
    return "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "EdDSA"


def public_jwk(key: Any, **members: Any) -> dict[str, Any]:
    algorithm = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
    made = algorithm[algorithm_of(key)].to_jwk(key.public_key(), as_dict=True)
    return {**made, **members}


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    made = Issuer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
    yield made
    made.gate.set()
    server.close()


@pytest.fixture(name="public_jwk")
def made_public_jwk() -> Any:
    return public_jwk
