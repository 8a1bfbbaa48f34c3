"""google.api.HttpBody as an answer: its bytes under its own content type.

What an agent says is a page of the gateway's origin as well: a browser is told to keep it apart.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable

from weft import rpc
from weft.gateway.http.exchange import Exchange, Headers

log = logging.getLogger("weft.gateway")

_MEDIA_TYPE = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(?:;[\x20-\x7e]*)?"
)
_UNKNOWN = "application/octet-stream"

Read = Callable[[bytes], tuple[str, bytes]]


async def send_body(exchange: Exchange, reply: bytes, read: Read) -> None:
    """Answers with a body."""
    content_type, data = read(reply)
    await exchange.reply(200, data, _safe(content_type), _apart())


async def send_bodies(
    exchange: Exchange, messages: AsyncIterator[bytes], read: Read
) -> rpc.Error | None:
    """Sends bodies one after the other under the content type of the first.

    An error on the way cuts the connection: nothing else is left to tell it by.

    Raises:
        rpc.Error: before the first message; nothing was sent then, and the status can still be told.
    """
    first = await anext(messages, None)
    content_type, data = (_UNKNOWN, b"") if first is None else read(first)
    await exchange.begin(200, [(b"content-type", _safe(content_type)), *_apart()])
    try:
        await exchange.write(data, more=True)
        async for message in messages:
            await exchange.write(read(message)[1], more=True)
    except rpc.Error as failed:
        log.warning("a body was cut", extra={"code": failed.code.name, "reason": failed.reason})
        return failed
    await exchange.write(b"", more=False)
    return None


def _safe(content_type: str) -> bytes:
    return (content_type if _MEDIA_TYPE.fullmatch(content_type) else _UNKNOWN).encode()


def _apart() -> Headers:
    return [(b"content-security-policy", b"sandbox allow-scripts")]
