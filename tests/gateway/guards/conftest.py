"""A clock to wind, and an identity provider that is real: keys of three kinds, tokens, a JWKS over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc_tools
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
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


@contextlib.asynccontextmanager
async def issuing() -> AsyncIterator[Issuer]:
    made = Issuer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
    try:
        yield made
    finally:
        made.gate.set()
        server.close()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing() as made:
        yield made


@pytest.fixture
def issuer_rules() -> Any:
    """Begins to serve an identity provider, in a loop of the test's own."""
    return issuing


def _generated(name: str, out: Path) -> tuple[ModuleType, ModuleType]:
    """The generated modules of a contract beside this file."""
    google = importlib.metadata.distribution("googleapis-common-protos").locate_file("")
    builtin = Path(grpc_tools.__file__).parent / "_proto"
    options = importlib.util.find_spec("weft.v1.options_pb2")
    assert options is not None
    assert options.origin is not None
    proto = Path(options.origin).parents[2]
    includes = [f"-I{path}" for path in (Path(__file__).parent, proto, google, builtin)]
    arguments = [*includes, f"--python_out={out}", f"--grpc_python_out={out}", f"{name}.proto"]
    assert protoc.main(["protoc", *arguments]) == 0
    modules = []
    for each in (f"{name}_pb2", f"{name}_pb2_grpc"):
        spec = importlib.util.spec_from_file_location(each, out / f"{each}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[each] = module
        spec.loader.exec_module(module)
        modules.append(module)
    return modules[0], modules[1]


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, ModuleType]:
    """The generated modules of shop.proto."""
    return _generated("shop", tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, ModuleType]:
    """The generated modules of vault.proto."""
    return _generated("vault", tmp_path_factory.mktemp("vault"))


@pytest.fixture(scope="session")
def shop_set(shop: tuple[ModuleType, ModuleType]) -> bytes:
    """Its descriptor set."""
    found = descriptor_pb2.FileDescriptorSet()
    seen: set[str] = set()

    def add(file: Any) -> None:
        if file.name not in seen:
            seen.add(file.name)
            for needed in file.dependencies:
                add(needed)
            file.CopyToProto(found.file.add())

    add(shop[0].DESCRIPTOR)
    return found.SerializeToString()


@pytest.fixture(name="public_jwk")
def made_public_jwk() -> Any:
    return public_jwk
