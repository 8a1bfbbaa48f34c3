"""How much of a request is taken in: size of the body, number and size of the headers.

A body that is too large is `InvalidArgument`, not gRPC's own `ResourceExhausted`: the latter means "later"
(HTTP 429) and a well-behaved client would send the same 100 MB again. HTTP has exact words for the two
cases, 413 and 431 (RFC 9110, RFC 6585), and the doors that speak HTTP use them: `http_status`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar

from weft import rpc

BODY_BYTES = 4 * 1024 * 1024  # gRPC's own default for a message

# Large enough for any honest 64-bit length; what is longer is refused before int() sees it.
_LENGTH_DIGITS = 19

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class PayloadTooLarge(rpc.InvalidArgument):
    """The request body is larger than this gateway accepts.

    Answer it with `connection: close`: the rest of the body is not read.
    """

    reason = "PAYLOAD_TOO_LARGE"
    http_status: ClassVar[int] = 413


class HeadersTooLarge(rpc.InvalidArgument):
    """The request has more or longer headers than this gateway accepts."""

    reason = "HEADERS_TOO_LARGE"
    http_status: ClassVar[int] = 431


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    """What the head of a request (request line and headers) may hold; the trailers of a body too."""

    count: int = 128
    """Headers."""
    total_bytes: int = 64 * 1024
    """Bytes of names, values and the request target together."""


async def read_body(
    receive: Receive,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    limit: int = BODY_BYTES,
) -> bytes:
    """The whole body of an ASGI request, at most `limit` bytes.

    A length announced as larger is refused before a byte is read (nor is `100 Continue` sent), and a body
    without one as soon as it has grown too large.

    Raises:
        PayloadTooLarge: the body is larger.
        rpc.Cancelled: the caller went away.
    """
    for name, value in headers:
        if name == b"content-length" and not _fits(value, limit):
            raise _too_large(limit)
    message = await _next(receive)
    first: bytes = message.get("body", b"")
    if len(first) > limit:
        raise _too_large(limit)
    if not message.get("more_body", False):
        return first
    body = bytearray(first)
    while message.get("more_body", False):
        message = await _next(receive)
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


async def _next(receive: Receive) -> MutableMapping[str, Any]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise rpc.Cancelled("The caller went away before its request was complete.")
    return message


def _fits(length: bytes, limit: int) -> bool:
    # The HTTP parser has made sure that these are digits.
    return len(length) <= _LENGTH_DIGITS and int(length) <= limit


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The request body is larger than {limit} bytes.", metadata={"limit_bytes": str(limit)}
    )
