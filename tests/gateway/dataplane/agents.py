"""Agents of the data plane's tests: real gRPC servers, and peers that keep to no rule."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from weft.gateway.dataplane import Call, Mesh, frames, hpack
from weft.gateway.dataplane.inbox import prefixed

METHODS = ("Echo", "Count", "Chat", "Fail", "Hang", "Big", "Meta", "Packed", "Deaf", "Where")
DETAILS = "grpc-status-details-bin"
SETTINGS = frames.frame(frames.SETTINGS, 0, 0)
OK = hpack.indexed(8) + hpack.named(31, b"application/grpc")
DONE = hpack.literal(b"grpc-status", b"0")
END = frames.END_HEADERS | frames.END_STREAM


class Agent:
    """A gRPC server in bytes.

    Attributes:
        calls: how many calls it began.
        ended: set when a call to Hang was given up.
        taken: messages that left Count.
        failing: what Where fails with; None: it answers with its address.
        trailing: what Where sends behind its answer.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.taken = 0
        self.together = 0
        self.most = 0
        self.hanging = asyncio.Event()
        self.ended = asyncio.Event()
        self.address = ""
        self.server: Any = None
        self.failing: grpc.StatusCode | None = None
        self.trailing: tuple[tuple[str, bytes], ...] = ()

    async def Echo(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        self.together += 1
        self.most = max(self.most, self.together)
        await asyncio.sleep(0.002)
        self.together -= 1
        return request

    async def Count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        size, count = (int(part) for part in request.split())
        for _ in range(count):
            yield b"x" * size
            self.taken += 1

    async def Chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata((("welcome", "yes"),))
        async for request in requests:
            yield request

    async def Fail(self, request: bytes, context: Any) -> bytes:
        number = int(request)
        code = next(code for code in grpc.StatusCode if code.value[0] == number)
        details = ((DETAILS, b"\x00\xff\x01detail"), ("x-more", "text"))
        await context.abort(code, "Grüße: 100 %\n", details)
        return b""

    async def Hang(self, request: bytes, context: Any) -> bytes:
        self.hanging.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return b""

    async def Deaf(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def Big(self, request: bytes, context: Any) -> bytes:
        return b"y" * int(request)

    async def Meta(self, request: bytes, context: Any) -> bytes:
        sent = [(k, v) for k, v in context.invocation_metadata() if k.startswith("x-")]
        await context.send_initial_metadata(sent)
        context.set_trailing_metadata([("x-left-ms", str(int(context.time_remaining() * 1e3)))])
        return request

    async def Packed(self, request: bytes, context: Any) -> bytes:
        context.set_compression(grpc.Compression.Gzip)
        return b"z" * int(request)

    async def Where(self, request: bytes, context: Any) -> bytes:
        if self.failing is not None:
            await context.abort(self.failing, "asked to fail")
        context.set_trailing_metadata(self.trailing)
        return self.address.encode()

    def handlers(self) -> grpc.GenericRpcHandler:
        shapes = {
            "Count": grpc.unary_stream_rpc_method_handler,
            "Chat": grpc.stream_stream_rpc_method_handler,
            "Deaf": grpc.stream_unary_rpc_method_handler,
        }
        return grpc.method_handlers_generic_handler(
            "t.T",
            {
                name: shapes.get(name, grpc.unary_unary_rpc_method_handler)(getattr(self, name))
                for name in METHODS
            },
        )


@contextlib.asynccontextmanager
async def agent_at(address: str = "127.0.0.1:0", **options: int) -> AsyncIterator[Agent]:
    """A server with gRPC channel arguments; "__" in their names stands for a dot."""
    agent = Agent()
    arguments = [("grpc." + name.replace("__", "."), value) for name, value in options.items()]
    limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    agent.server = grpc.aio.server(options=[*arguments, *limits, ("grpc.so_reuseport", 0)])
    agent.server.add_generic_rpc_handlers((agent.handlers(),))
    port = agent.server.add_insecure_port(address)
    agent.address = f"127.0.0.1:{port}"
    await agent.server.start()
    try:
        yield agent
    finally:
        await agent.server.stop(0)


@contextlib.asynccontextmanager
async def mesh_of(*addresses: str) -> AsyncIterator[Mesh]:
    mesh = Mesh()
    mesh.update({"a": addresses})
    try:
        yield mesh
    finally:
        await mesh.close()


async def unary(
    mesh: Mesh, name: str, request: bytes = b"", *, seconds: float = 10.0, sent: Any = ()
) -> tuple[bytes, Call]:
    return await mesh.method("a", f"/t.T/{name}").unary(request, seconds, sent)


async def begin(mesh: Mesh, name: str, request: bytes | None = None, seconds: float = 20.0) -> Call:
    method = mesh.method("a", f"/t.T/{name}", streaming=True)
    return await method.begin(seconds, (), request=request)


Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def peer(talk: Conversation) -> AsyncIterator[str]:
    """A server that says whatever it likes; it has heard the client's preface."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(len(frames.PREFACE))
            await talk(reader, writer)
            await writer.drain()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def heard(reader: asyncio.StreamReader, *kinds: int) -> tuple[int, int, bytes]:
    """The next frame of one of these kinds: stream, flags, payload."""
    while True:
        high, low, of, flags, stream = frames.HEAD.unpack(await reader.readexactly(9))
        payload = await reader.readexactly(high << 16 | low)
        if of in kinds:
            return stream, flags, payload


def head(stream: int = 1, block: bytes = OK) -> bytes:
    return frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block)


def data(message: bytes, stream: int = 1) -> bytes:
    return frames.frame(frames.DATA, 0, stream, prefixed(message))


def trailers(stream: int = 1, block: bytes = DONE) -> bytes:
    return frames.frame(frames.HEADERS, END, stream, block)
