"""What gRPC says in header blocks: requests as they are sent, answers as they are read (PROTOCOL-HTTP2.md)."""

from __future__ import annotations

import base64
import binascii
import functools
import math
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from weft.gateway.dataplane import hpack
from weft.rpc.call import Metadata

_MOST = 16 * 1024  # bytes of metadata taken, what gRPC's core refuses at the latest
_LONGEST_BLOCK = 64 * 1024
_CACHED = 512  # blocks kept decoded
_CACHED_BYTES = 256  # of a block that is worth to be kept
_DIGITS = 99_999_999  # a timeout has eight at most
# Of gRPC itself; `grpc-status-details-bin` and `grpc-retry-pushback-ms` are read as metadata.
_NOT_METADATA = frozenset(
    (
        *(b"content-type", b"grpc-status", b"grpc-message", b"grpc-encoding"),
        *(b"grpc-accept-encoding", b"content-length"),  # of what is framed anew for the caller
    )
)
# Of one connection, which a request must not have (RFC 9113, 8.2.2), or of what is framed and addressed anew.
_NOT_SENT = frozenset(
    (
        *("connection", "content-length", "host", "keep-alive", "proxy-connection"),
        *("te", "transfer-encoding", "upgrade"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A header block of an answer, its first or its last.

    Attributes:
        http_status: 0: none, as in trailers.
        is_grpc: whether the content type is gRPC's, or is not said.
        grpc_status: None: none; -1: one that is no number.
        message: of the status.
        encoding: of messages that are compressed.
        metadata: everything else.
    """

    http_status: int = 0
    is_grpc: bool = True
    grpc_status: int | None = None
    message: str = ""
    encoding: str = "identity"
    metadata: Metadata = ()


def request_head(path: str, authority: str) -> bytes:
    """What all requests for a method begin with."""
    return b"".join(
        (
            hpack.indexed(3),  # :method POST
            hpack.indexed(6),  # :scheme http
            hpack.named(4, path.encode()),
            hpack.named(1, authority.encode()),
            hpack.literal(b"te", b"trailers"),
            hpack.named(31, b"application/grpc"),  # content-type
            hpack.named(58, b"grpc-weft/1"),  # user-agent
            hpack.literal(b"grpc-accept-encoding", b"identity, deflate, gzip"),
        )
    )


def timeout(seconds: float | None) -> bytes:
    """The field that says how long the caller waits."""
    if seconds is None or math.isinf(seconds):
        return b""
    milliseconds = math.ceil(seconds * 1e3)
    if milliseconds <= _DIGITS:
        return hpack.literal(b"grpc-timeout", b"%dm" % max(1, milliseconds))
    return hpack.literal(b"grpc-timeout", b"%dS" % min(math.ceil(seconds), _DIGITS))


def metadata(entries: Metadata) -> bytes:
    """Metadata as fields. They are nobody's to index: credentials may be among them (RFC 7541, 7.1.3)."""
    fields = []
    for key, value in entries:
        if key in _NOT_SENT:
            continue
        if isinstance(value, bytes):
            text = binascii.b2a_base64(value, newline=False).rstrip(b"=")
        else:
            text = value.encode()
        fields.append(hpack.literal(_name(key), text, secret=True))
    return b"".join(fields)


@functools.lru_cache(1024)
def _name(key: str) -> bytes:
    return key.lower().encode()


def read(block: bytes) -> Head:
    """What a header block of an answer says.

    Raises:
        hpack.HpackError: it cannot be decoded.
        hpack.TooLargeError: it is more than is taken.
    """
    if len(block) <= _CACHED_BYTES:
        return _read_again(block)
    if len(block) > _LONGEST_BLOCK:
        raise hpack.TooLargeError
    return _read(block)


def _read(block: bytes) -> Head:
    status, is_grpc, grpc_status, message, encoding = 0, True, None, "", "identity"
    found: list[tuple[str, str | bytes]] = []
    for name, value in hpack.decode(block, _MOST):
        if name == b":status":
            status = int(value) if value.isdigit() else -1
        elif name == b"grpc-status":
            grpc_status = int(value) if value.isdigit() else -1
        elif name == b"grpc-message":
            message = unquote_to_bytes(value).decode("utf-8", "replace")
        elif name == b"grpc-encoding":
            encoding = value.decode("latin-1")
        elif name == b"content-type":
            is_grpc = value.startswith(b"application/grpc")
        elif name not in _NOT_METADATA and not name.startswith(b":"):
            found += _entries(name.decode("latin-1"), value)
    return Head(
        http_status=status,
        is_grpc=is_grpc,
        grpc_status=grpc_status,
        message=message,
        encoding=encoding,
        metadata=tuple(found),
    )


# Most answers of a method have the same header blocks; with no dynamic table the same octets mean the same.
_read_again = functools.lru_cache(_CACHED)(_read)


def _entries(name: str, value: bytes) -> Metadata:
    """Entries of a field; binary values may be joined by commas, padded or not, and what is no base64 is dropped."""
    if not name.endswith("-bin"):
        return ((name, value.decode("latin-1")),)
    found: list[tuple[str, str | bytes]] = []
    for part in value.split(b","):
        text = part.strip().rstrip(b"=")
        try:
            found.append((name, base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)))
        except binascii.Error:
            continue
    return tuple(found)
