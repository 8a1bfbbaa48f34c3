"""What benchmarks/doors.py measures REST and server-sent events by.

An agent, a gateway with every guard on, and the least that an HTTP server and a gRPC call cost.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import Any

import gateway_json
import google.rpc
import grpc
import grpc_tools
import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from google.protobuf import json_format
from jwt.algorithms import ECAlgorithm

from weft.agents import Host
from weft.agents.echo import Echo
from weft.gateway import Gateway
from weft.gateway.guards.limit_rules import parse
from weft.gateway.guards.tokens import TokenSettings
from weft.rpc.signing import Signer
from weft.rpc.testing import wait_until
from weft.support.v1 import quality_pb2
from weft.telemetry import Instruments, Telemetry

ISSUER, AUDIENCE, SCOPE = "https://idp.example", "weft", "answers.review"
SERVICE = "benchmarks.v1.GuardedService"
MESSAGES = 100  # of a stream
_HERE = Path(__file__).parent
_LIMITS = "per=identity rate=100000/s"


def prepare(folder: Path) -> str:
    """Compiles the contract and makes the keys of tokens; returns a token."""
    googleapis = Path(next(iter(google.rpc.__path__))).parents[1]
    includes = (_HERE, _HERE.parent / "proto", googleapis, resources.files(grpc_tools) / "_proto")
    common = (sys.executable, "-m", "grpc_tools.protoc", *(f"-I{each}" for each in includes))
    out = (f"--python_out={folder}", f"--grpc_python_out={folder}")
    together = (f"--descriptor_set_out={folder / 'all.pb'}", "--include_imports")
    subprocess.run([*common, *out, *together, "guarded.proto"], check=True)
    key = ec.generate_private_key(ec.SECP256R1())
    public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    keys = {"keys": [{**public, "kid": "k", "alg": "ES256", "use": "sig"}]}
    (folder / "jwks.json").write_text(json.dumps(keys))
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "scope": f"answers.read {SCOPE}",
        "iat": int(time.time()),
        "exp": int(time.time()) + 7200,
    }
    return jwt.encode(claims, key, "ES256", headers={"kid": "k"})


async def serve_keys(folder: str) -> None:
    """Serves the keys of tokens."""
    body = (Path(folder) / "jwks.json").read_bytes()
    await _serve_bare(lambda _: body)


async def serve_agent(registry: str, folder: str) -> None:
    """The agent behind every server: answers are made before anybody asks."""
    sys.path.insert(0, folder)
    importlib.import_module("guarded_pb2")  # it has no messages, so the services' module does not
    services: Any = importlib.import_module("guarded_pb2_grpc")
    answer = gateway_json.response()

    class Guarded(services.GuardedServiceServicer):  # type: ignore[misc]
        async def Review(self, request: Any, context: Any) -> quality_pb2.ReviewResponse:  # noqa: ARG002
            return answer

        File = Known = Review

    async with Host(registry=registry) as host:
        host.add(Guarded())
        host.add(Echo("one"))
        await host.start()
        print(host.server.address, flush=True)
        await host.wait()


async def serve_gateway(registry: str, database_url: str, redis_url: str, keys: str) -> None:
    """A gateway with every guard on."""
    gateway = Gateway(
        registry=registry,
        database_url=database_url,
        redis_url=redis_url,
        listen="127.0.0.1:0",
        grpc_listen="127.0.0.1:0",
        auth="on",
        tokens=TokenSettings(issuer=ISSUER, audience=(AUDIENCE,), keys_url=f"http://{keys}/"),
        signer=Signer(ed25519.Ed25519PrivateKey.generate()),
        limits=parse(_LIMITS),
        telemetry=Telemetry(metrics=Instruments("gateway")),
    )
    async with gateway:
        await gateway.ready()
        print(gateway.url.removeprefix("http://"), flush=True)
        await asyncio.Event().wait()


async def serve_hello() -> None:
    """A bare ASGI application: reads a request and gives a constant answer."""
    body = _json(gateway_json.response())
    await _serve_bare(lambda _: body)


async def serve_call(agent: str) -> None:
    """The same with a bare gRPC call in between, of constant bytes."""
    body = _json(gateway_json.response())
    request = gateway_json.request().SerializeToString()
    async with grpc.aio.insecure_channel(agent) as channel:
        review: Any = channel.unary_unary(f"/{SERVICE}/Review")

        async def answer(_: bytes) -> bytes:
            await review(request, timeout=5)
            return body

        await _serve_bare(answer)


async def _serve_bare(answer: Callable[[bytes], bytes | Awaitable[bytes]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 what ASGI says
        made = answer((await receive())["body"])
        body = made if isinstance(made, bytes) else await made
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http="httptools",
        loop="none",
        lifespan="off",
        access_log=False,
        timeout_keep_alive=120,
        log_level="warning",
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started)
    print(f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", flush=True)
    await serving


ROLES = {
    "guarded_keys": serve_keys,
    "guarded_agent": serve_agent,
    "guarded_gateway": serve_gateway,
    "hello": serve_hello,
    "hello_call": serve_call,
}


def review(address: str, token: str, verb: str = "review", more: str = "") -> bytes:
    """A call of about 1 KB, as bytes of HTTP."""
    return _post(address, f"/v1/answers:{verb}", token, _json(gateway_json.request()), more)


def reviewed(body: bytes) -> bool:
    """Whether the answer is right."""
    try:
        said = json_format.Parse(body, quality_pb2.ReviewResponse())
    except json_format.ParseError:
        return False
    return said == gateway_json.response()


def stream(address: str, token: str, pause: str = "") -> bytes:
    """A call for messages of 100 bytes each, as bytes of HTTP."""
    asked = {"text": "x" * 100, "count": MESSAGES} | ({"pause": pause} if pause else {})
    return _post(address, "/v1/echo:repeat", token, json.dumps(asked).encode())


def streamed(body: bytes) -> bool:
    """Whether all messages came, and the end."""
    return body.count(b"data: {") == MESSAGES + 1 and b"event: end" in body


def _json(message: Any) -> bytes:
    return json_format.MessageToJson(message, indent=None).encode()


def _post(address: str, path: str, token: str, body: bytes, more: str = "") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {token}\r\n{more}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
