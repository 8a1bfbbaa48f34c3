"""A server-streaming method as JSON: a message a line, or one array with a message a line.

An error after the first message is the last line or element, {"error": {...}} as AIP-193 has it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from weft import rpc
from weft.gateway import failures
from weft.gateway.http.exchange import Exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What stands around messages: before the first, between two, behind each, after the last."""

    before: bytes = b""
    between: bytes = b""
    behind: bytes = b""
    after: bytes = b""


LINES = Layout(behind=b"\n")
ARRAY = Layout(before=b"[", between=b",\n", after=b"]\n")


async def send_lines(
    exchange: Exchange,
    messages: AsyncIterator[bytes],
    to_json: Callable[[bytes], bytes],
    content_type: bytes,
    layout: Layout,
) -> rpc.Error | None:
    """Sends messages and returns the error that ended them, if one did.

    Raises:
        rpc.Error: before the first message; nothing was sent then, and the status can still be told.
    """
    first = await anext(messages, None)
    begun = b"" if first is None else to_json(first) + layout.behind
    headers = [
        (b"content-type", content_type),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
    ]
    await exchange.begin(200, headers)
    failed: rpc.Error | None = None
    last = layout.before + begun
    if first is not None:
        await exchange.write(last, more=True)
        last = b""
        try:
            async for message in messages:
                await exchange.write(layout.between + to_json(message) + layout.behind, more=True)
        except rpc.Error as error:
            failed = error
            last = layout.between + failures.aip193(failed) + layout.behind
    await exchange.write(last + layout.after, more=False)
    return failed
