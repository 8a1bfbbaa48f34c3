"""An answer that is there as a whole: its head and body in one write.

uvicorn's cycle takes an answer in two messages, and looks at each name and value by itself: a twentieth of what a small
request costs the gateway. Here they are looked at together, and written as one. What is no ordinary case is left to uvicorn.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

EXTENSION = "weft.whole"
"""Of a request's ASGI scope: takes status, headers and body; whether the answer was sent."""

Headers = list[tuple[bytes, bytes]]
_WITHOUT_BODY = frozenset({204, 304})


def send_whole(
    cycle: RequestResponseCycle,
    transport: asyncio.Transport,
    status: int,
    headers: Headers,
    body: bytes,
) -> bool:
    """Sends the answer of a request that was read to its end, and ends it; False: nothing was done.

    Args:
        cycle: the request's.
        transport: of its connection.
        status: HTTP status.
        headers: lower-case names and values; with the content-length of `body`.
        body: all of it.

    Raises:
        RuntimeError: a header is malformed.
    """
    if (
        cycle.response_started
        or cycle.disconnected
        or cycle.more_body
        or cycle.flow.write_paused
        or not cycle.keep_alive
        or status in _WITHOUT_BODY
        or cycle.scope["method"] == "HEAD"
    ):
        return False
    headers = cycle.default_headers + headers
    names = [name for name, _ in headers]
    if b"connection" in names or b"transfer-encoding" in names:
        return False
    if HEADER_RE.search(b"".join(names)) or HEADER_VALUE_RE.search(
        b"".join([value for _, value in headers])
    ):
        raise RuntimeError("A header of the answer is malformed.")
    parts = [STATUS_LINE[status]]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts += (b"\r\n", body)
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    transport.write(b"".join(parts))
    cycle.message_event.set()
    cycle.on_response()
    return True
