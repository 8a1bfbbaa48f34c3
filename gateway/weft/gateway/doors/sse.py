"""Server-sent events: how HTTP doors carry a server-streaming method (WHATWG HTML, section 9.2).

data: {message as JSON}            one event per message
event: end    data: {}             the call ended well
event: error  data: {the error}    the call failed after its first message
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from weft import rpc
from weft.gateway.http.exchange import Exchange, Headers

_KEEP_ALIVE = 15.0  # seconds of silence after which proxies begin to give up
_HEADERS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_END = b"event: end\ndata: {}\n\n"


async def send_events(
    exchange: Exchange,
    messages: AsyncIterator[bytes],
    to_json: Callable[[bytes], bytes],
    render: Callable[[rpc.Error], bytes],
) -> rpc.Error | None:
    """Sends messages as events and returns the error that ended them, if one did.

    Raises:
        rpc.Error: before the first message; nothing was sent then, and the status can still be told.
    """
    first = await anext(messages, None)
    await exchange.begin(200, list(_HEADERS))
    beat = _Heartbeat(exchange)
    try:
        if first is not None:
            await exchange.write(b"data: " + to_json(first) + b"\n\n", more=True)
        async for message in messages:
            beat.sent()
            await exchange.write(b"data: " + to_json(message) + b"\n\n", more=True)
    except rpc.Error as failed:
        await exchange.write(b"event: error\ndata: " + render(failed) + b"\n\n", more=False)
        return failed
    else:
        await exchange.write(_END, more=False)
        return None
    finally:
        await beat.stop()


class _Heartbeat:
    """Sends a comment when nothing else was sent for a while."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._quiet = True
        self._task = asyncio.create_task(self._beat())

    def sent(self) -> None:
        """Something was sent."""
        self._quiet = False

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_ALIVE)
            if self._quiet:
                await self._exchange.write(b": keep-alive\n\n", more=True)
            self._quiet = True

    async def stop(self) -> None:
        """Ends it."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
