"""Frames of HTTP/2 as octets (RFC 9113, section 4)."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384  # the most a peer may send unless told otherwise; nobody may ask for less
LARGEST_FRAME = 2**24 - 1
LARGEST = 2**31 - 1  # window, stream

HEAD = struct.Struct(">BHBBI")  # length (24 bits), type, flags, stream
_SETTING = struct.Struct(">HI")
_NUMBER = struct.Struct(">I")


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """Any frame."""
    size = len(payload)
    return HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def headers(stream: int, block: bytes, most: int) -> bytes:
    """A header block, in frames of at most `most` bytes."""
    if len(block) <= most:
        return frame(HEADERS, END_HEADERS, stream, block)
    frames = [frame(HEADERS, 0, stream, block[:most])]
    for start in range(most, len(block), most):
        part = block[start : start + most]
        last = END_HEADERS if start + most >= len(block) else 0
        frames.append(frame(CONTINUATION, last, stream, part))
    return b"".join(frames)


def settings(values: dict[int, int]) -> bytes:
    """SETTINGS of ours."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*each) for each in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """SETTINGS of the peer, in order."""
    return list(_SETTING.iter_unpack(payload))


def reset(stream: int, code: int) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def goaway(code: int) -> bytes:
    """GOAWAY of a client: the peer opened no stream."""
    return frame(GOAWAY, 0, 0, _NUMBER.pack(0) + _NUMBER.pack(code))


def window_update(stream: int, granted: int) -> bytes:
    """WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(granted))


def number(payload: bytes, at: int = 0) -> int:
    """The four octets there."""
    return int.from_bytes(payload[at : at + 4], "big")
