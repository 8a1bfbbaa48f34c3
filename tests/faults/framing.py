"""Where the elements of a byte stream begin, so that damage can be done where its receiver has to notice it.

What travels between clients, broker and Redis has no checksum of its own: a byte that flips inside a payload is, to
every part, another payload. Real networks have TCP's checksum and TLS, which turn damage into a broken connection. The
proxy does the same: it damages headers, which are wrong to every reader.
"""

from __future__ import annotations

from typing import Protocol

_PREFACE = 24  # bytes a client of HTTP/2 says first
_HEADER = 9  # bytes before the payload of each frame of HTTP/2
_BULKS = b"$=!"


class Framing(Protocol):
    def feed(self, data: bytes) -> list[int]:
        """The offsets in `data` at which an element begins."""
        ...

    damage: bytes  # what to write over the beginning of an element


class Http2:
    """Frames of HTTP/2. The damage is a length that nobody accepts."""

    damage = b"\xff"

    def __init__(self, *, client: bool) -> None:
        self._skip = _PREFACE if client else 0
        self._head = b""

    def feed(self, data: bytes) -> list[int]:
        offsets, position, size = [], 0, len(data)
        while position < size:
            if self._skip:
                step = min(self._skip, size - position)
                self._skip -= step
                position += step
                continue
            if not self._head:
                offsets.append(position)
            wanted = _HEADER - len(self._head)
            self._head += data[position : position + wanted]
            position += wanted
            if len(self._head) == _HEADER:
                self._skip = int.from_bytes(self._head[:3], "big")
                self._head = b""
        return offsets


class Resp:
    """Elements of Redis' protocol. The damage is a type that there is not."""

    damage = b"\x07"

    def __init__(self) -> None:
        self._skip = 0
        self._line = b""

    def feed(self, data: bytes) -> list[int]:
        offsets, position, size = [], 0, len(data)
        while position < size:
            if self._skip:
                step = min(self._skip, size - position)
                self._skip -= step
                position += step
                continue
            if not self._line:
                offsets.append(position)
            end = data.find(b"\n", position)
            if end < 0:
                self._line += data[position:]
                break
            line = self._line + data[position : end + 1]
            self._line, position = b"", end + 1
            if line[0] in _BULKS and line[1:2] != b"-" and line[1:2] != b"?":
                self._skip = int(line[1:-2]) + 2
        return offsets


class RespRequests(Resp):
    """Commands: only the beginning of one counts, for a type that is wrong elsewhere would be read as an inline command."""

    damage = b"*x"

    def feed(self, data: bytes) -> list[int]:
        return [offset for offset in super().feed(data) if data[offset : offset + 1] == b"*"]


class Opaque:
    """Bytes of no known form: any chunk is an element."""

    damage = b"\xff"

    def feed(self, data: bytes) -> list[int]:
        return [0] if data else []


def framing(protocol: str, *, client: bool) -> Framing:
    """By name: http2, resp or opaque."""
    if protocol == "http2":
        return Http2(client=client)
    if protocol == "resp":
        return RespRequests() if client else Resp()
    return Opaque()
