"""Crowds of callers that ask the gateway for little or nothing and stay, each crowd a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc

ENDLESS = "endless"
"""What a caller of Repeat says that wants messages for ever; any other gets one, and then silence."""

MESSAGES = 2
"""How many messages all callers ask Repeat for."""

_MESSAGE = 8_192  # bytes of an endless stream's message
_REPEAT = "/weft.echo.v1.EchoService/Repeat"
_PATIENCE = 600.0  # seconds, the most the gateway grants
_AT_ONCE = 200  # connections that are being opened
_PER_CHANNEL = 1_000  # gRPC streams
_LARGE = 2_000_000  # bytes of an answer that nobody reads
_DRIP = 1.0  # seconds between two bytes of a slow sender
_UNREAD = 3.0  # seconds until what nobody reads has piled up where it may
_TEXT, _PING, _PONG = 0x81, 0x89, 0x8A


class Patient(Echo):
    """The agent that crowds call: streams of MESSAGES are one message and silence, ENDLESS ones messages without end."""

    async def Repeat(
        self, request: echo_pb2.RepeatRequest, context: Any
    ) -> AsyncIterator[echo_pb2.RepeatResponse]:
        """See the class."""
        if request.text == ENDLESS:
            endless = echo_pb2.RepeatResponse(text="x" * _MESSAGE)
            while True:
                yield endless
        if request.count != MESSAGES:
            async for message in super().Repeat(request, context):
                yield message
            return
        yield echo_pb2.RepeatResponse(text="wait")
        await asyncio.Event().wait()


def raise_limit() -> None:
    """Lets this process open as many files as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _request(path: str, body: bytes, *further: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "host: gateway",
        "content-type: application/json",
        f"content-length: {len(body)}",
        f"x-request-timeout: {_PATIENCE:.0f}",
        *further,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _frame(kind: int, data: bytes) -> bytes:
    """A frame of a WebSocket's client, masked with zeros (RFC 6455, 5.2)."""
    return bytes([kind, 0x80 | len(data)]) + bytes(4) + data


_HANDSHAKE = (
    b"GET /ws" + _REPEAT.encode() + b" HTTP/1.1\r\nhost: gateway\r\nupgrade: websocket\r\n"
    b"connection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nx-request-timeout: 600\r\n\r\n"
)


class _Caller(asyncio.Protocol):
    """Asks once and stays; `arrived` when the first message is there."""

    asks = _request("/v1/echo:repeat", b'{"count": %d}' % MESSAGES, "accept: text/event-stream")
    awaits = b"data: "

    def __init__(self) -> None:
        self.arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport
        self._head = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        transport.write(self.asks)

    def data_received(self, data: bytes) -> None:
        if not self.arrived.done():
            self._head += data
            if self.awaits in self._head:
                self._head = b""
                self.arrived.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.arrived.done():
            self.arrived.set_exception(exc or ConnectionError(f"refused: {self._head[:200]!r}"))


class _Socket(_Caller):
    """The same by WebSocket; answers pings."""

    asks = _HANDSHAKE + _frame(_TEXT, b'{"count": %d}' % MESSAGES)
    awaits = b"{"

    def data_received(self, data: bytes) -> None:
        if not self.arrived.done():
            super().data_received(data)
            return
        while len(data) > 1 and data[0] == _PING:
            size = data[1]
            self.transport.write(_frame(_PONG, data[2 : 2 + size]))
            data = data[2 + size :]


class _Unread(_Caller):
    """Asks for events without end and reads none."""

    asks = _request(
        "/v1/echo:repeat",
        b'{"count": %d, "text": "%s"}' % (MESSAGES, ENDLESS.encode()),
        "accept: text/event-stream",
    )

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        loop.call_soon(transport.pause_reading)  # at once uvloop would begin to read behind it
        loop.call_later(_UNREAD, self._settled)

    def _settled(self) -> None:
        if not self.arrived.done():
            self.arrived.set_result(None)


class _UnreadSocket(_Unread):
    asks = _HANDSHAKE + _frame(_TEXT, b'{"count": %d, "text": "%s"}' % (MESSAGES, ENDLESS.encode()))


class _UnreadAnswer(_Unread):
    asks = _request("/v1/echo:say", b'{"text": "%s"}' % (b"x" * _LARGE))


class _Slow(_Caller):
    """Sends a byte a second of a request that does not end; begins again when it is cut."""

    asks = b"GET /v1/echo/"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self.arrived.done():
            self.arrived.set_result(None)
        self._drip()

    def data_received(self, data: bytes) -> None:
        del data
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        host, port = self.transport.get_extra_info("peername")[:2]
        loop = asyncio.get_running_loop()
        self._again = loop.create_task(loop.create_connection(type(self), host, port))

    def _drip(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"x")
            asyncio.get_running_loop().call_later(_DRIP, self._drip)


class _SlowBody(_Slow):
    asks = _request("/v1/echo:say", b"")[:-4].replace(b"length: 0", b"length: 100000") + b"\r\n\r\n"


async def _connect(address: str, count: int, kind: Callable[[], _Caller]) -> list[_Caller]:
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    opening = asyncio.Semaphore(_AT_ONCE)

    async def one() -> _Caller:
        async with opening:
            plain = socket.socket()
            plain.setblocking(False)
            if issubclass(kind, _Unread):  # type: ignore[arg-type]
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            await loop.sock_connect(plain, (host, int(port)))
            _, caller = await loop.create_connection(kind, sock=plain)
            if not issubclass(kind, _Unread):  # type: ignore[arg-type]
                await caller.arrived
        await caller.arrived
        return caller

    return await asyncio.gather(*(one() for _ in range(count)))


async def _grpc(stack: contextlib.AsyncExitStack, address: str, count: int, text: str) -> object:
    calls = []
    for start in range(0, count, _PER_CHANNEL):
        options = (("grpc.use_local_subchannel_pool", 1),)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options))
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        request = echo_pb2.RepeatRequest(count=MESSAGES, text=text)
        begun = [
            stub.Repeat(request, timeout=_PATIENCE) for _ in range(min(_PER_CHANNEL, count - start))
        ]
        calls += begun
        if text != ENDLESS:
            await asyncio.gather(*(call.read() for call in begun))
    if text == ENDLESS:
        await asyncio.sleep(_UNREAD)
    return calls


_KINDS: dict[str, Callable[[], _Caller]] = {
    "sse": _Caller,
    "websocket": _Socket,
    "slow_heads": _Slow,
    "slow_bodies": _SlowBody,
    "unread_sse": _Unread,
    "unread_websocket": _UnreadSocket,
    "unread_answers": _UnreadAnswer,
}


async def gather(kind: str, http: str, grpc_address: str, count: str) -> None:
    """Opens a crowd, says "ready", and stays until it is told to end."""
    raise_limit()
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with contextlib.AsyncExitStack() as stack:
        held: object
        if kind.endswith("grpc"):
            text = ENDLESS if kind.startswith("unread") else ""
            held = await _grpc(stack, grpc_address, int(count), text)
        else:
            held = await _connect(http, int(count), _KINDS[kind])
        print("ready", flush=True)
        await told.wait()
        del held
