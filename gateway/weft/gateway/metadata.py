"""What travels beside the messages of a call: gRPC metadata, as HTTP headers and back.

Connect and gRPC-Web let callers and agents send metadata as headers. What HTTP, a browser, a proxy or the
gateway itself means by a header is no metadata, in neither direction: an agent sets no cookie, and a caller
forges no identity.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from weft import rpc
from weft.gateway.guards import HeadersTooLarge
from weft.rpc.call import Metadata

Headers = list[tuple[bytes, bytes]]

MAX_BYTES = 8 * 1024  # what gRPC peers take by default
_ENTRY = 32  # bytes HTTP/2 counts for an entry beside its text (RFC 9113, 6.5.2)

_NOT_METADATA = frozenset(
    name.encode()
    for name in (
        *("accept", "age", "allow", "alt-svc", "authorization", "cache-control", "connection"),
        *(
            "cookie",
            "date",
            "dnt",
            "endpoint-load-metrics-bin",
            "etag",
            "expect",
            "expires",
            "forwarded",
            "from",
            "host",
        ),
        *("http2-settings", "idempotency-key", "keep-alive", "last-modified", "link", "location"),
        *("max-forwards", "origin", "pragma", "prefer", "priority", "range", "referer"),
        *("referrer-policy", "retry-after", "save-data", "server", "set-cookie"),
        *("strict-transport-security", "te", "traceparent", "trailer", "transfer-encoding"),
        *("upgrade", "upgrade-insecure-requests", "user-agent", "vary", "via", "warning"),
        *("www-authenticate", "x-api-key", "x-content-type-options", "x-frame-options"),
        *("x-goog-fieldmask", "x-grpc-web", "x-real-ip", "x-request-timeout", "x-user-agent"),
    )
)
_NOT_METADATA_PREFIXES = (
    *(b"accept-", b"access-control-", b"connect-", b"content-", b"grpc-", b"if-", b"proxy-"),
    *(b"sec-", b"trailer-", b"weft-", b"x-accel-", b"x-forwarded-"),
)
_NAME = re.compile(rb"[0-9a-z_.-]+")
_TEXT = re.compile(rb"[\x20-\x7e]*")


@dataclass(slots=True)
class Beside:
    """The metadata of one call.

    Attributes:
        sent: the caller's, for the agent.
        leading: what the agent sent before its first message.
        trailing: what it sent at the end.
    """

    sent: Metadata = ()
    leading: Metadata = ()
    trailing: Metadata = ()


def from_headers(headers: Iterable[tuple[bytes, bytes]]) -> Metadata:
    """The metadata in a request's headers (ASGI: lower-case names). Text that is not ASCII is left out.

    Raises:
        rpc.InvalidArgument: a binary value is not base64.
        HeadersTooLarge: it is more than agents take.
    """
    found: list[tuple[str, str | bytes]] = []
    size = 0
    for name, value in headers:
        if not _is_metadata(name) or not _TEXT.fullmatch(value):
            continue
        size += len(name) + len(value) + _ENTRY
        key = name.decode()
        if name.endswith(b"-bin"):
            # Values of one name may be joined on the way (PROTOCOL-HTTP2.md).
            found += ((key, _binary(key, part.strip())) for part in value.split(b","))
        else:
            found.append((key, value.decode()))
    if size > MAX_BYTES:
        raise HeadersTooLarge(f"The request has more than {MAX_BYTES} bytes of metadata.")
    return tuple(found)


def to_headers(metadata: Metadata, prefix: bytes = b"") -> Headers:
    """Metadata of an agent as headers of a response."""
    return [(prefix + name, value) for name, value in _shown(metadata)]


def to_lists(metadata: Metadata) -> dict[str, list[str]]:
    """Metadata of an agent as an object of lists, as Connect's EndStreamResponse has it."""
    found: dict[str, list[str]] = {}
    for name, value in _shown(metadata):
        found.setdefault(name.decode(), []).append(value.decode())
    return found


def unpadded(value: bytes) -> bytes:
    """Binary metadata as text: base64 with no padding."""
    return binascii.b2a_base64(value, newline=False).rstrip(b"=")


def _shown(metadata: Metadata) -> Headers:
    found: Headers = []
    for key, value in metadata:
        name = key.encode()
        if not _is_metadata(name):
            continue
        text = unpadded(value) if isinstance(value, bytes) else value.encode()
        if _TEXT.fullmatch(text):
            found.append((name, text))
    return found


@functools.lru_cache(1024)  # callers send the same few names over and over
def _is_metadata(name: bytes) -> bool:
    return (
        name not in _NOT_METADATA
        and not name.startswith(_NOT_METADATA_PREFIXES)
        and _NAME.fullmatch(name) is not None
    )


def _binary(key: str, value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        raise rpc.InvalidArgument("is not base64", field=key) from None
