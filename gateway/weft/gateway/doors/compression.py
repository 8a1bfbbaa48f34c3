"""Compressed messages: gzip and nothing else, bounded by what comes out, not by what went in."""

from __future__ import annotations

import asyncio
import zlib

from weft import rpc
from weft.gateway.guards import PayloadTooLarge

GZIP, IDENTITY = b"gzip", b"identity"
SUPPORTED = b"gzip, identity"

_SMALLEST = 1024  # bytes; less gains nothing
_IN_A_THREAD = 256 * 1024  # bytes; more would hold up everybody else for milliseconds
_LEVEL = 4  # of 1 to 9; measured on 64 KB of JSON: half the time of 6 for 8 % more bytes
_GZIP_BITS = 31  # zlib: a gzip header is expected, or written; a window of 32 KB
# To make ready the tables of a large window costs more than to compress a small message: measured on 1.2 KB
# of JSON, 15 us in place of 75 us, with the same result.
_SMALL = 16 * 1024  # bytes
_SMALL_BITS, _SMALL_MEMORY = 28, 5


class EncodingUnknown(rpc.Unimplemented):
    """This compression is not supported; supported are gzip and identity."""

    reason = "ENCODING_UNKNOWN"


class BadCompression(rpc.InvalidArgument):
    """The message is not what its encoding says."""

    reason = "BAD_COMPRESSION"


def unpack(data: bytes, encoding: bytes, limit: int) -> bytes:
    """What came in an encoding, at most `limit` bytes.

    Raises:
        EncodingUnknown: there is no such encoding here.
        PayloadTooLarge: more than `limit` came out.
        BadCompression: the data is damaged, cut, or followed by something else.
    """
    encoding = encoding.strip().lower()
    if encoding in (b"", IDENTITY) or not data:
        return data
    if encoding != GZIP:
        raise EncodingUnknown
    unpacking = zlib.decompressobj(_GZIP_BITS)
    try:
        unpacked = unpacking.decompress(data, limit + 1)
    except zlib.error:
        raise BadCompression from None
    if len(unpacked) > limit:
        raise PayloadTooLarge(
            f"The message is larger than {limit} bytes when it is decompressed.",
            metadata={"limit_bytes": str(limit)},
        )
    if not unpacking.eof or unpacking.unused_data:
        raise BadCompression
    return unpacked


def accepts_gzip(accepted: bytes, used: bytes = b"") -> bool:
    """Whether an answer may be compressed.

    Args:
        accepted: the caller's list, most preferred first; empty: what it used itself (Connect).
        used: encoding of the request.
    """
    if not accepted:
        return used.strip().lower() == GZIP
    if GZIP not in accepted:
        return False
    for part in accepted.split(b","):
        name, _, quality = part.partition(b";")
        name = name.strip().lower()
        if name == IDENTITY:
            return False
        if name == GZIP:
            return quality.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False


def worth_it(data: bytes) -> bool:
    """Whether data is large enough to be compressed."""
    return len(data) >= _SMALLEST


async def pack(data: bytes) -> bytes:
    """Data as gzip."""
    if len(data) > _IN_A_THREAD:
        return await asyncio.to_thread(_pack, data)
    return _pack(data)


def _pack(data: bytes) -> bytes:
    if len(data) <= _SMALL:
        packing = zlib.compressobj(_LEVEL, zlib.DEFLATED, _SMALL_BITS, _SMALL_MEMORY)
    else:
        packing = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_BITS)
    return packing.compress(data) + packing.flush()
