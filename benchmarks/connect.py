"""What a call costs the gateway by the form in which it comes.

CPU of a unary call of about 1 KB each way through one gateway (same guards, channel and agent): Connect JSON,
Connect binary, gRPC-Web binary and gRPC-Web text, in interleaved rounds.

proto_vs_json       CPU seconds of the gateway process per request, Connect binary / Connect JSON
grpc_web_vs_json    the same for gRPC-Web, binary
web_text_vs_json    the same for gRPC-Web, text
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import statistics
import struct
import tempfile
from pathlib import Path
from typing import Any

import gateway_json
import measure
import uvloop
from google.protobuf import json_format

from weft import embedded

_PATH = "/weft.support.v1.QualityService/Review"
_CONNECTIONS = 16


def bodies() -> dict[str, tuple[str, bytes]]:
    """Content type and body of the same request, by form."""
    message = gateway_json.request().SerializeToString()
    frame = struct.pack(">BI", 0, len(message)) + message
    text = json_format.MessageToJson(gateway_json.request(), indent=None).encode()
    return {
        "json": ("application/json", text),
        "proto": ("application/proto", message),
        "grpc_web": ("application/grpc-web+proto", frame),
        "web_text": ("application/grpc-web-text+proto", base64.b64encode(frame)),
    }


class Client:
    """Sends one prepared request over and over on connections that stay open."""

    def __init__(self, address: str, content_type: str, body: bytes) -> None:
        self.address = address
        head = (
            f"POST {_PATH} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {content_type}\r\n"
            f"connect-protocol-version: 1\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.request = head.encode() + body
        self.free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self.free = asyncio.Queue()

    async def connect(self) -> None:
        """Opens the connections."""
        host, _, port = self.address.rpartition(":")
        for _ in range(_CONNECTIONS):
            self.free.put_nowait(await asyncio.open_connection(host, int(port)))

    async def call(self) -> bytes:
        """One request."""
        reader, writer = await self.free.get()
        writer.write(self.request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        body = await reader.readexactly(length)
        self.free.put_nowait((reader, writer))
        return body


async def run(rounds: int, seconds: float) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Measures all forms in rounds."""
    cpu: dict[str, list[float]] = {form: [] for form in bodies()}
    async with contextlib.AsyncExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory())
        servers = await stack.enter_async_context(embedded.launch(Path(data)))
        start = await stack.enter_async_context(measure.children(gateway_json.__file__))
        registry = start("registry", servers.database_url)
        start("agent", registry.told)
        gateway = start("gateway", registry.told, servers.database_url, "mapping")
        clients = {form: Client(gateway.told, *sent) for form, sent in bodies().items()}
        for client in clients.values():
            await client.connect()
        reply = gateway_json.response().SerializeToString()
        assert await clients["proto"].call() == reply
        assert reply in await clients["grpc_web"].call()
        assert base64.b64decode(await clients["web_text"].call())[5:].startswith(reply)
        for number in range(rounds + 1):
            for form in sorted(cpu, reverse=bool(number % 2)):
                before = gateway.cpu()
                rate = await measure.rate(
                    clients[form].call, seconds=seconds, in_flight=_CONNECTIONS
                )
                if number:
                    cpu[form].append((gateway.cpu() - before) / (rate * seconds) * 1e6)
            measure.progress(f"round {number} of {rounds}" + (" done" if number == rounds else ""))
    ratios = {
        f"{form}_vs_json": [a / b for a, b in zip(taken, cpu["json"], strict=True)]
        for form, taken in cpu.items()
        if form != "json"
    }
    figures = {f"{form}_cpu_us": round(statistics.median(v), 1) for form, v in cpu.items()}
    return ratios, {**figures, **{f"{k}_bytes": len(body) for k, (_, body) in bodies().items()}}


def main() -> None:
    """Runs the measurement."""
    options = measure.arguments(__doc__, rounds=10).parse_args()
    ratios, figures = uvloop.run(run(options.rounds, options.seconds))
    measure.report(ratios, figures, as_json=options.json)


if __name__ == "__main__":
    main()
