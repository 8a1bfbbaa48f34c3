"""The little of HTTP/2 (RFC 9113) and gRPC that a health probe needs, on an asyncio transport.

A check by grpc.aio costs 400 to 1,200 us of CPU, since each event crosses from its threads to the loop; this
costs 100 to 160, which makes probing thousands of addresses every second affordable. Requests use no
HPACK state and response headers are not decoded: an answer is its messages and that it ended.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import cast

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8
_CANCEL = struct.pack(">I", 8)
_DEFAULT_WINDOW = 65_535
_MAX_WINDOW = 2**31 - 1
_MAX_FRAME = 16_384  # the most a peer may send unless told otherwise
_MAX_MESSAGE = 4_096  # an answer about health has two bytes
_HEAD = struct.Struct(">BHBBI")  # length (24 bits), type, flags, stream
_PREFIX = struct.Struct(">BI")  # of a gRPC message: compressed, length
_STATIC = b"\x83\x86"  # :method POST, :scheme http, from HPACK's static table

# Called with the stream and a message, or None at its end.
Listener = Callable[[int, bytes | None], None]


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field that leaves no trace in HPACK's table; `name` is encoded already."""
    return name + _short(value)


def _short(text: bytes) -> bytes:
    assert len(text) < 127  # noqa: PLR2004 what fits HPACK's 7-bit length
    return bytes((len(text),)) + text


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


class Connection(asyncio.Protocol):
    """One connection to a gRPC server.

    Args:
        address: what is dialled, sent as the authority.
        lost: called once when the connection is gone, whoever closed it.

    Attributes:
        open: whether calls can be made.
    """

    def __init__(self, address: str, lost: Callable[[], None]) -> None:
        self._authority = _literal(b"\x01", address.encode())
        self._headers: dict[bytes, bytes] = {}  # encoded, by path
        self._lost = lost
        self.open = False
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._streams: dict[int, Listener] = {}
        self._messages: dict[int, bytearray] = {}
        self._next = 1
        self._window = _DEFAULT_WINDOW

    def call(self, path: bytes, message: bytes, listener: Listener) -> int:
        """Begins a call with one request message; returns its stream."""
        stream, self._next = self._next, self._next + 2
        headers = self._headers.get(path)
        if headers is None:
            headers = self._headers[path] = self._encode(path)
        body = _PREFIX.pack(0, len(message)) + message
        self._window -= len(body)
        if self._window < 0:  # a peer that grants nothing more is of no use
            self.close()
            return stream
        self._streams[stream] = listener
        self._messages[stream] = bytearray()
        self._write(
            _frame(_HEADERS, _END_HEADERS, stream, headers)
            + _frame(_DATA, _END_STREAM, stream, body)
        )
        return stream

    def _encode(self, path: bytes) -> bytes:
        return b"".join(
            (
                _STATIC,
                _literal(b"\x04", path),
                self._authority,
                _literal(b"\x0f\x10", b"application/grpc"),  # content-type
                _literal(b"\x00" + _short(b"te"), b"trailers"),
            )
        )

    def cancel(self, stream: int) -> None:
        """Gives a call up; its listener hears nothing more."""
        if self._streams.pop(stream, None) is not None:
            self._messages.pop(stream)
            self._write(_frame(_RST_STREAM, 0, stream, _CANCEL))

    def close(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Opens the conversation."""
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop is no subclass
        self.open = True
        grant = struct.pack(">I", _MAX_WINDOW - _DEFAULT_WINDOW)
        self._write(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_WINDOW_UPDATE, 0, 0, grant))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets all calls."""
        del exc
        self.open = False
        self._streams.clear()
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Takes what frames are complete."""
        received = self._received
        received += data
        while len(received) >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(received)
            size = high << 16 | low
            if size > _MAX_FRAME:
                self.close()
                return
            end = _HEAD.size + size
            if len(received) < end:
                return
            payload = bytes(received[_HEAD.size : end])
            del received[:end]
            self._take(kind, flags, stream & _MAX_WINDOW, payload)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case 0:  # DATA
                if flags & _PADDED:
                    payload = payload[1 : len(payload) - payload[0]]
                self._body(stream, payload)
            case 3:  # RST_STREAM
                self._end(stream)
            case 4 if not flags & _ACK:  # SETTINGS
                self._write(_frame(_SETTINGS, _ACK, 0, b""))
            case 6 if not flags & _ACK:  # PING
                self._write(_frame(_PING, _ACK, 0, payload))
            case 7:  # GOAWAY
                self.close()
            case 8 if stream == 0:  # WINDOW_UPDATE
                self._window += int.from_bytes(payload, "big")
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            self._end(stream)

    def _body(self, stream: int, payload: bytes) -> None:
        message = self._messages.get(stream)
        if message is None:
            return
        message += payload
        while len(message) >= _PREFIX.size:
            _, size = _PREFIX.unpack_from(message)
            if size > _MAX_MESSAGE:
                self.close()
                return
            end = _PREFIX.size + size
            if len(message) < end:
                return
            content = bytes(message[_PREFIX.size : end])
            del message[:end]
            listener = self._streams.get(stream)
            if listener is not None:
                listener(stream, content)

    def _end(self, stream: int) -> None:
        listener = self._streams.pop(stream, None)
        self._messages.pop(stream, None)
        if listener is not None:
            listener(stream, None)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
