"""Messages out of DATA frames (PROTOCOL-HTTP2.md, "Length-Prefixed-Message")."""

from __future__ import annotations

import struct
import zlib
from collections import deque

import grpc

from weft.gateway.dataplane.errors import StreamError

_PREFIX = struct.Struct(">?I")  # compressed, length
_WINDOW_BITS = {"gzip": 31, "deflate": 15}  # as zlib names the formats


def prefixed(message: bytes) -> bytes:
    """A message as it is sent."""
    return _PREFIX.pack(False, len(message)) + message


class Inbox:
    """The messages of one call that nobody has taken yet.

    Args:
        most: bytes of the largest message taken, once it is unpacked.

    Attributes:
        encoding: of messages that are marked as compressed.
        held: bytes of the whole messages in it, as they came, each with its prefix.
    """

    __slots__ = ("_messages", "_most", "_partial", "encoding", "held")

    def __init__(self, most: int) -> None:
        self._most = most
        self._messages: deque[tuple[bool, bytes]] = deque()
        self._partial = bytearray()
        self.encoding = "identity"
        self.held = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def cut_off(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._partial)

    def feed(self, data: bytes) -> None:
        """Takes what came next.

        Raises:
            StreamError: a message is too large.
        """
        if not self._partial:
            at = self._read(data)
            if at < len(data):
                self._partial += memoryview(data)[at:]
        else:
            self._partial += data
            if at := self._read(self._partial):
                del self._partial[:at]

    def _read(self, data: bytes | bytearray) -> int:
        """Where the first message begins that is not complete."""
        at, size = 0, len(data)
        while size - at >= _PREFIX.size:
            packed, length = _PREFIX.unpack_from(data, at)
            if length > self._most:
                raise self._too_large(f"{length} bytes")
            end = at + _PREFIX.size + length
            if end > size:
                break
            self._messages.append((packed, bytes(data[at + _PREFIX.size : end])))
            self.held += end - at
            at = end
        return at

    def take(self) -> bytes:
        """The next message. It is unpacked no sooner, so that little is kept for a caller who does not read.

        Raises:
            IndexError: there is none.
            StreamError: it is too large, or compressed in a way that cannot be undone.
        """
        packed, message = self._messages.popleft()
        self.held -= _PREFIX.size + len(message)
        return self._unpacked(message) if packed else message

    def _unpacked(self, packed: bytes) -> bytes:
        bits = _WINDOW_BITS.get(self.encoding)
        if bits is None:
            raise StreamError(
                grpc.StatusCode.INTERNAL, f"A message is packed, encoding: {self.encoding[:40]!r}."
            )
        unpacking = zlib.decompressobj(bits)
        try:
            message = unpacking.decompress(packed, self._most + 1)
        except zlib.error:
            raise StreamError(grpc.StatusCode.INTERNAL, "A packed message is damaged.") from None
        if len(message) > self._most:
            raise self._too_large("more once it is unpacked")
        if not unpacking.eof:
            raise StreamError(grpc.StatusCode.INTERNAL, "A packed message is cut off.")
        return message

    def _too_large(self, size: str) -> StreamError:
        return StreamError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"A message of the agent is too large: {size}, {self._most} are taken.",
        )
